"""A TCP proxy that can swallow: connections stay open, and nothing comes through any more."""

import select
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Between clients and one server.

    Args:
        port: of the server, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._silenced: set[socket.socket] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()
        for one in (self._listener, *(end for pair in self._pairs for end in pair)):
            one.close()

    def swallow(self) -> int:
        """Silence the connections of now, as a lost route would. New ones work. Returns how many."""
        ends = [end for pair in self._pairs for end in pair if end not in self._silenced]
        self._silenced.update(ends)
        return len(ends) // 2

    def _run(self) -> None:
        while not self._closing.is_set():
            other = {a: b for pair in self._pairs for a, b in (pair, pair[::-1])}
            watched = [end for end in other if end not in self._silenced]
            ready, _, _ = select.select([self._listener, *watched], [], [], 0.05)
            for one in ready:
                if one is self._listener:
                    client, _ = one.accept()
                    self._pairs.append((client, socket.create_connection(self._target)))
                elif one not in self._silenced:
                    self._pass_on(one, other[one])

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(65_536)
            if data:
                target.sendall(data)
                return
        except OSError:
            pass
        self._pairs = [pair for pair in self._pairs if source not in pair]
        source.close()
        target.close()
