"""What a serving framework is given to serve: SpeechBrain's model, or our engine."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

import yaml

Scorer: TypeAlias = Callable[[bytes], float]
"""Encoded audio -> us_confidence, 0 to 100."""

KINDS: Final = ("speechbrain", "ours")


def open_scorer(kind: str, folder: Path, *, threads: int) -> Scorer:
    """A scorer of a kind in `KINDS` over the model, or unpacked archive, in `folder`."""
    import torch

    torch.set_num_threads(threads)
    if kind == "speechbrain":
        from bench.rivals.speechbrain_model import SpeechBrainModel

        return SpeechBrainModel(folder, Path.cwd() / "savedir").classify_bytes
    return OurScorer(folder, threads=threads)


class OurScorer:
    """The handler of an unpacked archive, which chooses its engine as under TorchServe."""

    def __init__(self, archive: Path, *, threads: int) -> None:
        from accent_handler import AccentHandler

        config = yaml.safe_load((archive / "model-config.yaml").read_text(encoding="utf-8"))
        config["accent"]["threads_per_worker"] = threads
        self._handler = AccentHandler()
        self._handler.initialize(
            SimpleNamespace(
                model_name="bench",
                manifest={"model": {"modelVersion": "1.0"}},
                system_properties={"model_dir": str(archive), "gpu_id": None},
                model_yaml_config=config,
                metrics=None,
            )
        )

    def __call__(self, data: bytes) -> float:
        """us_confidence of an encoded clip. Raises `ValueError` for a refused one."""
        clips = self._handler.inference(self._handler.preprocess([{"body": data}]))
        (answer,) = self._handler.postprocess(clips)
        document: dict[str, Any] = answer.document
        if answer.status != 200:
            raise ValueError(document["code"])
        return float(document["us_confidence"])
