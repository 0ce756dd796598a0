"""A speaker that needs no model."""

import numpy as np
import numpy.typing as npt
import pytest

from aurea.lab.speech import synthesis
from aurea.lab.speech.utterances import Utterance
from tests.clips import voice
from tests.stand_ins import pool_of_threads


class StandInSpeaker:
    """Speaks in the tests' own voices; dies at the utterance that a test names."""

    spoken: tuple[str, ...] = ()
    dies_at = ""

    def speak(self, utterance: Utterance) -> tuple[npt.NDArray[np.float32], int]:
        if utterance.file_name == self.dies_at:
            raise KeyboardInterrupt
        type(self).spoken += (utterance.file_name,)
        return voice(0.7, seed=len(utterance.voice) % 8).astype(np.float32), 24_000


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> type[StandInSpeaker]:
    class Fresh(StandInSpeaker):
        pass

    monkeypatch.setattr(synthesis, "Speaker", Fresh)
    monkeypatch.setattr(synthesis, "fetch", lambda _: [])
    monkeypatch.setattr(synthesis, "process_pool", pool_of_threads)
    return Fresh
