"""`make speech`: every sentence that ships, or a sentence on what is missing."""

from pathlib import Path

import pytest

from aurea.lab.speech import command, synthesis
from aurea.lab.speech.command import SENTENCES
from aurea.models.packages import PackageUnavailable
from tests.unit.lab.speech.conftest import StandInSpeaker


def test_the_sentences_that_ship_are_each_said_once() -> None:
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 100
    assert len({line.lower() for line in lines}) == len(lines)
    assert all(line == line.strip() and line[-1] in ".?!" for line in lines)


def test_the_command_line_speaks_every_sentence_that_ships(
    speaker: type[StandInSpeaker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("One.\n\nTwo.\n")
    monkeypatch.setattr(command, "SENTENCES", short)
    command.main(["--out", str(tmp_path / "out"), "--rounds", "2", "--jobs", "1"])
    assert len(speaker.spoken) == 8
    assert "8 clips" in capsys.readouterr().out


def test_a_model_that_cannot_be_had_ends_the_command_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_: object) -> None:
        raise PackageUnavailable("part.bin could not be fetched. Check that the index answers.")

    monkeypatch.setattr(synthesis, "fetch", unavailable)
    with pytest.raises(SystemExit, match="Check that the index answers"):
        command.main(["--out", str(tmp_path)])
