"""Stand-in models of the tests."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accent.layout import LABELS_FILE, PROBE_FILE, PROBE_WEIGHTS_FILE
from accent.probe.loading import ProbeSpec

from aurea.models.encoder import ENCODER, place_encoder
from aurea.models.stand_in import (
    FULL_CHANNELS,
    HYPERPARAMS,
    SMALL_CHANNELS,
    labels_text,
    write_stand_in,
)

__all__ = ["HYPERPARAMS", "PROBE_SPEC", "REAL_HEAD", "SHARED", "SMALL_CHANNELS", "write_stand_in"]

PROBE_SPEC = ProbeSpec(
    encoder_sha256=ENCODER.sha256,
    frame_size=288,
    hidden_size=64,
    level_rms=0.05,
    scale=1.0,
    us_bias=0.0,
)

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL_HEAD = SHARED / "model" / "commonaccent-ecapa"


def write_full_width_stand_in(folder: Path, *, seed: int = 0) -> Path:
    """The pretrained model's width with seeded weights under the real head and labels.

    Needs `REAL_HEAD`; the caller skips where that is absent.
    """
    labels = [f"accent-{index}" for index in range(15)] + ["us"]
    write_stand_in(folder, labels=labels, channels=FULL_CHANNELS, embedding_size=192, seed=seed)
    for name in ("classifier.ckpt", "accent_encoder.txt"):
        (folder / name).write_bytes((REAL_HEAD / name).read_bytes())
    return folder


def write_probe_stand_in(
    folder: Path, labels: Sequence[str] = ("us", "native", "learner"), seed: int = 0
) -> Path:
    """The encoder that ships under a probe with seeded weights, as wide as the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = torch.Generator().manual_seed(seed)
    spec = PROBE_SPEC
    shapes = {
        "hidden": (spec.hidden_size, spec.frame_size),
        "hidden_bias": (spec.hidden_size,),
        "output": (len(labels), spec.hidden_size),
        "output_bias": (len(labels),),
    }
    weights = {name: 0.2 * torch.randn(shape, generator=drawn) for name, shape in shapes.items()}
    torch.save(weights, folder / PROBE_WEIGHTS_FILE)
    (folder / LABELS_FILE).write_text(labels_text(labels))
    (folder / PROBE_FILE).write_text(json.dumps(asdict(spec)))
    place_encoder(folder)
    return folder
