"""HTTP as uvicorn speaks it, with a bound on a request's head: the parser itself would gather one without end."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.limits import HEAD_LIMIT

TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """Hangs up on a head that goes on beyond the limit. One that ends is judged by `api.edge`, with a problem."""

    _in_head = False
    _head = 0

    def data_received(self, data: bytes) -> None:
        """Some bytes, of a head or a body."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > HEAD_LIMIT:
                self.transport.write(TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        self._in_head, self._head = False, 0
        super().on_headers_complete()
