"""Each step on versions against a TorchServe that is played; the real one is in tests/e2e."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accent.layout import REFERENCE_FILE

from aurea.archive.layout import MANIFEST_FILE
from aurea.archive.vetting import ArchiveRefused
from aurea.paths import HANDLER
from aurea.torchserve.management import (
    Addresses,
    ManagementError,
    NotRegistered,
    RegisteredVersion,
    TorchServe,
)
from aurea.versions import lifecycle
from aurea.versions.lifecycle import CommandRefused, Lifecycle
from aurea.versions.registry import Canary, Registry, State

LABELS = "'us' => 0\n'england' => 1\n================\n'starting_index' => 0\n"
SCORES = {"1.0": 20.0, "2.0": 70.0, "3.0": 90.0}


class Played(TorchServe):
    """TorchServe's versions in memory. Workers are ready at once, unless a test says not."""

    def __init__(self) -> None:
        self.workers: dict[str, list[str]] = {}
        self.archives: dict[str, str] = {}
        self.answering = ""
        self.never_ready: set[str] = set()
        self.scores = dict(SCORES)
        self.steps: list[str] = []

    def versions(self) -> dict[str, RegisteredVersion]:
        return {version: self.version(version) for version in self.workers}

    def version(self, version: str) -> RegisteredVersion:
        if version not in self.workers:
            raise NotRegistered(version)
        return RegisteredVersion.model_validate(
            {
                "modelVersion": version,
                "modelUrl": self.archives[version],
                "minWorkers": len(self.workers[version]),
                "batchSize": 2,
                "workers": [
                    {"id": str(index), "status": status, "pid": -1}
                    for index, status in enumerate(self.workers[version])
                ],
            }
        )

    def default(self) -> RegisteredVersion:
        return self.version(self.answering)

    def register(self, archive_name: str) -> None:
        version = archive_name.removeprefix("small-").removesuffix(".mar")
        self.steps.append(f"register {version}")
        self.workers[version], self.archives[version] = [], archive_name
        self.answering = self.answering or version

    def unregister(self, version: str) -> None:
        self.steps.append(f"unregister {version}")
        if version == self.answering:
            raise ManagementError("Cannot remove default version")
        self.version(version)
        del self.workers[version]

    def set_default(self, version: str) -> None:
        self.steps.append(f"default {version}")
        self.version(version)
        self.answering = version

    def ask_workers(self, version: str, count: int) -> None:
        self.steps.append(f"workers {version} {count}")
        ready = len(self.workers[version])
        status = "UNLOADING" if version in self.never_ready else "READY"
        self.workers[version] = (self.workers[version] + [status] * (count - ready))[:count]

    def predict(self, audio: bytes, version: str | None = None) -> dict[str, Any]:
        version = version or self.answering
        assert audio == b"speech"
        score = self.scores[version]
        return {
            "us_confidence": score,
            "accents": [
                {"label": "us", "score": score / 100},
                {"label": "england", "score": 1 - score / 100},
            ],
            "model": {"name": "small", "version": version},
        }


class Service:
    """A run folder in which version 1.0 answers with two workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.torchserve = Played()
        self.registry = Registry(folder / "state", "small")
        self.registry.prepare()
        self.progress: list[tuple[str, int, int]] = []
        state, _ = self.registry.adopt(self.archive("1.0"), "1.0", 2)
        self.registry.save(state)
        self.torchserve.register("small-1.0.mar")
        self.torchserve.ask_workers("1.0", 2)
        self.torchserve.steps.clear()
        self.lifecycle = Lifecycle(
            self.torchserve,
            self.registry,
            Addresses(
                model_name="small",
                management_url="",
                metrics_url="",
                inference_socket=folder,
                key_file=folder,
                proxy_url="http://here",
                proxy_metrics_url="",
                cores=4,
                threads_per_worker=1,
            ),
            model_log=folder / "model.log",
            timeout_s=0.3,
            progress=lambda what, done, total: self.progress.append((what, done, total)),
            on_wait=lambda: None,
        )

    @property
    def state(self) -> State:
        return self.registry.load()

    @property
    def routing(self) -> Any:
        return json.loads(self.registry.routing_file.read_text())

    def archive(self, version: str, *, measured: float | None = None, name: str = "small") -> Path:
        """An archive as `make mar` builds it, whose packager measured `measured`."""
        reference = {
            "clips": [
                {
                    "file": "one.ogg",
                    "us_confidence": {"fp32": measured or SCORES[version], "int8": 0.0},
                    "top_accent": "us" if SCORES[version] > 50 else "england",
                }
            ],
            "tolerance_points": {"fp32": 0.5, "int8": 1.0},
        }
        model = {"modelName": name, "modelVersion": version, "handler": "accent_handler.py"}
        path = self.folder / f"{version}.mar"
        with zipfile.ZipFile(path, "w") as content:
            for each in ("embedding_model.ckpt", "classifier.ckpt", "hyperparams.yaml"):
                content.writestr(each, b"weights")
            for code in HANDLER.rglob("*.py"):
                content.write(code, code.relative_to(HANDLER).as_posix())
            content.write(HANDLER / "model-config.yaml", "model-config.yaml")
            content.writestr("accent_encoder.txt", LABELS)
            content.writestr(MANIFEST_FILE, json.dumps({"model": model}))
            content.writestr(REFERENCE_FILE, json.dumps(reference))
            content.writestr("reference/one.ogg", b"speech")
        return path

    def registered(self, *versions: str) -> None:
        for version in versions:
            self.lifecycle.register(self.archive(version))
        self.torchserve.steps.clear()


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr(lifecycle, "_ROUTING_S", 0.0)
    monkeypatch.setattr(lifecycle, "_SETTLE_S", 0.0)
    monkeypatch.setattr(lifecycle, "_IDLE_LOOK_S", 0.0)
    return Service(tmp_path)


def test_a_registered_version_gets_as_many_workers_as_the_default(service: Service) -> None:
    outcome = service.lifecycle.register(service.archive("2.0"))
    assert (outcome.facts["workers_ready"], outcome.facts["default"]) == (2, "1.0")
    assert "proven on 1 reference clips" in outcome.sentences[0]
    assert service.state.versions["2.0"].workers == 2
    assert service.torchserve.steps == ["register 2.0", "workers 2.0 2"]


def test_registering_twice_does_nothing_the_second_time(service: Service) -> None:
    archive = service.archive("2.0")
    service.lifecycle.register(archive)
    service.torchserve.steps.clear()
    assert "already" in service.lifecycle.register(archive).sentences[0]
    assert service.torchserve.steps == []


def test_another_archive_under_a_version_that_serves_is_refused(service: Service) -> None:
    service.registered("2.0")
    with pytest.raises(CommandRefused, match=r"retire 2\.0"):
        service.lifecycle.register(service.archive("2.0", measured=70.2))
    assert service.torchserve.steps == []


def test_an_archive_that_could_hurt_never_reaches_torchserve(service: Service) -> None:
    with pytest.raises(ArchiveRefused):
        service.lifecycle.register(service.archive("2.0", name="other"))
    assert service.torchserve.steps == []


def assert_only_the_first_version_is_left(service: Service) -> None:
    assert list(service.torchserve.workers) == ["1.0"]
    assert list(service.state.versions) == ["1.0"]
    assert [path.name for path in service.registry.store.iterdir()] == ["small-1.0.mar"]


def test_a_version_that_scores_otherwise_than_measured_is_taken_away_again(
    service: Service,
) -> None:
    with pytest.raises(CommandRefused, match=r"one\.ogg scores 70 and not 71"):
        service.lifecycle.register(service.archive("2.0", measured=71.0))
    assert_only_the_first_version_is_left(service)


def test_a_version_within_the_tolerance_is_taken(service: Service) -> None:
    service.lifecycle.register(service.archive("2.0", measured=70.4))
    assert set(service.state.versions) == {"1.0", "2.0"}


def test_a_version_that_hears_another_accent_is_taken_away_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(audio: bytes, version: str | None = None) -> dict[str, Any]:
        answer = Played.predict(service.torchserve, audio, version)
        first, second = (each["score"] for each in answer["accents"])
        answer["accents"] = [
            {"label": "england", "score": first},
            {"label": "us", "score": second},
        ]
        return answer

    monkeypatch.setattr(service.torchserve, "predict", predict)
    with pytest.raises(CommandRefused, match="sounds like england, not us"):
        service.lifecycle.register(service.archive("2.0"))
    assert_only_the_first_version_is_left(service)


def test_a_version_whose_workers_are_never_ready_is_taken_away_again(service: Service) -> None:
    service.torchserve.never_ready.add("2.0")
    (service.folder / "model.log").write_text("W-1-small_2.0-stdout - ValueError: broken weights")
    with pytest.raises(CommandRefused, match=r"still does.*ValueError: broken weights"):
        service.lifecycle.register(service.archive("2.0"))
    assert_only_the_first_version_is_left(service)


def test_a_registration_that_is_broken_off_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(service.torchserve, "predict", interrupt)
    with pytest.raises(KeyboardInterrupt):
        service.lifecycle.register(service.archive("2.0"))
    assert_only_the_first_version_is_left(service)


def test_what_a_killed_registration_left_behind_is_replaced(service: Service) -> None:
    service.torchserve.register("small-2.0.mar")
    service.torchserve.steps.clear()
    service.lifecycle.register(service.archive("2.0"))
    assert service.torchserve.steps == ["unregister 2.0", "register 2.0", "workers 2.0 2"]


def test_promoting_keeps_the_former_default_for_a_rollback(service: Service) -> None:
    service.registered("2.0")
    outcome = service.lifecycle.promote("2.0")
    assert (service.torchserve.answering, service.state.previous) == ("2.0", "1.0")
    assert outcome.facts["role"] == "default"


def test_promoting_twice_still_rolls_back_to_the_first(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.promote("2.0")
    assert "already" in service.lifecycle.promote("2.0").sentences[0]
    service.lifecycle.roll_back()
    assert service.torchserve.answering == "1.0"


def test_promoting_the_canary_ends_it(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.canary("2.0", 10)
    service.lifecycle.promote("2.0")
    assert (service.state.canary, service.routing) == (None, {})


def test_a_version_with_fewer_workers_is_promoted_only_if_that_is_meant(service: Service) -> None:
    service.lifecycle.register(service.archive("2.0"), workers=1)
    with pytest.raises(CommandRefused, match=r"scale 2 --version 2\.0"):
        service.lifecycle.promote("2.0")
    assert service.torchserve.answering == "1.0"
    service.lifecycle.promote("2.0", fewer_workers=True)
    assert service.torchserve.answering == "2.0"


def test_a_version_without_a_ready_worker_is_not_promoted(service: Service) -> None:
    service.registered("2.0")
    service.torchserve.workers["2.0"] = ["READY", "UNLOADING"]
    with pytest.raises(ManagementError, match="1 of 2"):
        service.lifecycle.promote("2.0")
    assert service.torchserve.answering == "1.0"


def test_a_version_that_is_not_there_is_told_with_those_that_are(service: Service) -> None:
    with pytest.raises(CommandRefused, match=r"there are 1\.0"):
        service.lifecycle.promote("9.9")


def test_a_rollback_repeated_does_not_go_forth_again(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.promote("2.0")
    service.lifecycle.roll_back()
    assert "already" in service.lifecycle.roll_back().sentences[0]
    assert service.torchserve.answering == "1.0"


def test_a_rollback_ends_every_canary(service: Service) -> None:
    service.registered("2.0", "3.0")
    service.lifecycle.promote("2.0")
    service.lifecycle.canary("3.0", 10)
    service.lifecycle.roll_back()
    assert (service.state.canary, service.routing) == (None, {})


def test_with_nothing_promoted_there_is_nothing_to_roll_back_to(service: Service) -> None:
    with pytest.raises(CommandRefused, match="no previous"):
        service.lifecycle.roll_back()


def test_a_rollback_to_a_version_without_workers_is_refused(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.promote("2.0")
    service.torchserve.workers["1.0"] = ["UNLOADING", "UNLOADING"]
    with pytest.raises(CommandRefused, match="no worker"):
        service.lifecycle.roll_back()
    assert service.torchserve.answering == "2.0"


def test_a_default_that_somebody_set_by_hand_is_what_counts(service: Service) -> None:
    service.registered("2.0")
    service.torchserve.set_default("2.0")
    service.lifecycle.roll_back()
    assert service.torchserve.answering == "1.0"


def test_the_default_is_not_retired(service: Service) -> None:
    with pytest.raises(CommandRefused, match="promote"):
        service.lifecycle.retire("1.0")
    assert_only_the_first_version_is_left(service)


def test_a_retired_version_leaves_with_its_canary_and_archive(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.canary("2.0", 10)
    service.lifecycle.retire("2.0")
    assert_only_the_first_version_is_left(service)
    assert (service.state.canary, service.routing) == (None, {})
    assert service.state.retired == ["2.0"]
    assert "already" in service.lifecycle.retire("2.0").sentences[0]


def test_the_previous_version_once_retired_is_no_rollback_any_more(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.promote("2.0")
    service.lifecycle.retire("1.0")
    with pytest.raises(CommandRefused, match="no previous"):
        service.lifecycle.roll_back()


def test_a_retired_version_can_be_registered_again(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.retire("2.0")
    service.registered("2.0")
    assert (service.state.retired, set(service.state.versions)) == ([], {"1.0", "2.0"})


def test_a_canary_is_told_to_the_proxy_and_remembered(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.canary("2.0", 10)
    assert service.state.canary == Canary(version="2.0", percent=10)
    assert service.routing == {"canary": {"version": "2.0", "percent": 10.0}}
    assert "as before" in service.lifecycle.canary("2.0", 10).sentences[0]
    service.lifecycle.end_canary()
    assert service.routing == {}
    assert "as before" in service.lifecycle.end_canary().sentences[0]


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_share_is_above_0_and_at_most_100_percent(service: Service, percent: float) -> None:
    service.registered("2.0")
    with pytest.raises(CommandRefused, match="percentage"):
        service.lifecycle.canary("2.0", percent)


def test_the_default_is_no_canary(service: Service) -> None:
    with pytest.raises(CommandRefused, match="default"):
        service.lifecycle.canary("1.0", 10)


def test_workers_are_taken_away_one_at_a_time(service: Service) -> None:
    service.lifecycle.scale(4, None)
    service.torchserve.steps.clear()
    outcome = service.lifecycle.scale(1, None)
    assert service.torchserve.steps == ["workers 1.0 3", "workers 1.0 2", "workers 1.0 1"]
    assert outcome.sentences[0] == "small/1.0 has 1 worker instead of 4"
    assert service.state.versions["1.0"].workers == 1


def test_workers_that_do_not_come_up_are_given_up_and_the_old_ones_kept(service: Service) -> None:
    service.torchserve.never_ready.add("1.0")
    with pytest.raises(CommandRefused, match="keeps its 2 workers"):
        service.lifecycle.scale(3, None)
    assert service.torchserve.workers["1.0"] == ["READY", "READY"]
    assert service.state.versions["1.0"].workers is None


def test_scaling_past_the_cores_is_said(service: Service) -> None:
    assert not any("share" in each for each in service.lifecycle.scale(4, None).sentences)
    sentences = service.lifecycle.scale(5, None).sentences
    assert "5 workers of 1 thread share 4 cores" in sentences[-1]


def test_no_version_is_left_without_workers(service: Service) -> None:
    with pytest.raises(CommandRefused, match="retire"):
        service.lifecycle.scale(0, None)


def test_the_overview_tells_every_versions_part(service: Service) -> None:
    service.registered("2.0", "3.0")
    service.lifecycle.promote("2.0")
    service.lifecycle.canary("3.0", 5)
    state = service.state
    state.versions["4.0"] = state.versions["3.0"].model_copy(update={"failed": "broken weights"})
    service.registry.save(state)
    versions = service.lifecycle.overview().facts["versions"]
    assert [(each["version"], each["role"], each["failed"]) for each in versions] == [
        ("2.0", "default", None),
        ("1.0", "previous", None),
        ("3.0", "canary 5 %", None),
        ("4.0", "", "broken weights"),
    ]


def test_a_version_that_failed_at_the_start_says_so_when_it_is_wanted(service: Service) -> None:
    state = service.state
    state.versions["2.0"] = state.versions["1.0"].model_copy(update={"failed": "broken weights"})
    service.registry.save(state)
    with pytest.raises(CommandRefused, match="broken weights"):
        service.lifecycle.promote("2.0")


def test_one_version_is_shown_with_its_labels_and_workers(service: Service) -> None:
    facts = service.lifecycle.show(None).facts
    assert (facts["version"], facts["labels"]) == ("1.0", ["us", "england"])
    assert len(facts["processes"]) == 2


@pytest.mark.parametrize(
    "step",
    [
        lambda lifecycle, archive: lifecycle.register(archive),
        lambda lifecycle, _: lifecycle.scale(3, "1.0"),
    ],
)
def test_waiting_is_told_while_it_goes_on(
    service: Service, step: Callable[[Lifecycle, Path], object]
) -> None:
    step(service.lifecycle, service.archive("2.0"))
    assert service.progress[-1][1] == service.progress[-1][2]
