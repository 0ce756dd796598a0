"""Registering a version, and every way in which that can fail or be broken off."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurea.archive.errors import ArchiveRefused
from aurea.torchserve.errors import ManagementError
from aurea.versions.outcome import CommandRefused
from aurea.versions.registry import Registry, RegistryError
from tests.unit.archive.archives import Record, members_of, read_in_sequence, records_of, zip_of
from tests.unit.versions.service import Played, Service, assert_only_the_first_is_left


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


def test_what_torchserve_gets_is_packed_here_from_the_members_that_were_vetted(
    service: Service, tmp_path: Path
) -> None:
    archive = service.archive("2.0")
    files = members_of(archive)
    given = tmp_path / "given.mar"
    given.write_bytes(zip_of(records_of(files)))
    service.lifecycle.register(given)
    stored = service.registry.store / service.torchserve.archives["2.0"]
    assert members_of(stored) == read_in_sequence(stored.read_bytes()) == files
    assert stored.read_bytes() == archive.read_bytes() != given.read_bytes()
    assert "already" in service.lifecycle.register(archive).sentences[0]
    assert "already" in service.lifecycle.register(given).sentences[0]


def test_an_archive_with_a_hidden_member_never_reaches_the_store(service: Service) -> None:
    files = members_of(service.archive("2.0"))
    given = service.folder / "given.mar"
    hidden = Record(b"accent_handler.py", b"print('hidden')", hidden=True)
    given.write_bytes(zip_of([*records_of(files), hidden]))
    with pytest.raises(ArchiveRefused, match=r"hides 'accent_handler\.py'"):
        service.lifecycle.register(given, trust=True)
    assert_only_the_first_is_left(service)
    assert service.torchserve.steps == []
    assert not (service.registry.store.parent / "scratch").exists()


def test_an_archive_that_an_earlier_release_registered_as_given_is_known_again(
    service: Service, tmp_path: Path
) -> None:
    given = tmp_path / "given.mar"
    given.write_bytes(zip_of(records_of(members_of(service.archive("2.0")))))
    service.registered("2.0")
    state = service.state
    state.versions["2.0"] = service.registry.place(given, "2.0")
    service.torchserve.archives["2.0"] = state.versions["2.0"].archive
    service.registry.save(state)
    assert "already" in service.lifecycle.register(given).sentences[0]


def test_a_version_that_scores_otherwise_than_measured_is_taken_away_again(
    service: Service,
) -> None:
    with pytest.raises(CommandRefused, match=r"one\.ogg scores 70 and not 71"):
        service.lifecycle.register(service.archive("2.0", measured=71.0))
    assert_only_the_first_is_left(service)


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
    assert_only_the_first_is_left(service)


def test_a_version_whose_workers_are_never_ready_is_taken_away_again(service: Service) -> None:
    service.torchserve.never_ready.add("2.0")
    (service.folder / "model.log").write_text("W-1-small_2.0-stdout - ValueError: broken weights")
    with pytest.raises(CommandRefused, match=r"still does.*ValueError: broken weights"):
        service.lifecycle.register(service.archive("2.0"))
    assert_only_the_first_is_left(service)


def test_a_registration_that_is_broken_off_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(service.torchserve, "predict", interrupt)
    with pytest.raises(KeyboardInterrupt):
        service.lifecycle.register(service.archive("2.0"))
    assert_only_the_first_is_left(service)


def test_what_a_killed_registration_left_behind_is_replaced(service: Service) -> None:
    service.torchserve.register("small-2.0.mar")
    service.torchserve.steps.clear()
    service.lifecycle.register(service.archive("2.0"))
    assert service.torchserve.steps == ["unregister 2.0", "register 2.0", "workers 2.0 2"]


def failed_at_the_start(service: Service) -> None:
    """Let 2.0 be known with a sound archive, and not served."""
    service.registered("2.0")
    service.torchserve.unregister("2.0")
    state = service.state
    state.not_loaded("2.0", "out of memory")
    service.registry.save(state)
    service.torchserve.steps.clear()


def not_served(service: Service) -> None:
    """Let 2.0 be known with a sound archive, and gone from TorchServe."""
    service.registered("2.0")
    service.torchserve.unregister("2.0")
    service.torchserve.steps.clear()


def assert_the_sound_archive_is_there(service: Service) -> None:
    state = service.state
    assert (state.default, set(state.versions)) == ("1.0", {"1.0", "2.0"})
    for record in state.versions.values():
        service.registry.check(record)


KNOWN = pytest.mark.parametrize("known", [failed_at_the_start, not_served])

Break = Callable[[Service, pytest.MonkeyPatch, Callable[..., Any]], None]


def at_step(name: str) -> Break:
    def patch(service: Service, monkeypatch: pytest.MonkeyPatch, act: Callable[..., Any]) -> None:
        monkeypatch.setattr(service.torchserve, name, act)

    return patch


def at_registry(name: str) -> Break:
    def patch(_: Service, monkeypatch: pytest.MonkeyPatch, act: Callable[..., Any]) -> None:
        monkeypatch.setattr(Registry, name, act)

    return patch


def after_registry(name: str) -> Break:
    def patch(_: Service, monkeypatch: pytest.MonkeyPatch, act: Callable[..., Any]) -> None:
        step = getattr(Registry, name)

        def step_and_act(*arguments: Any) -> None:
            step(*arguments)
            act()

        monkeypatch.setattr(Registry, name, step_and_act)

    return patch


@pytest.mark.parametrize(
    ("step", "error", "known"),
    [
        ("register", ManagementError("no memory"), failed_at_the_start),
        ("register", KeyboardInterrupt(), not_served),
        ("ask_workers", ManagementError("no memory"), not_served),
        ("ask_workers", KeyboardInterrupt(), failed_at_the_start),
        ("version", ManagementError("no memory"), failed_at_the_start),
        ("version", KeyboardInterrupt(), not_served),
        ("predict", ManagementError("no memory"), not_served),
        ("predict", KeyboardInterrupt(), failed_at_the_start),
    ],
)
def test_a_known_version_keeps_its_archive_whatever_step_of_another_fails(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: BaseException,
    known: Callable[[Service], None],
) -> None:
    known(service)
    before = service.state, service.stored

    described = service.torchserve.version

    def fail(*arguments: Any) -> Any:
        # The default is described all the time.
        if arguments == ("1.0",):
            return described("1.0")
        raise error

    another = service.archive("2.0", measured=70.2)
    with monkeypatch.context() as broken:
        broken.setattr(service.torchserve, step, fail)
        with pytest.raises((CommandRefused, KeyboardInterrupt)):
            service.lifecycle.register(another)
    assert (service.state, service.stored) == before
    assert_the_sound_archive_is_there(service)
    service.lifecycle.register(another)
    assert service.state.versions["2.0"].failed == ""


@KNOWN
def test_a_known_version_keeps_its_archive_when_another_does_not_prove_its_scores(
    service: Service, known: Callable[[Service], None]
) -> None:
    known(service)
    before = service.state, service.stored
    with pytest.raises(CommandRefused, match="scores 70 and not 75"):
        service.lifecycle.register(service.archive("2.0", measured=75.0))
    assert (service.state, service.stored) == before
    assert_the_sound_archive_is_there(service)
    assert "2.0" not in service.torchserve.workers


def test_an_archive_that_cannot_be_copied_leaves_the_known_one_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_at_the_start(service)
    before = service.state, service.stored
    another = service.archive("2.0", measured=70.2)

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "copy2", full)
        with pytest.raises(RegistryError, match="No space left"):
            service.lifecycle.register(another)
    assert (service.state, service.stored) == before
    assert_the_sound_archive_is_there(service)


@KNOWN
def test_another_archive_of_a_known_version_takes_its_place_once_proven(
    service: Service, known: Callable[[Service], None]
) -> None:
    known(service)
    sound = service.state.versions["2.0"].archive
    service.lifecycle.register(service.archive("2.0", measured=70.2))
    record = service.state.versions["2.0"]
    assert record.archive != sound
    assert service.stored == {"small-1.0.mar", record.archive}
    assert service.torchserve.archives["2.0"] == record.archive
    assert_the_sound_archive_is_there(service)
    # And once more, so that the first file name is taken again.
    service.torchserve.unregister("2.0")
    service.lifecycle.register(service.archive("2.0", measured=70.1))
    assert service.stored == {"small-1.0.mar", sound}
    assert_the_sound_archive_is_there(service)


def in_the_middle_of_the_copy(
    _: Service, monkeypatch: pytest.MonkeyPatch, act: Callable[..., Any]
) -> None:
    def copy_half(source: Path, draft: Path) -> None:
        content = source.read_bytes()
        draft.write_bytes(content[: len(content) // 2])
        act()

    monkeypatch.setattr(shutil, "copy2", copy_half)


KILLED: dict[str, Break] = {
    "while the state is written": lambda _, patch, act: patch.setattr(os, "fsync", act),
    "before the copy": at_registry("_copy"),
    "in the middle of the copy": in_the_middle_of_the_copy,
    "after the copy": at_step("register"),
    "while workers start": at_step("ask_workers"),
    "while it is proven": at_step("predict"),
    "once it is remembered": after_registry("save"),
    "before the proxy knows": at_registry("route"),
    "before the old one goes": at_registry("delete_leftovers"),
}


@pytest.mark.parametrize("moment", KILLED)
def test_killed_at_any_moment_state_and_store_agree(
    service: Service, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    failed_at_the_start(service)
    another = service.archive("2.0", measured=70.2)
    pid = os.fork()
    if pid == 0:
        try:
            KILLED[moment](service, monkeypatch, lambda *_, **__: os._exit(9))
            service.lifecycle.register(another)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert_the_sound_archive_is_there(service)

    # The next start finds all of it, and no file more than that.
    service.registry.prepare()
    state, said = service.registry.adopt(service.archive("1.0"), "1.0", 2)
    assert said == []
    service.registry.save(state)
    service.registry.delete_leftovers(state)
    assert_the_sound_archive_is_there(service)
    assert service.stored == {record.archive for record in state.versions.values()}
    assert not (service.registry.store.parent / "scratch").exists()


def test_what_a_killed_registration_of_a_known_version_left_is_not_taken_for_it(
    service: Service,
) -> None:
    not_served(service)
    another = service.archive("2.0", measured=70.2)
    record = service.registry.propose(service.state, another, "2.0")
    service.torchserve.register(record.archive)
    service.torchserve.ask_workers("2.0", 2)
    with pytest.raises(CommandRefused, match="not proven"):
        service.lifecycle.promote("2.0")
    service.lifecycle.register(another)
    service.lifecycle.promote("2.0")
    assert service.torchserve.answering == "2.0"
    assert service.state.versions["2.0"].archive == record.archive


def test_an_archive_named_by_its_path_in_the_store_is_not_lost_with_its_registration(
    service: Service,
) -> None:
    service.torchserve.never_ready.add("2.0")
    inside = service.registry.store / "small-2.0.mar"
    shutil.copy(service.archive("2.0"), inside)
    with pytest.raises(CommandRefused):
        service.lifecycle.register(inside)
    assert inside.exists()


def test_a_damaged_archive_is_put_right_by_a_sound_one(service: Service) -> None:
    failed_at_the_start(service)
    stored: Path = service.registry.store / service.state.versions["2.0"].archive
    stored.write_bytes(b"half of it")
    service.lifecycle.register(service.archive("2.0"))
    assert service.stored == {"small-1.0.mar", stored.name}
    assert_the_sound_archive_is_there(service)
