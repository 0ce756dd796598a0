"""Clips -> what training reads: log-mel features of several versions, and a teacher's frames.

Computed once, by as many processes as wanted, and kept on disk: a run that goes on after
a kill, or another run over the same speech, finds them there. They are kept by the content of
the clip and the plan. Whose voices made the babble behind a version does not count: any will do.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from accent.decode import decode
from accent.errors import Refusal
from accent.limits import AudioLimits
from accent.speech import SpeechGate
from accent.trimming import TrimSettings, stretches
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from speechbrain.lobes.features import Fbank
from tqdm import tqdm

from aurea.files import whole_file
from aurea.lab.corpus import Clip
from aurea.lab.features.augment import version_of
from aurea.lab.teacher.encoders import (
    FRAME_SIZE,
    SOUND_SIZE,
    TEACHER_FILES,
    Frames,
    SoundEncoder,
    SpeechEncoder,
)
from aurea.models.packages import fetch
from aurea.paths import ROOT
from aurea.processes import process_pool

DEFAULT_CACHE: Final = ROOT / ".cache" / "features"
FRAMES_PER_S: Final = 100

FORMAT: Final = 4
"""Part of every key: to be raised whenever what is computed from the same clip changes."""

_BABBLERS: Final = 12
_PIECE_S: Final = (1.0, 3.5)


@dataclass(frozen=True)
class Plan:
    """What is computed of each clip: `versions` in all, the first of them the clip itself."""

    n_mels: int
    versions: int
    seed: int
    teacher: bool


@dataclass(frozen=True)
class PreparedClip:
    """`versions` are (frames, n_mels) float16 in dB, each spoken `speeds` times as fast.

    `frames` is what the recogniser makes of each version, (frames, 288), of every other one in
    pieces of 1 to 3.5 s, as short clips are heard. `sounds` is what speech_embedding makes of
    the clip itself, (frames, 96). Both are empty without a teacher.
    """

    clip: Clip
    versions: tuple[npt.NDArray[np.float16], ...]
    speeds: tuple[float, ...]
    frames: tuple[Frames, ...]
    sounds: Frames

    @property
    def duration_s(self) -> float:
        return len(self.versions[0]) / FRAMES_PER_S


def prepare(
    clips: Sequence[Clip], plan: Plan, *, jobs: int, title: str, cache: Path = DEFAULT_CACHE
) -> list[PreparedClip]:
    """Prepare `clips`, in order; those that the server would refuse are named and left out."""
    cache.mkdir(parents=True, exist_ok=True)
    babblers = [clip.path for clip in clips[:: max(1, len(clips) // _BABBLERS)]][:_BABBLERS]
    prepared: list[PreparedClip] = []
    if plan.teacher:
        # Once, and not by every process.
        fetch(TEACHER_FILES)
    with process_pool(jobs, _start, plan, babblers, cache) as pool:
        results = pool.map(_prepare, [clip.path for clip in clips], chunksize=4)
        bar = tqdm(results, total=len(clips), desc=title, unit="clip", disable=None)
        for clip, result in zip(clips, bar, strict=True):
            if isinstance(result, str):
                print(f"left out {clip.path}: {result}", flush=True)
                continue
            with np.load(result) as file:
                versions = tuple(file[f"version{index}"] for index in range(plan.versions))
                speeds = tuple(file["speeds"].tolist())
                frames = tuple(file[f"frames{index}"] for index in range(plan.versions))
                prepared.append(PreparedClip(clip, versions, speeds, frames, file["sounds"]))
    return prepared


class _Worker:
    """One process's own parts, made once."""

    def __init__(self, plan: Plan, babblers: Sequence[Path], cache: Path) -> None:
        torch.set_num_threads(1)
        self.plan = plan
        self.cache = cache
        self.encoder = SpeechEncoder() if plan.teacher else None
        self.sounds = SoundEncoder() if plan.teacher else None
        self.gate = SpeechGate()
        self.fbank = Fbank(n_mels=plan.n_mels, sample_rate=SAMPLE_RATE_HZ)
        self.others: list[Waveform] = []
        for path in babblers if plan.versions > 1 else ():
            try:
                self.others.append(decode(path.read_bytes()).waveform)
            except (Refusal, OSError):
                continue

    def prepare(self, path: Path) -> Path | str:
        try:
            content = path.read_bytes()
        except OSError as error:
            return str(error.strerror)
        digest = hashlib.sha256(content)
        teacher = [file.sha256 for file in TEACHER_FILES] if self.plan.teacher else []
        digest.update(f"{FORMAT} {self.plan} {teacher}".encode())
        target = self.cache / f"{digest.hexdigest()[:32]}.npz"
        if target.exists():
            return target
        try:
            decoded = decode(content, AudioLimits(max_audio_s=3600.0)).waveform
        except Refusal as refusal:
            return str(refusal)
        waveform = self._speech(decoded)
        rng = np.random.default_rng((self.plan.seed, int(digest.hexdigest()[:8], 16)))
        versions, speeds = [self._features(waveform)], [1.0]
        frames = [self._frames(waveform, None)]
        for index in range(1, self.plan.versions):
            other, speed = version_of(waveform, self.others, rng)
            versions.append(self._features(other))
            speeds.append(speed)
            frames.append(self._frames(other, rng if index % 2 else None))
        sounds = (
            np.zeros((0, SOUND_SIZE), np.float16)
            if self.sounds is None
            else self.sounds.frames(waveform)
        )
        arrays: dict[str, npt.NDArray[Any]] = {
            f"version{index}": version for index, version in enumerate(versions)
        }
        arrays |= {f"frames{index}": heard for index, heard in enumerate(frames)}
        arrays |= {"sounds": sounds, "speeds": np.array(speeds)}
        # Two files may hold the same sound, and two processes prepare it at the same time; a
        # file is there whole or not at all, since one that is there is never made again.
        with whole_file(target) as part:
            np.savez(part, allow_pickle=False, **arrays)
        return target

    def _speech(self, waveform: Waveform) -> Waveform:
        """What of (samples,) the server scores: silence around a voice is never heard there."""
        spans = self.gate.measure(waveform).spans
        kept = stretches(spans, waveform.size, TrimSettings().trim_margin_s) if spans else ()
        return np.concatenate([waveform[start:end] for start, end in kept]) if kept else waveform

    def _frames(self, waveform: Waveform, rng: np.random.Generator | None) -> Frames:
        """The encoder's frames of (samples,): of pieces whose lengths `rng` draws, or of all."""
        if self.encoder is None:
            return np.zeros((0, FRAME_SIZE), np.float16)
        if rng is None:
            return self.encoder.frames(waveform)
        return np.concatenate([self.encoder.frames(piece) for piece in _pieces(waveform, rng)])

    @torch.inference_mode()
    def _features(self, waveform: Waveform) -> npt.NDArray[np.float16]:
        features = self.fbank(torch.from_numpy(np.ascontiguousarray(waveform))[None])[0]
        return np.asarray(features.to(torch.float16).numpy())


def _pieces(waveform: Waveform, rng: np.random.Generator) -> list[Waveform]:
    """(samples,) in pieces of `_PIECE_S`; what would be left too short stays with the last one."""
    low, high = (round(seconds * SAMPLE_RATE_HZ) for seconds in _PIECE_S)
    pieces, start = [], 0
    while start < waveform.size:
        end = start + int(rng.integers(low, high))
        if waveform.size - end < low:
            end = waveform.size
        pieces.append(waveform[start:end])
        start = end
    return pieces


_worker: _Worker


def _start(plan: Plan, babblers: Sequence[Path], cache: Path) -> None:
    global _worker
    _worker = _Worker(plan, babblers, cache)


def _prepare(path: Path) -> Path | str:
    return _worker.prepare(path)
