"""What the supervisor does about parts that died where they cannot be started again at once."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aurea.service.errors import ServiceFailed
from aurea.service.machine import Machine
from aurea.service.settings import ServeSettings, SharedSettings
from aurea.service.supervisor import Supervisor
from aurea.torchserve.addresses import Addresses
from aurea.torchserve.configuration import Configuration
from aurea.torchserve.process import in_own_network, java_command
from aurea.versions.registry import Registry

GRPC_PORTS = (7070, 7071)


def addresses(folder: Path) -> Addresses:
    return Addresses(
        model_name="embedded",
        management_url="http://127.0.0.1:1",
        metrics_url="http://127.0.0.1:2/metrics",
        inference_socket=folder / "inference.sock",
        key_file=folder / "key_file.json",
        proxy_url="http://127.0.0.1:3",
        proxy_metrics_url="http://127.0.0.1:4/metrics",
        cores=2,
        cards=0,
        threads_per_worker=1,
    )


class DeadProxy:
    """A child that has died, and stays dead."""

    runs = False

    def check(self) -> None:
        raise ServiceFailed("The proxy ended by itself (status 1).")

    def terminate(self, _: float) -> None:
        pass


class Unforwarded:
    """Ports on loopback that nobody listens on."""

    def __init__(self, management_port: int, metrics_port: int) -> None:
        assert management_port != metrics_port

    def start(self, configuration: Configuration, key_file: Path) -> None:
        assert configuration.management_socket.parent.parent == key_file.parent

    def close(self) -> None:
        pass


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Lets a service whose proxy has died fail to start it again, and look after it twice."""
    monkeypatch.setattr("time.sleep", lambda _: None)

    def look_after(failure: Exception) -> None:
        settings = ServeSettings(run_dir=tmp_path, max_restarts=2)
        registry = Registry(tmp_path / "state", "embedded")
        supervisor = Supervisor(settings, SharedSettings(), registry, "embedded")

        def start_again() -> None:
            raise failure

        monkeypatch.setattr(supervisor, "_proxy", DeadProxy())
        monkeypatch.setattr(supervisor, "_start_again", {"proxy": start_again})
        for _ in range(2):
            supervisor._keep_alive()
        with pytest.raises(ServiceFailed, match="ended by itself"):
            supervisor._keep_alive()
        supervisor.stop()

    return look_after


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EMFILE])
def test_a_disk_that_cannot_be_written_just_now_costs_a_try_and_is_told(
    number: int,
    supervised: Callable[[Exception], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    supervised(OSError(number, os.strerror(number), str(tmp_path / "logs" / "proxy.out")))
    said = capsys.readouterr().out
    assert said.count(f"{os.strerror(number)}") == 2
    assert said.count("It is started again.") == 2


def test_a_part_that_fails_to_start_again_is_tried_again_as_often_as_is_allowed(
    supervised: Callable[[Exception], None], capsys: pytest.CaptureFixture[str]
) -> None:
    supervised(ServiceFailed("The proxy did not become ready."))
    assert capsys.readouterr().out.count("did not become ready") == 2


@pytest.mark.parametrize(
    ("network", "refusal", "own", "said"),
    [
        ("own", None, True, "==> TorchServe has a network of its own\n"),
        ("own", "unshare: Operation not permitted", False, "not permitted), so that others on"),
        ("shared", None, False, "shares the machine's network, as asked for\n"),
    ],
)
def test_torchserve_has_a_network_of_its_own_where_that_is_allowed_and_a_line_says_which(
    network: str,
    refusal: str | None,
    own: bool,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(
        "aurea.service.supervisor.Child",
        lambda title, command, environment, **_: started.append(command),  # noqa: ARG005
    )
    monkeypatch.setattr("aurea.service.supervisor.own_network_refusal", lambda: refusal)
    # Nothing listens on the ports of this machine for it.
    monkeypatch.setattr("aurea.service.supervisor.Forwarding", Unforwarded)
    monkeypatch.setattr(Machine, "in_flight", lambda *_: 64)
    settings = ServeSettings(run_dir=tmp_path, network=network)  # type: ignore[arg-type]
    registry = Registry(tmp_path / "state", "embedded")
    supervisor = Supervisor(settings, SharedSettings(), registry, "embedded")
    (tmp_path / "torchserve").mkdir()
    supervisor._own_network = supervisor._may_have_own_network()
    configuration, addresses = supervisor._open_ports(1)
    supervisor._start_torchserve(configuration, 1)
    supervisor.stop()
    assert said in capsys.readouterr().out
    (command,) = started
    plain = java_command(
        configuration, tmp_path / "torchserve/config.properties", tmp_path / "logs"
    )
    assert command == (in_own_network(plain) if own else plain)
    assert addresses.management_socket == configuration.management_socket
    if own:
        # Whatever others have there: it is not the same network.
        assert (configuration.grpc_inference_port, configuration.grpc_management_port) == GRPC_PORTS


@pytest.mark.parametrize(
    ("asked", "by_machine", "by_environment", "expected"),
    [
        (0, {}, None, None),
        (0, {"AUREA_PROCESSES": "4"}, None, "4"),
        (0, {"AUREA_PROCESSES": "4"}, "2", "2"),
        (3, {"AUREA_PROCESSES": "4"}, "2", "3"),
        (1, {"AUREA_PROCESSES": "4"}, None, "1"),
    ],
)
def test_the_proxy_has_as_many_processes_as_were_asked_for_or_as_the_machine_has_by_itself(
    asked: int,
    by_machine: dict[str, str],
    by_environment: str | None,
    expected: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AUREA_PROCESSES", raising=False)
    if by_environment is not None:
        monkeypatch.setenv("AUREA_PROCESSES", by_environment)
    started: list[dict[str, str]] = []
    monkeypatch.setattr(
        "aurea.service.supervisor.Child",
        lambda title, command, environment, **_: started.append(environment),  # noqa: ARG005
    )
    monkeypatch.setattr(Machine, "proxy_environment", lambda *_: dict(by_machine))
    settings = ServeSettings(run_dir=tmp_path, proxies=asked)
    registry = Registry(tmp_path / "state", "embedded")
    supervisor = Supervisor(settings, SharedSettings(), registry, "embedded")
    supervisor._start_proxy("", addresses(tmp_path))
    assert started[0].get("AUREA_PROCESSES") == expected
