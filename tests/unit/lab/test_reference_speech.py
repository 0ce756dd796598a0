"""Speaking the reference speech anew."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from accent.decode import decode

from aurea.archive.reference import PARTS, SENTENCES_FILE, reference_files
from aurea.lab import reference_speech
from aurea.lab.reference_speech import main
from aurea.lab.speech.utterances import Utterance
from tests.clips import voice


class StandInSpeaker:
    """Speaks any utterance with a voice of the tests, and remembers who was asked for what."""

    utterances: list[Utterance]

    def __init__(self) -> None:
        StandInSpeaker.utterances = []

    def speak(self, utterance: Utterance) -> tuple[npt.NDArray[np.float32], int]:
        self.utterances.append(utterance)
        return voice(2.0, seed=len(self.utterances), sample_rate_hz=24_000).astype(
            np.float32
        ), 24_000


def test_making_it_again_gives_the_parts_sentences_and_voices_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference_speech, "Speaker", StandInSpeaker)
    texts: dict[str, Any] = {"calibration": ["One.", "Two."], "verification": ["Three."]}
    for part, lines in texts.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / SENTENCES_FILE).write_text("\n".join(lines))

    main(["--out", str(tmp_path)])
    assert capsys.readouterr().out == "calibration: 4 clips, verification: 2 clips\n"

    for part in PARTS:
        names = [path.name for path in reference_files(part, tmp_path)]
        assert len(names) == 2 * len(texts[part])
        assert "00_us.ogg" in names
    voices: dict[bool, set[str]] = {True: set(), False: set()}
    for each in StandInSpeaker.utterances:
        voices[each.sentence == "Three."] |= {each.first, each.second}
    assert voices[True]
    assert not voices[True] & voices[False]
    audio = decode((tmp_path / "verification" / "00_us.ogg").read_bytes())
    assert audio.facts.duration_s == pytest.approx(2.0, abs=0.05)
