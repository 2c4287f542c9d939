"""Becomes another program that ends with its parent, holds the stack's lock and, from root, runs as another user.

A script (`python -I -S launch.py [options] -- command ...`): it needs neither the checkout as working folder nor any
package, and the program that it becomes keeps its process id, so signals reach it without a go-between.
"""

import argparse
import ctypes
import fcntl
import os
import signal
import struct
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522
BARE = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}


def main(arguments: list[str]) -> None:
    """Prepare this process as the options say, then become the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--end-with-parent", metavar="SIGNAL", help="what to receive when the parent dies")
    parser.add_argument("--lock", metavar="FILE", help="hold a shared lock on it, and the program's children too")
    parser.add_argument("--user", type=int, metavar="UID")
    parser.add_argument("--group", type=int, metavar="GID")
    parser.add_argument("--reach", action="store_true", help="let UID pass folders that are closed to it")
    parser.add_argument("--bare", action="store_true", help="hide the environment from the program")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    if options.lock:
        _hold(options.lock)
    if options.user is not None:
        _become(options.user, options.group, reach=options.reach)
    if options.end_with_parent:  # after the change of user, which would clear it
        _prctl(PR_SET_PDEATHSIG, signal.Signals[options.end_with_parent])
    try:
        os.execvpe(options.command[0], options.command, BARE if options.bare else os.environ)  # noqa: S606
    except OSError as error:
        sys.exit(f"Cannot run {options.command[0]}: {error.strerror}.")


def _hold(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.set_inheritable(descriptor, True)


def _become(user: int, group: int, *, reach: bool) -> None:
    """Give root up for good; `reach` keeps the one capability to pass a folder such as /root."""
    if reach:
        _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    if reach:
        _keep(CAP_DAC_OVERRIDE)


def _keep(capability: int) -> None:
    """Hold only this capability, in every set, so that it outlives exec."""
    bits = 1 << capability
    header = ctypes.create_string_buffer(struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", bits, bits, bits, 0, 0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYS_CAPSET[os.uname().machine], header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _prctl(option: int, first: int, second: int = 0) -> None:
    if sys.platform != "linux":  # elsewhere a killed parent leaves its children to the next start
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    main(sys.argv[1:])
