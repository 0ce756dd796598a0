"""Engines with verdicts and speeds made up."""

import numpy as np
from accent.ecapa.torch_engine import TORCH as TORCH_PACKED
from accent.engine import PackedEngine
from accent.model import Calibration

from aurea.archive.judging import Deviations, JudgedEngine, Judgement

FINE = Deviations(p50=0.1, p99=0.5, max=0.9, top_accent_agreement=1.0)
BAD = Deviations(p50=2.0, p99=9.0, max=20.0, top_accent_agreement=0.9)
NONE = Deviations(0.0, 0.0, 0.0, 1.0)


def judged(
    name: str,
    deviations: Deviations = FINE,
    pass_s: float | None = 0.1,
    graph_file: str = "float.xml",
) -> JudgedEngine:
    """The engine called `name`, for example "openvino int8"."""
    engine, precision = name.split()
    packed = PackedEngine(
        engine,  # type: ignore[arg-type]
        precision,  # type: ignore[arg-type]
        None if engine == "torch" else graph_file,
        deviations.within_bounds,
    )
    return JudgedEngine(packed, deviations, pass_s)


TORCH = judged("torch fp32", NONE, 0.4)
FP32 = judged("openvino fp32", NONE, 0.3)
BF16 = judged("openvino bf16", FINE, 0.2)
INT8 = judged("openvino int8", FINE, 0.1, "int8.xml")
STRAYING_INT8 = judged("openvino int8", BAD, 0.1, "int8.xml")


def judgement_of(*found: JudgedEngine) -> Judgement:
    """A judgement of these engines on one clip."""
    return Judgement(
        found,
        ("clip",),
        {"fp32": np.zeros(1)},
        ("us",),
        Calibration(30.0),
        TORCH_PACKED,
        on_gpu="torch fp16, measured at its start",
    )
