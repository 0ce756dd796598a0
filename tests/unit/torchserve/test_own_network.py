import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from aurea.torchserve import own_network
from aurea.torchserve.process import in_own_network, own_network_refusal

NOBODY = 65534
_PR_SET_DUMPABLE = 4
# What it has become, and what it sees.
LOOK = """
import ctypes, json, os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal_of_death = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(signal_of_death))
print(json.dumps({
    "pid": os.getpid(),
    "session": os.getsid(0),
    "user": os.geteuid(),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "signal": signal_of_death.value,
}), flush=True)
sys.stdin.read()
"""

needs_networks = pytest.mark.skipif(
    own_network_refusal() is not None, reason="no network of one's own can be had here"
)


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@needs_networks
def test_a_command_keeps_its_number_and_session_and_nobody_outside_reaches_its_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # Taken outside, free inside.
        port = taken.getsockname()[1]
        command = in_own_network([sys.executable, "-c", LOOK, str(port)])
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            seen = json.loads(process.stdout.readline())
            taken.close()
            assert not connects(port)
            process.communicate(b"", timeout=10)
    assert seen == {
        "pid": process.pid,
        "session": process.pid,
        "user": os.geteuid(),
        "interfaces": ["lo"],
        "signal": signal.SIGTERM,
    }


def in_child(act: Callable[[], None]) -> int:
    """The exit status of a process that does `act`; 1 where that raises."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_networks
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_an_ordinary_user_has_one_too_and_stays_itself() -> None:
    most = Path("/proc/sys/user/max_user_namespaces")
    if most.exists() and int(most.read_text()) == 0:
        pytest.skip("this kernel has no user namespaces")

    def act() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        # What a program is that this user has started, and a process of root's is not.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1)
        own_network.enter()
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        assert (os.geteuid(), os.getegid()) == (NOBODY, NOBODY)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert connects(listener.getsockname()[1])

    assert in_child(act) == 0


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC, errno.EINVAL])
def test_what_the_kernel_refuses_is_said_in_a_line_and_nothing_is_started(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number), "unshare")

    monkeypatch.setattr(own_network, "_unshare", refuse)
    with pytest.raises(SystemExit) as ended:
        own_network.main(["/bin/true"])
    assert ended.value.code == own_network.FAILED
    assert capsys.readouterr().err == f"unshare: {os.strerror(number)}\n"


def test_loopback_that_may_not_be_raised_is_a_refusal_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # So AppArmor has it: the namespace is made, but nothing may be done in it.
    def refuse(*_: object) -> bytes:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(own_network, "_unshare", lambda _: None)
    monkeypatch.setattr("fcntl.ioctl", refuse)
    with pytest.raises(SystemExit):
        own_network.main([])
    assert capsys.readouterr().err == "loopback: Operation not permitted\n"


@pytest.mark.slow
def test_the_probe_says_why_and_a_launcher_that_hangs_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def launched(code: str) -> str | None:
        monkeypatch.setattr(
            "aurea.torchserve.process._IN_OWN_NETWORK", (sys.executable, "-I", "-S", "-c", code)
        )
        return own_network_refusal()

    monkeypatch.setattr("aurea.torchserve.process._NETWORK_TIMEOUT_S", 2.0)
    assert launched("") is None
    assert launched("import sys; sys.exit('unshare: No')") == "unshare: No"
    assert launched("import sys; sys.exit(3)") == "status 3"
    assert "timed out" in (launched("import time; time.sleep(9)") or "")
