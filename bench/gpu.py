"""What a GPU can do, and how much of it the engine reaches: a table for `--only engine`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import torch
from accent.ecapa.loading import EcapaModel, load_model
from accent.ecapa.ragged_opening import open_ragged
from accent.ecapa.ragged_passes import DTYPES
from accent.engine import Engine, Precision
from accent.kinds import kind_of
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.tables import markdown_table
from bench.limits import least_gflop
from bench.results import CLIP_S

GPU_ENGINE: Final = "engine"
"""What asks for this alone in place of contestants."""

Shape = tuple[int, int, int]

_SQUARE: Final[Shape] = (8_192, 8_192, 8_192)
# The network's own products on 64 clips of 5 s, at full width.
_OWN: Final[Sequence[Shape]] = ((32_064, 3_072, 3_072), (32_064, 1_024, 1_024), (32_064, 384, 128))
_ROUNDS: Final = 9
_PEER_CLIPS: Final = 64
_MIXED_S: Final = (2.0, 10.0)


@dataclass(frozen=True)
class Work:
    """Clips that are scored in one call."""

    name: str
    lengths_s: Sequence[float]

    @classmethod
    def equal(cls, clips: int) -> "Work":
        """All of 5 s."""
        return cls(f"{clips} x {CLIP_S:g} s", [CLIP_S] * clips)

    @classmethod
    def mixed(cls, clips: int) -> "Work":
        """Of 2 to 10 s, hardly two of them alike: what people send."""
        lengths_s = np.random.default_rng(0).uniform(*_MIXED_S, clips)
        return cls(f"{clips} mixed, 2 to 10 s", lengths_s.tolist())

    def windows(self) -> list[Waveform]:
        """Noise of these lengths."""
        drawn = np.random.default_rng(1)
        return [
            (0.1 * drawn.standard_normal(int(length_s * SAMPLE_RATE_HZ))).astype(np.float32)
            for length_s in self.lengths_s
        ]


WORK: Final = (Work.equal(1), Work.equal(8), Work.equal(64), Work.mixed(64), Work.mixed(256))


def gpu_report(
    folder: Path,
    device: torch.device,
    *,
    work: Sequence[Work] = WORK,
    shapes: Sequence[Shape] = (_SQUARE, *_OWN),
    rounds: int = _ROUNDS,
    peer_clips: int = _PEER_CLIPS,
    precisions: Sequence[Precision] = ("fp16", "bf16", "tf32", "fp32"),
) -> str:
    """Tables of the limits of a device and of the engine on it, for the model in `folder`.

    Raises `SystemExit` for a model that no GPU computes.
    """
    if kind_of(folder).open_on_gpu is None:
        raise SystemExit(f"{folder} is of a kind that is computed on the CPU.")
    model = load_model(folder)
    limits = {
        precision: [gemm_tflops(device, precision, shape, rounds) for shape in shapes]
        for precision in precisions
    }
    products = [
        [precision, *(f"{tflops:.3g}" for tflops in found)] for precision, found in limits.items()
    ]
    rows = []
    gflop_a_s = least_gflop(model) / CLIP_S
    for precision in precisions:
        engine = open_ragged(model, str(device), precision)
        for each in work:
            taken_s = score_s(engine, each.windows(), rounds)
            tflops = gflop_a_s * sum(each.lengths_s) / taken_s / 1_000
            rows.append(
                [
                    precision,
                    each.name,
                    f"{1_000 * taken_s:.2f}",
                    f"{len(each.lengths_s) / taken_s:,.0f}",
                    f"{sum(each.lengths_s) / CLIP_S / taken_s:,.0f}",
                    f"{tflops:.3g}",
                    f"{100 * tflops / limits[precision][0]:.1f} %",
                ]
            )
    peer_s = peer_pass_s(model, device, peer_clips, rounds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    named = [" x ".join(map(str, shape)) for shape in shapes]
    return "\n\n".join(
        [
            f"{name}, torch {torch.__version__}; medians of {rounds} rounds",
            "Products, TFLOP/s\n" + markdown_table(["", *named], products),
            "The engine, from the host's waveforms to cosines\n"
            + markdown_table(
                ["precision", "work", "ms", "clips/s", "5 s eq/s", "TFLOP/s", "of its products"],
                rows,
            ),
            f"The peer, SpeechBrain's modules on equal clips of {CLIP_S:g} s in TF32: "
            f"{1 / peer_s:,.0f} clips/s",
        ]
    )


def gpu_here() -> torch.device:
    """The first GPU. Raises `SystemExit` where there is none."""
    if not torch.cuda.device_count():
        raise SystemExit("There is no GPU here, and the engine on the CPU is part of every bench.")
    return torch.device("cuda:0")


def gemm_tflops(device: torch.device, precision: Precision, shape: Shape, rounds: int) -> float:
    """The rate of a product of these (rows, inputs, outputs), in TFLOP/s."""
    rows, inputs, outputs = shape
    left = torch.randn(rows, inputs, device=device, dtype=DTYPES[precision])
    right = torch.randn(inputs, outputs, device=device, dtype=DTYPES[precision])
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32
    settings.allow_tf32 = precision == "tf32"
    try:
        taken_s = _median_s(lambda: left @ right, device, rounds)
    finally:
        settings.allow_tf32 = before
    return 2 * rows * inputs * outputs / taken_s / 1e12


def score_s(engine: Engine, windows: Sequence[Waveform], rounds: int) -> float:
    """Seconds from waveforms to cosines, a failure being none. Raises what a window raises."""

    def score() -> None:
        for found in engine.score(windows):
            if isinstance(found, Exception):
                raise found

    # Cosines are on the host when it returns: nothing is left to wait for.
    return _median_s(score, torch.device("cpu"), rounds)


def peer_pass_s(model: EcapaModel, device: torch.device, clips: int, rounds: int) -> float:
    """Seconds a clip of SpeechBrain's own modules, at their best: equal clips in one pass."""
    network = model.network.to(device)
    waveforms = torch.from_numpy(np.stack(Work.equal(clips).windows()))
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32
    settings.allow_tf32 = True

    def score() -> None:
        with torch.inference_mode():
            network(waveforms.to(device)).cpu()

    try:
        return _median_s(score, device, rounds) / clips
    finally:
        settings.allow_tf32 = before
        # It is the model's own.
        network.to("cpu")


def _median_s(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    wait()
    taken_s = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        wait()
        taken_s.append(time.perf_counter() - started)
    return median(taken_s)
