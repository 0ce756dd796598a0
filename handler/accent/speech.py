"""Waveform -> seconds of speech in it, and the refusal of clips that hold too little."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from accent.errors import NoSpeech
from accent.speech_network import CONTEXT_SAMPLES, FRAME_SAMPLES, SpeechNetwork, State
from accent.waveform import SAMPLE_RATE_HZ, Waveform, loudest_block_dbfs

FRAME_S: Final = FRAME_SAMPLES / SAMPLE_RATE_HZ

# Half a second, which is enough where speech begins at once, as it does in most clips. Every
# pass is of this size, the last one padded: torch prepares kernels for each size it meets,
# which would take longer than the pass and keep half a megabyte a size.
_FRAMES_PER_PASS: Final = 16
# The network hears less in quiet recordings: at -40 dB it finds nothing at all. At this
# level, that of a voice close to a microphone, telephone speech is found best.
_LEVEL_DBFS: Final = -14.0
# A note of a trumpet or a piano passes for speech for a frame or five; syllables in a row
# last longer.
_MIN_RUN_FRAMES: Final = 6


@dataclass(frozen=True)
class SpeechLimits:
    """What counts as speech, and how much of it a clip must hold."""

    speech_probability: float = 0.5
    """Probability from which on a frame of 32 ms is speech."""

    min_speech_s: float = 0.4
    """Speech that a clip must hold, in seconds; half of a shorter clip; 0 refuses none."""

    hear_whole_clip: bool = False
    """Whether to listen on where enough was found, so that all the speech is counted."""


@dataclass(frozen=True)
class SpeechFacts:
    """Seconds of speech that were found in the first `heard_s` seconds of a clip."""

    speech_s: float
    heard_s: float


class SpeechGate:
    """Finds speech, whatever the level and length of the clip. On the CPU, in torch's threads."""

    def __init__(self, limits: SpeechLimits | None = None) -> None:
        self._limits = limits or SpeechLimits()
        self._network = SpeechNetwork()

    def check(self, waveform: Waveform) -> SpeechFacts:
        """Listen to (samples,) at 16 kHz until there is speech enough.

        Raises `NoSpeech` if the clip ends before that.
        """
        needed_s = min(self._limits.min_speech_s, waveform.size / SAMPLE_RATE_HZ / 2)
        enough_s = np.inf if self._limits.hear_whole_clip else needed_s
        facts = self._listen(waveform, enough_s)
        if facts.speech_s < needed_s:
            found = (
                f"Only {facts.speech_s:g} s of speech were" if facts.speech_s else "No speech was"
            )
            raise NoSpeech(
                f"{found} found in the clip; at least {needed_s:.2g} s are needed. "
                "Speak close to the microphone, away from noise and music, and record again."
            )
        return facts

    def measure(self, waveform: Waveform) -> SpeechFacts:
        """Listen to all of (samples,) at 16 kHz."""
        return self._listen(waveform, np.inf)

    def probabilities(self, waveform: Waveform) -> npt.NDArray[np.float32]:
        """(ceil(samples / 512),) of how likely each frame is speech, the last one padded."""
        return np.concatenate(list(self._passes(waveform)))

    def _listen(self, waveform: Waveform, enough_s: float) -> SpeechFacts:
        duration_s = waveform.size / SAMPLE_RATE_HZ
        counter = _SpeechCounter(self._limits.speech_probability)
        for probabilities in self._passes(waveform):
            counter.push(probabilities)
            # Frames count in rows of 0.19 s or more: what was found is never taken back.
            if counter.frames * FRAME_S >= enough_s:
                break
        # The last frame may reach beyond the clip's end.
        return SpeechFacts(
            speech_s=round(min(counter.frames * FRAME_S, duration_s), 3),
            heard_s=round(min(counter.heard_frames * FRAME_S, duration_s), 3),
        )

    def _passes(self, waveform: Waveform) -> Iterator[npt.NDArray[np.float32]]:
        """Probabilities of frames in order, so many at a time."""
        level_dbfs = loudest_block_dbfs(waveform)
        if not np.isfinite(level_dbfs):
            yield np.zeros(-(-waveform.size // FRAME_SAMPLES), np.float32)
            return
        gain = np.float32(10 ** ((_LEVEL_DBFS - level_dbfs) / 20))
        mean = waveform.mean()
        signal = np.zeros(CONTEXT_SAMPLES + _FRAMES_PER_PASS * FRAME_SAMPLES, np.float32)
        state: State | None = None
        for start in range(0, waveform.size, _FRAMES_PER_PASS * FRAME_SAMPLES):
            block = waveform[start : start + _FRAMES_PER_PASS * FRAME_SAMPLES]
            signal[:CONTEXT_SAMPLES] = signal[-CONTEXT_SAMPLES:]
            signal[CONTEXT_SAMPLES:] = 0
            signal[CONTEXT_SAMPLES : CONTEXT_SAMPLES + block.size] = (block - mean) * gain
            with torch.inference_mode():
                frames = torch.from_numpy(signal).unfold(
                    0, CONTEXT_SAMPLES + FRAME_SAMPLES, FRAME_SAMPLES
                )
                probabilities, state = self._network(frames, state)
            yield probabilities.numpy()[: -(-block.size // FRAME_SAMPLES)]


class _SpeechCounter:
    """Counts the frames that are in a row of 0.19 s or more; a row may span two pushes."""

    def __init__(self, speech_probability: float) -> None:
        self.frames = 0
        self.heard_frames = 0
        self._speech_probability = speech_probability
        self._row = 0

    def push(self, probabilities: npt.NDArray[np.float32]) -> None:
        """Add the next frames' probabilities."""
        self.heard_frames += probabilities.size
        for is_speech in (probabilities >= self._speech_probability).tolist():
            self._row = self._row + 1 if is_speech else 0
            if self._row == _MIN_RUN_FRAMES:
                self.frames += _MIN_RUN_FRAMES
            elif self._row > _MIN_RUN_FRAMES:
                self.frames += 1
