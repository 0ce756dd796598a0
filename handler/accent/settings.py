"""What a worker is told: the core's section of an archive's settings, and the worker it makes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from accent.classifier import AccentClassifier
from accent.cores import CoreShare, available_cores
from accent.decoding_pool import DecodingPool
from accent.decoding_process import DecodingSettings
from accent.limits import AudioLimits
from accent.selection import EngineSettings, OpenedEngine, open_engine
from accent.speech import SpeechGate, SpeechLimits
from accent.trimming import TrimSettings
from accent.worth import read_worth

MAX_THREADS_A_CLIP: Final = 8
"""More threads for one clip were not measured: its products are soon too small to be shared."""

_SLOWEST_SCORING: Final = 0.5
"""Seconds of the clock that a second of audio may take."""

_Part = TypeVar("_Part", AudioLimits, EngineSettings, SpeechLimits, TrimSettings)


@dataclass(frozen=True)
class WorkerSettings:
    """All that the core can be told; by default what the shipped settings say."""

    audio: AudioLimits = field(default_factory=AudioLimits)
    speech: SpeechLimits = field(default_factory=SpeechLimits)
    trimming: TrimSettings = field(default_factory=TrimSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)

    threads_per_worker: int | None = None
    """CPU threads of a worker; None: as OMP_NUM_THREADS says, else 1."""

    windows_per_pass: int | None = None
    """Most windows that share a pass, of equal length on a CPU; None: 1 on a CPU, 256 on a GPU."""

    decoders: int | None = None
    """Processes that decode for a worker; 0: it does so itself; None: 0 on a CPU, on a GPU one for
    each of its threads."""

    hang_after_s: float = 20.0
    """Longest that decoding or scoring may stand still, in seconds; a worker then ends itself."""

    def decode_limit_s(self, clips: int) -> float:
        """How long a worker that works may take to decode so many clips, in seconds."""
        return self.hang_after_s + clips * self.audio.max_decode_s

    def score_limit_s(self, audio_s: float) -> float:
        """How long one may take to score so many seconds: ten times what the largest model takes
        on one slow core, since it may share that with others."""
        return self.hang_after_s + _SLOWEST_SCORING * audio_s

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> "WorkerSettings":
        """The settings in the section `accent` of model-config.yaml; other entries are ignored.

        Raises `EngineError` for an engine or a precision that is none.
        """
        return cls(
            _part(AudioLimits, entries),
            _part(SpeechLimits, entries),
            _part(TrimSettings, entries),
            _part(EngineSettings, entries),
            entries.get("threads_per_worker"),
            entries.get("windows_per_pass"),
            entries.get("decoders"),
            float(entries.get("hang_after_s", cls.hang_after_s)),
        )

    def pool(self, *, on_gpu: bool, threads: int) -> DecodingPool | None:
        """The decoders of a worker with so many threads; None where it decodes by itself.

        Raises `RuntimeError` where they do not start.
        """
        decoders = self.decoders
        if decoders is None:
            decoders = threads if on_gpu else 0
        if not decoders:
            return None
        told = DecodingSettings(self.audio, self.speech, self.trimming)
        return DecodingPool(decoders, told, self.hang_after_s)

    def core_share(self, environment: Mapping[str, str]) -> CoreShare:
        """The threads of a worker, of its own and borrowed, in a process with `environment`.

        Whoever starts workers knows how many share the cores and says so in OMP_NUM_THREADS;
        without that, one thread a worker never oversubscribes them. Workers lend each other
        their share in the folder that AUREA_CORES_FOLDER names.
        """
        threads = int(self.threads_per_worker or environment.get("OMP_NUM_THREADS", "1"))
        folder = environment.get("AUREA_CORES_FOLDER")
        cores = min(available_cores(), MAX_THREADS_A_CLIP)
        return CoreShare(threads, cores, Path(folder) if folder else None)


@dataclass(frozen=True)
class OpenedClassifier:
    """A classifier that has scored already, and the engine that it computes with."""

    classifier: AccentClassifier
    engine: OpenedEngine
    decoders: DecodingPool | None = None


def open_classifier(
    folder: Path,
    settings: WorkerSettings,
    *,
    name: str,
    version: str,
    cores: CoreShare,
    device: str = "cpu",
) -> OpenedClassifier:
    """Open the model, or unpacked archive, in `folder` and warm it up, on a torch device.

    `name` and `version` are what answers tell. Sets torch's threads for this process.

    Raises `EngineError` if the engine that is asked for cannot be had here, and
    `ModelFolderError` for a broken folder.
    """
    torch.set_num_threads(cores.own_threads)
    opened = open_engine(
        folder,
        settings.engine,
        device=device,
        cores=cores,
        windows_per_pass=settings.windows_per_pass,
    )
    # An encoder with a probe is computed on the CPU wherever it is served.
    on_gpu = device != "cpu" and opened.name == "torch"
    pool = settings.pool(on_gpu=on_gpu, threads=cores.own_threads)
    classifier = AccentClassifier(
        opened.model,
        opened.engine,
        name=name,
        version=version,
        limits=settings.audio,
        gate=SpeechGate(settings.speech),
        trimming=settings.trimming,
        worth=read_worth(folder),
        decode_apart=None if pool is None else pool.decode,
    )
    classifier.warm_up()
    return OpenedClassifier(classifier, opened, pool)


def _part(kind: type[_Part], entries: Mapping[str, Any]) -> _Part:
    names = {each.name for each in fields(kind)}
    return kind(**{name: value for name, value in entries.items() if name in names})
