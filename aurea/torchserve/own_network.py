"""Runs a command in a network of its own, whose loopback nobody else reaches.

Started as a script, so that what it becomes keeps its process number, group and session; without
a command it only tries. Knows nothing beyond the standard library, for it starts with each java.
"""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Final

FAILED: Final = 78
"""The exit status where there can be no such network; what failed is said on standard error."""

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_REQUEST: Final = "16sh14x"
"""The name of an interface and its flags, as the kernel takes both."""


def enter() -> None:
    """Move this process, which must have one thread, into a network with nothing but loopback.

    Whoever may do so without becoming somebody else keeps all that it may do; anybody else
    becomes itself in a user namespace of its own. Raises `OSError`.
    """
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _raise_loopback()


def _unshare(what: int) -> None:
    # `os.unshare` comes with Python 3.12.
    if ctypes.CDLL(None, use_errno=True).unshare(what):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack(_REQUEST, b"lo", 0)
        _, flags = struct.unpack(_REQUEST, fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_REQUEST, b"lo", flags | _IFF_UP))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))


def main(command: list[str]) -> None:
    """Become `command` in a network of its own."""
    parent = os.getppid()
    try:
        enter()
    except (OSError, AttributeError) as error:
        number = getattr(error, "errno", None) or errno.ENOSYS
        where = getattr(error, "filename", None) or "loopback"
        print(f"{where}: {os.strerror(number)}", file=sys.stderr)
        sys.exit(FAILED)
    if not command:
        return
    # A change of rights may have taken it back, and the parent may have gone before that.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(FAILED)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
