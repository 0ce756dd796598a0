"""What a serving framework is given to serve: SpeechBrain's model, or our engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

Scorer: TypeAlias = Callable[[bytes], float]
"""Encoded audio -> us_confidence, 0 to 100."""

Kind: TypeAlias = Literal["speechbrain", "ours"]


def open_scorer(kind: Kind, folder: Path, *, threads: int) -> Scorer:
    """A scorer of a kind over the model, or unpacked archive, in `folder`."""
    import torch

    torch.set_num_threads(threads)
    if kind == "speechbrain":
        from bench.rivals.speechbrain_model import SpeechBrainModel

        return SpeechBrainModel(folder, Path.cwd() / "savedir").classify_bytes
    return OurScorer(folder, threads=threads)


class OurScorer:
    """The core over an unpacked archive, which chooses its engine as it does under TorchServe."""

    def __init__(self, archive: Path, *, threads: int) -> None:
        from accent.classifier import AccentClassifier
        from accent.cores import CoreShare
        from accent.selection import EngineSettings, open_engine

        opened = open_engine(archive, EngineSettings(), cores=CoreShare(threads))
        self._classifier = AccentClassifier(
            opened.model, opened.engine, name="bench", version="1.0"
        )
        self._classifier.warm_up()

    def __call__(self, data: bytes) -> float:
        """us_confidence of an encoded clip. Raises `ValueError` for a refused one."""
        (answer,) = self._classifier.classify([data])
        if answer.status != 200:
            raise ValueError(answer.document["code"])
        return float(answer.document["us_confidence"])
