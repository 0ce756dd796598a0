"""What `versions.yaml` may say, and what is told of one that says something else."""

from pathlib import Path

import pytest

from aurea.files import sha256_of
from aurea.versions.declared import (
    DeclarationFaulty,
    checked_copy,
    differences,
    exported,
    parse_declaration,
    read_declaration,
)
from aurea.versions.outcome import CommandRefused
from aurea.versions.state import Canary, State, VersionRecord

DIGEST = "0" * 64
SOUND = f"""
model: small
default: "1.0"
canary: {{version: "2.0", percent: 10}}
versions:
  "1.0": {{archive: one.mar, sha256: "{DIGEST}", workers: 2}}
  "2.0": {{archive: two.mar, sha256: "{DIGEST}"}}
"""


def faults_of(text: str) -> str:
    with pytest.raises(DeclarationFaulty) as refused:
        parse_declaration(text.encode(), Path("versions.yaml"))
    return str(refused.value)


def test_what_is_exported_is_read_again_as_it_was() -> None:
    declaration = parse_declaration(SOUND.encode(), Path())
    assert parse_declaration(declaration.text().encode(), Path()) == declaration
    assert declaration.versions["1.0"].workers == 2


@pytest.mark.parametrize(
    ("instead", "of", "told"),
    [
        ('default: "3.0"', 'default: "1.0"', "default: 3.0 is none of the versions"),
        ("default: 1.0", 'default: "1.0"', "default: not a text; put it in quotes"),
        ("", "model: small", "model: it is missing"),
        ("model: a/b", "model: small", "is no name for a model"),
        ('version: "9"', 'version: "2.0"', "canary: 9 is none of the versions"),
        ('version: "1.0"', 'version: "2.0"', "canary: 1.0 is the default"),
        ("percent: 0", "percent: 10", "canary.percent: Input should be greater than 0"),
        ("percent: .nan", "percent: 10", "canary.percent: Input should be a finite number"),
        ("worker: 2", "workers: 2", "versions.1.0.worker: there is no such key"),
        ("workers: 0", "workers: 2", "versions.1.0.workers: Input should be greater"),
        ("workers: '2'", "workers: 2", "versions.1.0.workers"),
        ('sha256: "abc"', f'sha256: "{DIGEST}"', "versions.1.0.sha256: not 64 hex digits"),
        ('  "1.0": {arch', '  "2.0": {arch', "1.0 stands there twice"),
        ("  1.0: {archive: two", '  "2.0": {archive: two', "versions.1.0"),
        ("model: [small", "model: small", "is no YAML"),
    ],
)
def test_a_fault_is_told_with_its_field(instead: str, of: str, told: str) -> None:
    assert of in SOUND
    assert told in faults_of(SOUND.replace(of, instead, 1))


@pytest.mark.parametrize("text", ["", "[]", "small", "\xff\x00", "a: &a [*a]"])
def test_what_is_no_declaration_at_all_is_refused(text: str) -> None:
    assert "versions.yaml" in faults_of(text)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeclarationFaulty, match="No such file"):
        read_declaration(tmp_path / "versions.yaml")


def test_a_copy_is_checked_and_goes_where_it_is_another(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.mar", tmp_path / "copy.mar"
    source.write_bytes(b"archive")
    checked_copy(source, copy, sha256_of(source))
    assert copy.read_bytes() == b"archive"
    with pytest.raises(DeclarationFaulty, match="its sha256 is"):
        checked_copy(source, copy, DIGEST)
    assert not copy.exists()
    with pytest.raises(DeclarationFaulty, match="No such file"):
        checked_copy(tmp_path / "none.mar", copy, DIGEST)


def state() -> State:
    return State(
        default="1.0",
        canary=Canary(version="2.0", percent=10),
        versions={
            "1.0": VersionRecord(archive="small-1.0.mar", sha256=DIGEST, workers=2),
            "2.0": VersionRecord(archive="small-2.0.mar", sha256=DIGEST),
        },
    )


def test_a_service_that_serves_what_is_declared_differs_in_nothing() -> None:
    assert differences(parse_declaration(SOUND.encode(), Path()), state()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"default": "2.0", "canary": None}, ["2.0 answers, not 1.0", "the canary's share"]),
        ({"canary": Canary(version="2.0", percent=11)}, ["the canary's share"]),
        (
            {"versions": {"1.0": state().versions["1.0"]}, "canary": None},
            ["2.0 is not registered", "the canary's share"],
        ),
        (
            {"versions": state().versions | {"3.0": state().versions["2.0"]}},
            ["3.0 is not declared"],
        ),
        (
            {"versions": state().versions | {"1.0": state().versions["2.0"]}},
            ["1.0 has not its 2 workers"],
        ),
        (
            {
                "versions": state().versions
                | {"2.0": VersionRecord(archive="x", sha256="", failed="broken")}
            },
            ["2.0 is not served: broken"],
        ),
    ],
)
def test_each_difference_is_told(change: dict[str, object], told: list[str]) -> None:
    found = differences(
        parse_declaration(SOUND.encode(), Path()), state().model_copy(update=change)
    )
    assert len(found) == len(told)
    assert all(map(str.startswith, found, told))


def test_an_export_leaves_out_what_could_not_be_loaded_unless_it_is_the_default(
    tmp_path: Path,
) -> None:
    served = state()
    served.canary = None
    served.versions["2.0"].failed = "broken"
    declaration = exported(served, "small", tmp_path)
    assert list(declaration.versions) == ["1.0"]
    assert declaration.versions["1.0"].archive == str(tmp_path / "small-1.0.mar")
    served.versions["1.0"].failed = "broken"
    with pytest.raises(CommandRefused, match=r"1\.0 is not served"):
        exported(served, "small", tmp_path)
