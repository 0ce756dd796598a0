import json
from collections.abc import Callable

import pytest

from aurea.versions.state import Canary, State, StoredArchive, VersionRecord, parse


def test_a_rollback_ends_the_canary_and_remembers_what_was_left() -> None:
    state = State(default="2.0", previous="1.0", canary=Canary(version="3.0", percent=5))
    state.roll_back()
    assert (state.default, state.previous, state.left, state.canary) == ("1.0", "", "2.0", None)


def test_promoting_the_default_again_keeps_the_previous_one() -> None:
    state = State(default="2.0", previous="1.0")
    state.make_default("2.0")
    assert state.previous == "1.0"


@pytest.mark.parametrize(("previous", "kept"), [("1.0", ""), ("0.9", "0.9")])
def test_a_version_that_answers_in_place_of_the_default_ends_its_canary(
    previous: str, kept: str
) -> None:
    state = State(default="2.0", previous=previous, canary=Canary(version="1.0", percent=5))
    state.fall_back("1.0")
    assert (state.default, state.previous, state.left) == ("1.0", kept, "2.0")
    assert state.canary is None


@pytest.mark.parametrize(("candidate", "left"), [("2.0", None), ("3.0", "3.0")])
def test_promoting_ends_the_canary_of_that_version_alone(candidate: str, left: str | None) -> None:
    state = State(default="1.0", canary=Canary(version=candidate, percent=5))
    state.make_default("2.0")
    assert (state.canary and state.canary.version) == left


def test_a_retired_version_is_no_longer_the_previous_one_nor_the_canary() -> None:
    state = State(default="2.0", previous="1.0", canary=Canary(version="1.0", percent=5))
    state.versions["1.0"] = VersionRecord(archive="small-1.0.mar", sha256="")
    state.forget("1.0")
    assert (state.previous, state.canary, state.versions) == ("", None, {})


def test_versions_are_tried_in_the_order_default_previous_others() -> None:
    versions = {each: VersionRecord(archive="", sha256="") for each in ("1.0", "2.0", "3.0")}
    state = State(default="3.0", previous="2.0", versions=versions)
    assert state.in_order() == ["3.0", "2.0", "1.0"]


def record(archive: str, **rest: object) -> VersionRecord:
    return VersionRecord.model_validate({"archive": archive, "sha256": archive[::-1], **rest})


def test_versions_are_ordered_by_their_numbers() -> None:
    versions = {each: record("") for each in ("10.0", "9.0", "2.0-rc", "2.0", "10.0.1")}
    state = State(default="9.0", versions=versions)
    assert state.in_order()[:2] == ["9.0", "2.0"]
    assert state.in_order()[-2:] == ["10.0", "10.0.1"]
    in_file = list(json.loads(state.to_json())["versions"])
    assert in_file.index("2.0") < in_file.index("9.0") < in_file.index("10.0")


def test_an_archive_that_another_replaces_may_be_deleted_and_the_other_not() -> None:
    state = State(versions={"1.0": record("a.mar")}, leftovers=["b.mar", "c.mar"])
    state.register("1.0", record("b.mar"))
    assert (state.wanted(), set(state.leftovers)) == ({"b.mar"}, {"a.mar", "c.mar"})


def test_a_retired_versions_archives_may_be_deleted() -> None:
    former = StoredArchive(archive="a.mar", sha256="")
    state = State(versions={"1.0": record("a~1.mar", former=former)})
    state.forget("1.0")
    assert (state.wanted(), set(state.leftovers)) == (set(), {"a.mar", "a~1.mar"})


def test_an_archive_is_kept_until_the_one_packaged_after_it_is_loaded() -> None:
    former = StoredArchive(archive="a.mar", sha256="ram.a")
    versions = {"1.0": record("a~1.mar", former=former, workers=3, failed="once")}
    state = State(versions=versions)
    assert state.wanted() == {"a.mar", "a~1.mar"}
    state.loaded("1.0")
    assert state.versions["1.0"] == record("a~1.mar", workers=3)
    assert state.leftovers == ["a.mar"]


def test_an_archive_comes_back_when_the_one_packaged_after_it_is_not_loaded() -> None:
    former = StoredArchive(archive="a.mar", sha256="ram.a")
    state = State(versions={"1.0": record("a~1.mar", former=former, workers=3)})
    state.not_loaded("1.0", "broken weights")
    assert state.versions["1.0"] == record("a.mar", workers=3, failed="broken weights")
    assert state.leftovers == ["a~1.mar"]


def test_a_version_with_one_archive_keeps_it_whether_it_is_loaded_or_not() -> None:
    state = State(versions={"1.0": record("a.mar")})
    state.not_loaded("1.0", "broken weights")
    assert state.versions["1.0"] == record("a.mar", failed="broken weights")
    state.loaded("1.0")
    assert state.versions["1.0"] == record("a.mar")
    assert state.leftovers == []


SOUND = State(
    default="2.0",
    previous="1.0",
    canary=Canary(version="1.0", percent=5),
    versions={"1.0": record("a.mar"), "2.0": record("b.mar", workers=2)},
    retired=["0.9"],
    leftovers=["c.mar"],
)


def test_what_is_written_is_read_again() -> None:
    assert parse(SOUND.to_json().encode()) == SOUND


def test_what_an_earlier_release_wrote_is_read() -> None:
    document = json.loads(SOUND.to_json())
    del document["leftovers"]
    for each in document["versions"].values():
        del each["former"]
    assert parse(json.dumps(document).encode()) == SOUND.model_copy(update={"leftovers": []})


def changed(old: str, new: str) -> Callable[[str], bytes]:
    return lambda text: text.replace(old, new, 1).encode()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda _: b"", "line 1, column 1"),
        (lambda text: text[: len(text) // 2].encode(), r"line 1\d, column"),
        (lambda _: b"[]", "not an object"),
        (lambda _: b"null", "not an object"),
        (lambda _: bytes(64), "line 1, column 1"),
        (lambda text: text.encode("utf-16"), "line 1 is not UTF-8"),
        (lambda text: text.encode("utf-8-sig"), "line 1, column 1: Unexpected UTF-8 BOM"),
        (lambda text: text.encode().replace(b"a.mar", b"\xe4.mar"), "line 12 is not UTF-8"),
        (changed('"default"', '"defualt"'), r"defualt \(line 2\): there is no such key"),
        (changed('"versions"', '"Versions"'), r"Versions \(line 10\): there is no such key"),
        (changed('"workers"', '"worker"'), r"versions\.1\.0\.worker \(line 14\): there is no"),
        (changed('"sha256"', '"sha"'), r"versions\.1\.0\.sha256 \(line 11\): it is missing"),
        (changed('"percent"', '"share"'), r"canary\.percent \(line 5\): it is missing"),
        (changed('"2.0"', "2.0"), r"default \(line 2\): Input should be a valid string"),
        (changed("5.0", '"a tenth"'), r"canary\.percent \(line 7\)"),
        (changed("5.0", "500"), r"canary\.percent \(line 7\)"),
        (changed('"workers": null', '"workers": "two"'), r"versions\.1\.0\.workers \(line 14\)"),
        (changed('"0.9"', "0.9"), r"retired\.0 \(line \d+\)"),
        (changed('"c.mar"', '"../c.mar"'), r"leftovers \(line \d+\)"),
        (changed('"a.mar"', '"/a.mar"'), r"versions\.1\.0\.archive \(line 12\): not a file name"),
        (changed('"a.mar"', '""'), r"versions\.1\.0\.archive \(line 12\): not a file name"),
        (
            changed('"former": null', '"former": {"archive": "..", "sha256": ""}'),
            r"versions\.1\.0\.former\.archive \(line 16\): not a file name",
        ),
        (changed('"1.0": {', '"1 0": {'), r"versions\.1 0 \(line 11\): '1 0' is no version"),
        (changed('"2.0",', '"2.1",'), r"default \(line 2\): 2\.1 is none of the versions"),
        (changed('"1.0",', '"1",'), r"previous \(line 3\): 1 is none of the versions"),
        (
            changed('"version": "1.0"', '"version": "3.0"'),
            r"canary\.version \(line 6\): 3\.0 is none of the versions",
        ),
        (changed('"2.0": {', '"1.0": {'), r"1\.0 \(line 18\): this key stands there twice"),
        (changed('"left"', '"default"'), r"default \(line 4\): this key stands there twice"),
    ],
)
def test_a_damaged_state_is_no_state_and_its_field_and_line_are_told(
    damage: Callable[[str], bytes], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        parse(damage(SOUND.to_json()))


def test_a_line_that_cannot_be_told_is_left_out() -> None:
    tabs = SOUND.to_json().replace("\n ", "\n\t").replace('"default"', '"Default"')
    with pytest.raises(ValueError, match=r"Default: there is no such key"):
        parse(tabs.encode())
