"""`python -m api`: serve the API until SIGTERM, then let everyone who waits go with what they have."""

import socket
import sys

import uvicorn

from api.app import create_app
from api.protocol import BoundedProtocol
from api.settings import ApiSettings
from api.state import State
from db import logs


class Server(uvicorn.Server):
    """Ends long polls at once when told to stop: their clients poll again, at another process."""

    def __init__(self, config: uvicorn.Config, parts: State) -> None:
        super().__init__(config)
        self._parts = parts

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        self._parts.results.close()
        await super().shutdown(sockets)


def main() -> None:
    """Serve on API_HOST and API_PORT."""
    logs.configure()
    settings = ApiSettings.load()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=8,
    )
    server = Server(config, app.state.parts)
    server.run()
    if not server.started:
        sys.exit(3)


if __name__ == "__main__":
    main()
