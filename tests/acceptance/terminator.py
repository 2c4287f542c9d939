"""TLS in front of the embedded servers, which are built without it: as a cloud's proxy would, with a CA of its own."""

import contextlib
import ipaddress
import socket
import ssl
import struct
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


class Authority:
    """A CA that lives as long as a test.

    Args:
        folder: for its certificate, `ca`, and for those that it signs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {folder.name}")])
        self.ca = folder / "ca.pem"
        authority = self._certificate(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self.ca.write_bytes(authority.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def context(self, host: str) -> ssl.SSLContext:
        """What a server of this host needs."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        with contextlib.suppress(ValueError):
            names = [x509.IPAddress(ipaddress.ip_address(host))]
        certificate = self._certificate(name, key).add_extension(x509.SubjectAlternativeName(names), False)
        file = self._folder / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _certificate(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )


class Terminator:
    """Speaks TLS to clients and plain to a server on this machine.

    Args:
        target: the server's port.
        context: with the certificate.
        postgres: whether clients ask for TLS first, in Postgres' own way.
    """

    def __init__(self, target: int, context: ssl.SSLContext, postgres: bool = False) -> None:
        self._target = target
        self._context = context
        self._postgres = postgres
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.served = 0  # clients that sent anything

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError), plain:
            if self._postgres and not _asks_for_tls(plain):
                return
            with self._context.wrap_socket(plain, server_side=True) as client:
                first = client.recv(65_536)  # the client's, who has checked the certificate
                if first:
                    self.served += 1
                    self._join(client, first)

    def _join(self, client: ssl.SSLSocket, first: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            server.sendall(first)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join(10)


def _asks_for_tls(client: socket.socket) -> bool:
    while True:
        _, code = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
        if code == SSL_REQUEST:
            client.sendall(b"S")
            return True
        if code != GSS_REQUEST:
            return False
        client.sendall(b"N")


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
