"""A batch of uploads -> a batch of answers: what fails for one upload leaves the others alone."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from accent.decode import Audio, decode
from accent.engine import Engine, WindowScores
from accent.errors import InternalError, Refusal
from accent.limits import AudioLimits
from accent.model import DescribedModel
from accent.recording import RecordingFacts, measure
from accent.scoring import (
    answer_document,
    model_document,
    recording_document,
    timeline_document,
)
from accent.speech import SpeechFacts, SpeechGate
from accent.trimming import (
    MAX_WINDOW_S,
    TrimSettings,
    Window,
    timeline_windows,
    windows_to_score,
)
from accent.waveform import SAMPLE_RATE_HZ

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What one clip gets: an HTTP status and a JSON document."""

    status: int
    document: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What an answer should hold beside the score of the clip and of its windows."""

    recording: bool = False
    """How the clip was recorded: figures, and what is wrong with it."""

    timeline: bool = False
    """The score of short windows, one after the other."""


@dataclass
class Clip:
    """One upload on its way through the stages. Once it is refused, later stages skip it."""

    wanted: Wanted = Wanted()
    audio: Audio | None = None
    recording: RecordingFacts | None = None
    speech: SpeechFacts | None = None
    windows: list[Window] = field(default_factory=list)
    timeline: list[Window] = field(default_factory=list)
    scores: list[WindowScores] = field(default_factory=list)
    """Of the windows, then of the timeline's."""
    refusal: Refusal | None = None
    decode_s: float = 0.0
    gate_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def to_score(self) -> list[Window]:
        """All windows that an engine has to compute; none once the clip is refused."""
        return [] if self.refusal else [*self.windows, *self.timeline]


class AccentClassifier:
    """Decodes, gates, scores and answers batches; knows nothing of the server that holds it."""

    def __init__(
        self,
        model: DescribedModel,
        engine: Engine,
        *,
        name: str,
        version: str,
        limits: AudioLimits = AudioLimits(),
        gate: SpeechGate | None = None,
        trimming: TrimSettings | None = None,
        worth: Mapping[str, str] | None = None,
        decode_apart: Callable[[Sequence[bytes | bytearray]], list[Clip]] | None = None,
    ) -> None:
        """`worth` says in words, by language, how well the model judges.

        `decode_apart` takes the place of decoding in this process; see `DecodingPool`.
        """
        self._model = model
        self._engine = engine
        self._name = name
        self._version = version
        self._limits = limits
        self._gate = gate or SpeechGate()
        self._trimming = trimming or TrimSettings()
        self._worth = dict(worth or {})
        self._decode_apart = decode_apart

    def warm_up(self) -> None:
        """Do what is done only once, before the first clip waits for it; fail if scoring does."""
        noise = np.random.default_rng(0).standard_normal(int(MAX_WINDOW_S * SAMPLE_RATE_HZ))
        window = noise.astype(np.float32) * np.float32(0.1)
        self._gate.measure(window)
        windows = [window[: int(each_s * SAMPLE_RATE_HZ)] for each_s in self._model.warm_up_s]
        for score in self._engine.score(windows):
            if isinstance(score, Exception):
                raise score

    def decode(
        self, uploads: Sequence[bytes | bytearray], wanted: Sequence[Wanted] = ()
    ) -> list[Clip]:
        """Stage one: encoded bytes to windows, or a refusal where they hold no speech.

        `wanted` has what the answer of each upload should hold; by default no more than needed.
        """
        if self._decode_apart is not None:
            clips = self._decode_apart(uploads)
        else:
            clips = [
                decode_clip(upload, self._limits, self._gate, self._trimming) for upload in uploads
            ]
        for clip, want in zip(clips, wanted or [Wanted()] * len(uploads), strict=True):
            self._look_closer(clip, want)
        return clips

    def score(self, clips: Sequence[Clip]) -> None:
        """Stage two: the windows of all clips to evidence, in as few passes as possible."""
        owners = [clip for clip in clips for _ in clip.to_score]
        windows = [window.waveform for clip in clips for window in clip.to_score]
        for clip, score in zip(owners, self._engine.score(windows), strict=True):
            if isinstance(score, Exception):
                _log.error("scoring a window failed", exc_info=score)
                clip.refusal = InternalError()
            else:
                clip.scores.append(score)

    def answer(self, clips: Sequence[Clip]) -> list[Answer]:
        """Stage three: evidence to documents, refusals to theirs."""
        return [self._answer_one(clip) for clip in clips]

    def classify(
        self, uploads: Sequence[bytes | bytearray], wanted: Sequence[Wanted] = ()
    ) -> list[Answer]:
        """All three stages: one answer for each upload, in the same order."""
        clips = self.decode(uploads, wanted)
        self.score(clips)
        return self.answer(clips)

    def _look_closer(self, clip: Clip, wanted: Wanted) -> None:
        """What an answer holds beside scores, found in a clip that was decoded."""
        if clip.refusal is not None or clip.audio is None or clip.speech is None:
            return
        clip.wanted = wanted
        if wanted == Wanted():
            return
        started = time.perf_counter()
        waveform = clip.audio.waveform
        if not self._trimming.trim:
            # Listening ended where there was speech enough.
            clip.speech = self._gate.measure(waveform)
        if wanted.timeline:
            clip.timeline = timeline_windows(waveform, clip.speech.spans, self._trimming)
        if wanted.recording:
            clip.recording = measure(waveform, clip.speech.spans)
        clip.gate_s += time.perf_counter() - started

    def _answer_one(self, clip: Clip) -> Answer:
        if clip.refusal is not None or clip.audio is None or clip.speech is None:
            refusal = clip.refusal or InternalError()
            model = {"name": self._name, "version": self._version}
            return Answer(refusal.status, {**refusal.document(), "model": model})
        document = answer_document(
            [score.evidence for score in clip.scores[: len(clip.windows)]],
            clip.windows,
            clip.audio.facts,
            model=self._model,
            model_name=self._name,
            model_version=self._version,
            speech_s=clip.speech.speech_s,
            timings_s={
                "decode_s": clip.decode_s,
                "gate_s": clip.gate_s,
                "features_s": sum(score.features_s for score in clip.scores),
                "forward_s": sum(score.forward_s for score in clip.scores),
                "total_s": time.perf_counter() - clip.started,
            },
        )
        if clip.recording is not None:
            document["audio"] |= recording_document(
                clip.recording, clip.audio.facts, clip.speech.speech_s
            )
            document["model"] |= model_document(self._model) | {"worth": self._worth}
        if clip.wanted.timeline:
            evidence = [score.evidence for score in clip.scores[len(clip.windows) :]]
            document["timeline"] = timeline_document(
                evidence, clip.timeline, clip.audio.facts, self._model
            )
        return Answer(200, document)


def decode_clip(
    upload: bytes | bytearray, limits: AudioLimits, gate: SpeechGate, trimming: TrimSettings
) -> Clip:
    """Encoded bytes to windows, or a refusal where they hold no speech. Never raises."""
    clip = Clip()
    try:
        clip.audio = decode(upload, limits)
        clip.decode_s = time.perf_counter() - clip.started
        clip.speech = gate.check(clip.audio.waveform, whole=trimming.trim)
        clip.windows = windows_to_score(clip.audio.waveform, clip.speech.spans, trimming)
        clip.gate_s = time.perf_counter() - clip.started - clip.decode_s
    except Refusal as refusal:
        # A traceback refers to the samples and to this clip, a cycle that only the cycle
        # collector frees; it counts objects, not megabytes, and would run too late.
        refusal.__context__ = None
        clip.refusal = refusal.with_traceback(None)
    except Exception:
        # No failure in the decoder or the gate, MemoryError included, reaches another clip.
        _log.exception("decoding a clip failed")
        clip.refusal = InternalError()
    return clip
