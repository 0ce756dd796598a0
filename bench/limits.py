"""What a processor's matrix products allow at best, by several libraries."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import numpy as np
import torch
from accent.ecapa.loading import EcapaModel
from accent.engine import PRECISIONS, Precision
from accent.openvino_runtime import openvino, ops
from torch.utils.flop_counter import FlopCounterMode

from bench.results import CLIP_S

Shape: TypeAlias = tuple[int, int, int]
"""Rows, columns and what they are multiplied over."""

# Shapes of the network's own products on 5 s of audio, and others, which are kinder.
_SHAPES: Final[tuple[Shape, ...]] = (
    (501, 128, 3072),
    (501, 1024, 1024),
    (1024, 1024, 1024),
    (501, 3072, 3072),
    (2048, 2048, 2048),
)
_REPEATS: Final = 5
_BEST_REPEATS: Final = 30
"""Of the fastest product: other work on the machine only ever adds, and a limit is the least."""

_SLOW_S: Final = 0.5
"""What takes longer at its first time is not tried again."""

_TOO_SLOW: Final = 20
"""A library that is so many times slower than another is left alone."""

_INT8_LEVELS: Final = 255


def best_rates(threads: int) -> dict[str, float]:
    """Billions of operations a second in the fastest matrix product, by precision.

    No library is the fastest on every processor, so the best of torch and OpenVINO counts; a
    limit that an engine beats is none. A library that lacks a processor's instructions for a
    precision computes it a hundred times slower; it is not waited for.
    """
    return {precision: _best_rate(precision, threads) for precision in PRECISIONS}


def least_gflop(model: EcapaModel) -> float:
    """Billions of operations that the products of 5 s take at least.

    torch's count of the network as SpeechBrain writes it, without what need not be computed for
    every frame: the attention sees a clip's mean and deviation beside each frame, and their
    product is the same for all of them.
    """
    frames = int(CLIP_S * 100) + 1
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.network.cosines(torch.randn(1, frames, model.spec.n_mels))
    constant = 2 * 2 * model.spec.channels[-1] * model.spec.attention_channels
    return float(counter.get_total_flops() - (frames - 1) * constant) / 1e9


def _best_rate(precision: Precision, threads: int) -> float:
    best = 0.0
    fastest: tuple[Callable[[], object], Shape] | None = None
    makers = {
        "openvino": partial(_openvino_product, precision, threads=threads),
        "torch": partial(_torch_product, precision),
    }
    for shape in _SHAPES:
        for library, make in list(makers.items()):
            product = make(shape)
            rate = _rate(product, shape, _REPEATS)
            if rate < best / _TOO_SLOW:
                del makers[library]
            if rate > best:
                best, fastest = rate, (product, shape)
    return best if fastest is None else max(best, _rate(*fastest, _BEST_REPEATS))


def _torch_product(precision: Precision, shape: Shape) -> Callable[[], object]:
    rows, columns, inner = shape
    if precision == "int8":
        left = torch.randint(-127, 128, (rows, inner), dtype=torch.int8)
        right = torch.randint(-127, 128, (inner, columns), dtype=torch.int8)
        return lambda: torch._int_mm(left, right)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    return lambda: torch.mm(one, other)


def _openvino_product(precision: Precision, shape: Shape, threads: int) -> Callable[[], object]:
    rows, columns, inner = shape
    numbers = np.random.default_rng(0)
    left = ops.parameter([rows, inner], np.float32)
    right = ops.constant(numbers.standard_normal((inner, columns)).astype(np.float32))
    if precision == "int8":
        product = ops.matmul(_eight_bits(left), _eight_bits(right), False, False)
    else:
        product = ops.matmul(left, right, False, False)
    compiled = openvino.Core().compile_model(
        openvino.Model([product], [left]),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        },
    )
    request = compiled.create_infer_request()
    values = numbers.standard_normal((rows, inner)).astype(np.float32)
    request.set_input_tensor(openvino.Tensor(values, shared_memory=True))
    return lambda: request.infer()


def _eight_bits(values: "openvino.Node | openvino.Output") -> "openvino.Node":
    low, high = ops.constant(np.float32(-4.0)), ops.constant(np.float32(4.0))
    return ops.fake_quantize(values, low, high, low, high, _INT8_LEVELS)


def _rate(product: Callable[[], object], shape: Shape, repeats: int) -> float:
    rows, columns, inner = shape
    with torch.inference_mode():
        started = time.perf_counter()
        product()
        taken = [time.perf_counter() - started]
        if taken[0] > _SLOW_S:
            return 2 * rows * columns * inner / taken[0] / 1e9
        for _ in range(repeats):
            started = time.perf_counter()
            product()
            taken.append(time.perf_counter() - started)
    # A limit is what was possible once.
    return 2 * rows * columns * inner / min(taken) / 1e9
