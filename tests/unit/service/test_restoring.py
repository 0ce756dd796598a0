"""Bringing versions back, with a stand-in for TorchServe's client that loads what it is told."""

import zipfile
from pathlib import Path
from typing import Any, cast

import pytest
from accent.layout import ECAPA

from aurea.archive.settings import OUR_SETTINGS_FILE
from aurea.service.errors import ServiceFailed
from aurea.service.restoring import Restoring
from aurea.torchserve.answers import RegisteredVersion
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError, NotRegistered
from aurea.versions.registry import Registry
from aurea.versions.state import Canary, State
from tests.unit.archive.archives import Record, zip_of
from tests.unit.torchserve.management_server import version as described


class StandInTorchServe:
    """Loads all archives but those of `broken` versions, whose registration is refused."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.default = ""
        self.workers: dict[str, int] = {}

    def register(self, archive: str) -> None:
        version = archive.removeprefix("small-").removesuffix(".mar")
        if version in self.broken:
            raise ManagementError(f"cannot register {version}")
        self.workers[version] = 0

    def ask_workers(self, version: str, count: int) -> None:
        self.workers[version] = count

    def version(self, version: str) -> RegisteredVersion:
        ready = [("READY", 11)] * self.workers[version]
        return RegisteredVersion.model_validate(described(version, *ready))

    def unregister(self, version: str) -> None:
        if self.workers.pop(version, None) is None:
            raise NotRegistered(version)

    def set_default(self, version: str) -> None:
        self.default = version


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "state", "small")
    registry.prepare()
    return registry


def state_of(registry: Registry, tmp_path: Path, *versions: str, **fields: Any) -> State:
    state = State(default=versions[0], **fields)
    for version in versions:
        source = tmp_path / f"{version}.mar"
        with zipfile.ZipFile(source, "w") as content:
            content.writestr("weights", version)
        state.versions[version] = registry.place(source, version)
    return state


def restoring(
    registry: Registry, state: State, torchserve: StandInTorchServe, tmp_path: Path
) -> Restoring:
    return Restoring(
        "small",
        registry,
        state,
        cast(TorchServe, torchserve),
        workers=lambda version: state.versions[version].workers or 1,
        model_log=tmp_path / "model.log",
        ready_timeout_s=5,
        check_alive=lambda: None,
    )


def test_the_default_comes_first_and_all_others_follow(registry: Registry, tmp_path: Path) -> None:
    state = state_of(
        registry, tmp_path, "2.0", "1.0", "3.0", canary=Canary(version="3.0", percent=5)
    )
    state.versions["3.0"].workers = 2
    torchserve = StandInTorchServe()
    versions = restoring(registry, state, torchserve, tmp_path)
    assert versions.load_default() == "2.0"
    assert (torchserve.default, torchserve.workers) == ("2.0", {"2.0": 1})
    # The proxy must not send anything to a version that is not loaded yet.
    assert "canary" not in registry.routing_file.read_text()
    versions.load_others()
    assert torchserve.workers == {"2.0": 1, "1.0": 1, "3.0": 2}
    assert "3.0" in registry.routing_file.read_text()
    assert registry.load() == state


def test_where_the_default_cannot_be_loaded_the_one_before_it_answers(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_of(registry, tmp_path, "2.0", "1.0", previous="1.0")
    (tmp_path / "model.log").write_text("W-9000-small_2.0-stdout - ValueError: bad weights\n")
    torchserve = StandInTorchServe("2.0")
    versions = restoring(registry, state, torchserve, tmp_path)
    assert versions.load_default() == "1.0"
    versions.load_others()
    assert (state.default, state.left, torchserve.default) == ("1.0", "2.0", "1.0")
    assert state.versions["2.0"].failed == "cannot register 2.0 ValueError: bad weights"
    said = capsys.readouterr().out
    assert "NOTE: small/2.0 is not served: cannot register 2.0" in said
    assert "NOTE: small/1.0 answers in place of 2.0" in said


def test_a_canary_that_cannot_be_loaded_gets_no_share(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_of(registry, tmp_path, "1.0", "2.0", canary=Canary(version="2.0", percent=5))
    (registry.store / state.versions["2.0"].archive).write_text("damaged")
    versions = restoring(registry, state, StandInTorchServe(), tmp_path)
    versions.load_default()
    versions.load_others()
    assert registry.load().canary is None
    assert "damaged" in registry.load().versions["2.0"].failed
    assert "NOTE: small/2.0 gets no share of the requests" in capsys.readouterr().out


def test_an_archive_of_an_earlier_release_that_hides_a_member_is_left_out(
    registry: Registry, tmp_path: Path
) -> None:
    state = state_of(registry, tmp_path, "1.0", "2.0")
    source = tmp_path / "2.0.mar"
    hidden = Record(b"accent_handler.py", b"print('hidden')", hidden=True)
    source.write_bytes(zip_of([Record(b"weights", b"2.0"), hidden]))
    state.versions["2.0"] = registry.place(source, "2.0")
    torchserve = StandInTorchServe()
    versions = restoring(registry, state, torchserve, tmp_path)
    versions.load_default()
    versions.load_others()
    assert set(torchserve.workers) == {"1.0"}
    assert "hides 'accent_handler.py'" in registry.load().versions["2.0"].failed


def test_a_version_that_was_mended_is_no_longer_told_as_failed(
    registry: Registry, tmp_path: Path
) -> None:
    state = state_of(registry, tmp_path, "1.0")
    state.versions["1.0"].failed = "an old reason"
    restoring(registry, state, StandInTorchServe(), tmp_path).load_default()
    assert registry.load().versions["1.0"].failed == ""


def test_without_any_version_that_loads_the_start_fails(registry: Registry, tmp_path: Path) -> None:
    state = state_of(registry, tmp_path, "2.0", "1.0")
    (tmp_path / "model.log").write_text("the workers' last words\n")
    torchserve = StandInTorchServe("1.0", "2.0")
    with pytest.raises(ServiceFailed, match=r"cannot load the model(.|\n)*last words"):
        restoring(registry, state, torchserve, tmp_path).load_default()


def test_a_process_that_is_gone_ends_the_start_and_no_version_is_blamed(
    registry: Registry, tmp_path: Path
) -> None:
    state = state_of(registry, tmp_path, "1.0")

    def gone() -> None:
        raise ServiceFailed("TorchServe ended by itself")

    versions = Restoring(
        "small",
        registry,
        state,
        cast(TorchServe, StandInTorchServe("1.0")),
        workers=lambda _: 1,
        model_log=tmp_path / "model.log",
        ready_timeout_s=5,
        check_alive=gone,
    )
    with pytest.raises(ServiceFailed, match="TorchServe ended"):
        versions.load_default()
    assert state.versions["1.0"].failed == ""


def test_on_a_machine_with_gpus_the_batches_are_those_of_its_profile(
    registry: Registry, tmp_path: Path
) -> None:
    class Batching(StandInTorchServe):
        def register(self, archive: str, **batching: int) -> None:
            super().register(archive)
            told.append(batching)

    told: list[dict[str, int]] = []
    source = tmp_path / "ecapa.mar"
    with zipfile.ZipFile(source, "w") as content:
        content.writestr(ECAPA.mark, b"")
        content.write(OUR_SETTINGS_FILE, "model-config.yaml")
    state = State(default="1.0", versions={"1.0": registry.place(source, "1.0")})
    for cards in (0, 2):
        Restoring(
            "small",
            registry,
            state,
            cast(TorchServe, Batching()),
            workers=lambda _: 1,
            model_log=tmp_path / "model.log",
            ready_timeout_s=5,
            check_alive=lambda: None,
            cards=cards,
        ).load_default()
    assert told == [{}, {"batch_size": 64, "max_batch_delay": 2}]
