"""A stack of small stand-ins for the service's processes: `python -m tests.local.standins up`.

They let the tests of `make up` see its own behaviour quickly, on the real servers and the real supervisord.
"""

import http.server
import os
import signal
import sys
from pathlib import Path

import psycopg

from local import up
from local.processes import Process

MODULE = "-m tests.local.standins"
REFUSAL = """-c 'raise SystemExit("This one refuses.")'"""


def run(refusing: str = "") -> int:
    """`make up` with these, one of which may refuse to run."""
    commands = {
        "migrate": f"{MODULE} migrate",
        "api": f"{MODULE} api",
        "worker": f"{MODULE} worker",
        "flower": f"{MODULE} flower {{flower_port}} {{state}}",
    }
    if refusing:
        commands[refusing] = REFUSAL
    probes = {"api": "/readyz", "flower": "/healthcheck"}
    migrate, *processes = (Process(name, words, probes.get(name)) for name, words in commands.items())
    return up.main(migrate, processes)


class Answer(http.server.BaseHTTPRequestHandler):
    """200 to everything."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def serve(port: int) -> None:
    """Until SIGTERM."""
    http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()


def migrate() -> None:
    """A table that tells how often this stack was started."""
    with psycopg.connect(os.environ["DATABASE_URL"].replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS starts (at timestamptz)")
        connection.execute("INSERT INTO starts VALUES (now())")


def main(name: str, *arguments: str) -> int:
    """Be one of them."""
    match name:
        case "up":
            return run(*arguments)
        case "migrate":
            migrate()
        case "api":
            serve(int(os.environ["API_PORT"]))
        case "flower":
            Path(arguments[1], "flower.environ").write_text("\n".join(sorted(os.environ)))
            serve(int(arguments[0]))
        case "worker":
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
