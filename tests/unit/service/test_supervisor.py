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
from aurea.versions.registry import Registry


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
