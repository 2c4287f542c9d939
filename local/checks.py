"""What is looked at before anything starts, so that a refusal is one sentence and leaves nothing behind."""

import errno
import socket

from local.errors import SetupError
from local.settings import LocalSettings


def check_ports(settings: LocalSettings) -> None:
    """See that the API and Flower will be able to listen.

    Raises:
        SetupError: a port is busy or not ours to take.
    """
    if settings.api_port == settings.flower_port:
        raise SetupError(f"API_PORT and FLOWER_PORT are both {settings.api_port}: set one of them to another port.")
    _check_port(settings.api_host, settings.api_port, "API_PORT")
    _check_port("127.0.0.1", settings.flower_port, "FLOWER_PORT")


def _check_port(host: str, port: int, setting: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise SetupError(f"API_HOST is {host}, which is no address ({error.strerror}).") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SetupError(f"Port {port} is in use by another program: set {setting} to a free one.") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise SetupError(f"API_HOST is {host}, which is not an address of this machine.") from error
        raise SetupError(f"Port {port} cannot be used ({error.strerror}): set {setting} to another one.") from error
