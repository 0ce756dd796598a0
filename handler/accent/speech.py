"""Waveform -> seconds of speech in it, and the refusal of clips that hold too little."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from accent.errors import NoSpeech
from accent.speech_network import CONTEXT_SAMPLES, FRAME_SAMPLES, SpeechNetwork, State
from accent.trimming import Span
from accent.waveform import SAMPLE_RATE_HZ, Waveform, loudest_block_dbfs

FRAME_S: Final = FRAME_SAMPLES / SAMPLE_RATE_HZ

# A few sizes of passes, the last one padded: torch prepares kernels for each size it meets, which
# would take longer than the pass and keep half a megabyte a size. Half a second is enough where
# listening may end early; four times that takes 0.9 ms a second instead of 1.4.
_FRAMES_PER_PASS: Final = 16
_FRAMES_PER_LONG_PASS: Final = 64
# The network hears less in quiet recordings: at -40 dB it finds nothing at all. At this
# level, that of a voice close to a microphone, telephone speech is found best.
_LEVEL_DBFS: Final = -14.0
# A note of a trumpet or a piano passes for speech for a frame or five; syllables in a row
# last longer.
_MIN_RUN_FRAMES: Final = 6
_DOUBT: Final = 0.15


@dataclass(frozen=True)
class SpeechLimits:
    """What counts as speech, and how much of it a clip must hold."""

    speech_probability: float = 0.5
    """Probability from which on a frame of 32 ms is speech."""

    min_speech_s: float = 0.4
    """Speech that a clip must hold, in seconds; half of a shorter clip; 0 refuses none."""

    min_speech_share: float = 0.005
    """Share of a clip that must be speech, 0 to 1: one word in five minutes is no recording."""

    hear_whole_clip: bool = False
    """Whether to listen on where enough was found; where clips are trimmed that is done anyway."""


@dataclass(frozen=True)
class SpeechFacts:
    """Seconds of speech that were found in the first `heard_s` seconds of a clip, and where.

    `spans` are in samples at 16 kHz, in order and apart.
    """

    speech_s: float
    heard_s: float
    spans: tuple[Span, ...]


class SpeechGate:
    """Finds speech, whatever the level and length of the clip. On the CPU, in torch's threads."""

    def __init__(self, limits: SpeechLimits | None = None) -> None:
        self._limits = limits or SpeechLimits()
        self._network = SpeechNetwork()

    def check(self, waveform: Waveform, *, whole: bool = False) -> SpeechFacts:
        """Listen to (samples,) at 16 kHz until there is speech enough, or to all if `whole`.

        Raises `NoSpeech` if the clip ends before that.
        """
        duration_s = waveform.size / SAMPLE_RATE_HZ
        needed_s = self._needed_s(duration_s)
        enough_s = np.inf if whole or self._limits.hear_whole_clip else needed_s
        facts = self._listen(waveform, enough_s)
        if facts.speech_s < needed_s:
            found = (
                f"Only {facts.speech_s:g} s of speech were" if facts.speech_s else "No speech was"
            )
            raise NoSpeech(
                f"{found} found in the {duration_s:.3g} s of the clip; at least {needed_s:.2g} s "
                "are needed. "
                "Speak close to the microphone, away from noise and music, and record again."
            )
        return facts

    def _needed_s(self, duration_s: float) -> float:
        if not self._limits.min_speech_s:
            return 0.0
        of_any_clip_s = min(self._limits.min_speech_s, duration_s / 2)
        return max(of_any_clip_s, self._limits.min_speech_share * duration_s)

    def measure(self, waveform: Waveform) -> SpeechFacts:
        """Listen to all of (samples,) at 16 kHz."""
        return self._listen(waveform, np.inf)

    def probabilities(self, waveform: Waveform) -> npt.NDArray[np.float32]:
        """(ceil(samples / 512),) of how likely each frame is speech, the last one padded."""
        return np.concatenate(list(self._passes(waveform, whole=True)))

    def _listen(self, waveform: Waveform, enough_s: float) -> SpeechFacts:
        duration_s = waveform.size / SAMPLE_RATE_HZ
        counter = _SpeechCounter(self._limits.speech_probability)
        for probabilities in self._passes(waveform, whole=not np.isfinite(enough_s)):
            counter.push(probabilities)
            # Frames count in rows of 0.19 s or more: what was found is never taken back.
            if counter.frames * FRAME_S >= enough_s:
                break
        # The last frame may reach beyond the clip's end.
        return SpeechFacts(
            speech_s=round(min(counter.frames * FRAME_S, duration_s), 3),
            heard_s=round(min(counter.heard_frames * FRAME_S, duration_s), 3),
            spans=tuple(
                (start * FRAME_SAMPLES, min(end * FRAME_SAMPLES, waveform.size))
                for start, end in counter.rows
            ),
        )

    def _passes(self, waveform: Waveform, whole: bool) -> Iterator[npt.NDArray[np.float32]]:
        """Probabilities of frames in order, so many at a time."""
        level_dbfs = loudest_block_dbfs(waveform)
        if not np.isfinite(level_dbfs):
            yield np.zeros(-(-waveform.size // FRAME_SAMPLES), np.float32)
            return
        gain = np.float32(10 ** ((_LEVEL_DBFS - level_dbfs) / 20))
        mean = waveform.mean()
        before: Waveform = np.zeros(CONTEXT_SAMPLES, np.float32)
        state: State | None = None
        start = 0
        while start < waveform.size:
            frames_left = -(-(waveform.size - start) // FRAME_SAMPLES)
            size = (_pass_frames(frames_left) if whole else _FRAMES_PER_PASS) * FRAME_SAMPLES
            block = waveform[start : start + size]
            signal = np.zeros(CONTEXT_SAMPLES + size, np.float32)
            signal[:CONTEXT_SAMPLES] = before
            signal[CONTEXT_SAMPLES : CONTEXT_SAMPLES + block.size] = (block - mean) * gain
            before = signal[-CONTEXT_SAMPLES:]
            with torch.inference_mode():
                frames = torch.from_numpy(signal).unfold(
                    0, CONTEXT_SAMPLES + FRAME_SAMPLES, FRAME_SAMPLES
                )
                probabilities, state = self._network(frames, state)
            yield probabilities.numpy()[: -(-block.size // FRAME_SAMPLES)]
            start += size


def _pass_frames(frames_left: int) -> int:
    """A size that wastes little: the longest but for what fits into half of it, and so on."""
    size = _FRAMES_PER_LONG_PASS
    while size > _FRAMES_PER_PASS and frames_left <= size // 2:
        size //= 2
    return size


class _SpeechCounter:
    """Finds rows of frames with speech that last 0.19 s or more; a row may span two pushes.

    A row begins with a frame that is likely enough and ends with one that falls well below:
    in a word there are moments of doubt. The same two thresholds as in silero-vad's own
    `get_speech_timestamps`.
    """

    def __init__(self, speech_probability: float) -> None:
        self.frames = 0
        self.heard_frames = 0
        self.rows: list[tuple[int, int]] = []
        """First frame, and the one after the last, of each row."""
        self._begins = speech_probability
        self._goes_on = speech_probability - _DOUBT
        self._row = 0

    def push(self, probabilities: npt.NDArray[np.float32]) -> None:
        """Add the next frames' probabilities."""
        for probability in probabilities.tolist():
            self.heard_frames += 1
            is_speech = probability >= (self._goes_on if self._row else self._begins)
            self._row = self._row + 1 if is_speech else 0
            if self._row == _MIN_RUN_FRAMES:
                self.frames += _MIN_RUN_FRAMES
                self.rows.append((self.heard_frames - _MIN_RUN_FRAMES, self.heard_frames))
            elif self._row > _MIN_RUN_FRAMES:
                self.frames += 1
                self.rows[-1] = (self.rows[-1][0], self.heard_frames)
