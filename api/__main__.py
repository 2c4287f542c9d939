"""`python -m api`: serve the API until SIGTERM, then let everyone who waits go with what they have."""

import asyncio
import resource
import socket
import sys
from typing import Final

import uvicorn

from api.app import create_app
from api.protocol import BoundedProtocol
from api.settings import ApiSettings, listed
from api.state import State
from db import logs
from db.garbage import settle

OTHER_FILES: Final = 100  # connections to Postgres and Redis, libraries


class Server(uvicorn.Server):
    """Ends long polls at once when told to stop: their clients poll again, at another process."""

    def __init__(self, config: uvicorn.Config, parts: State) -> None:
        super().__init__(config)
        self._parts = parts

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; once in it, hang up on who is too slow."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.sweep(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        self._parts.results.close()
        await super().shutdown(sockets)


def main() -> None:
    """Serve on API_HOST and API_PORT."""
    logs.configure()
    settings = ApiSettings.load()
    _allow_files(settings.connection_limit)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=listed(settings.trusted_proxies),
        log_config=None,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=8,
    )
    server = Server(config, app.state.parts)
    settle()
    server.run()
    if not server.started:
        sys.exit(3)


def _allow_files(connections: int) -> None:
    """Let the process have as many files open as connections may be, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (connections or hard) + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    main()
