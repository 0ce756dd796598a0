"""The compiled engine: OpenVINO over a graph that packaging made. CPU only."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from accent.cores import CoreShare
from accent.ecapa.features import LogMel
from accent.ecapa.loading import EcapaDescription
from accent.engine import Precision, WindowScores, check_finite
from accent.openvino_runtime import hints as ov_hints
from accent.openvino_runtime import openvino
from accent.openvino_runtime import properties as ov_properties
from accent.waveform import Waveform

DEVICE: Final = "CPU"

# Clips are of any length, and OpenVINO as well as the oneDNN within it keep what they
# prepared for each: 1.7 MB a length, thousands of them. Preparing a length that they forgot
# takes about 5 ms. oneDNN reads its bound from an environment variable only.
_KEPT_PREPARATIONS: Final = 64
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KEPT_PREPARATIONS))

# An int8 product without these is put together from 16-bit ones, which is slow and saturates.
_INT8_INSTRUCTIONS: Final = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "dot")
_BF16_INSTRUCTIONS: Final = ("avx512_bf16", "amx_bf16", "bf16")


class EngineUnavailable(Exception):
    """An engine that cannot compute here as it was asked to. The message says why."""


class CompiledEngine:
    """OpenVINO on the CPU, one window at a time: batches buy nothing there.

    It uses as many threads as `cores` allows and binds none of them to a core: workers know
    nothing of each other and would bind theirs to the same ones. While all other workers are
    idle it uses all cores.
    """

    def __init__(
        self,
        model: EcapaDescription,
        graph: Path,
        precision: Precision,
        cores: CoreShare,
    ) -> None:
        """Compile the graph of `model`, (1, frames, n_mels) -> (1, labels), in a file.

        Raises `EngineUnavailable` if OpenVINO refuses the file or would compute in another
        precision.
        """
        spec = model.spec
        self._features = LogMel(spec.n_mels, std_norm=spec.std_norm)
        # A convolution reflects the frames at the ends of a clip; there must be enough.
        self._min_frames = 1 + max(
            kernel // 2 * dilation
            for kernel, dilation in zip(spec.kernel_sizes, spec.dilations, strict=True)
        )
        self._cores = cores
        self._request = compile_graph(graph, precision, cores.own_threads)
        self._request_on_all = self._request
        if cores.all_threads > cores.own_threads:
            self._request_on_all = compile_graph(graph, precision, cores.all_threads)
            # The first pass prepares what later ones use, and lasts three times as long.
            self._request_on_all.infer([np.zeros((1, 200, spec.n_mels), np.float32)])

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        """See `accent.engine.Engine.score`."""
        return [self._score_one(window) for window in windows]

    def _score_one(self, window: Waveform) -> WindowScores | Exception:
        try:
            started = time.perf_counter()
            features = self._features(window)
            # The graph itself would score both: it clips what is not finite.
            check_finite(features)
            if features.shape[1] < self._min_frames:
                raise ValueError(f"{features.shape[1]} frames are too few for the network")
            featured = time.perf_counter()
            with self._cores.borrowed() as alone:
                request = self._request_on_all if alone else self._request
                # A view of a buffer that the next window overwrites.
                cosines: npt.NDArray[np.float32] = request.infer([features])[0][0].copy()
            finished = time.perf_counter()
            check_finite(cosines)
        except Exception as error:
            return error
        return WindowScores(cosines, featured - started, finished - featured)


def compile_graph(graph: Path, precision: Precision, threads: int) -> openvino.InferRequest:
    """A graph in a file, compiled for the CPU on so many threads. Raises `EngineUnavailable`."""
    hint = _floating_point(precision)
    try:
        compiled = openvino.Core().compile_model(
            graph,
            DEVICE,
            {
                ov_hints.performance_mode: ov_hints.PerformanceMode.LATENCY,
                ov_properties.num_streams: 1,
                ov_properties.inference_num_threads: threads,
                ov_hints.enable_cpu_pinning: False,
                ov_hints.inference_precision: hint,
                "CPU_RUNTIME_CACHE_CAPACITY": str(_KEPT_PREPARATIONS),
            },
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise EngineUnavailable(f"OpenVINO cannot take {graph.name}: {reason}") from error
    # Where the processor lacks a precision OpenVINO silently computes in the next wider one.
    if compiled.get_property(ov_hints.inference_precision) != hint:
        raise EngineUnavailable(f"OpenVINO has no {precision} on this processor")
    return compiled.create_infer_request()


def hardware_precisions() -> frozenset[Precision]:
    """What this processor has instructions for and OpenVINO uses: no emulation counts."""
    capabilities = openvino.Core().get_property(DEVICE, ov_properties.device.capabilities)
    instructions = torch.cpu.get_capabilities()
    found: set[Precision] = {"fp32"}
    if "BF16" in capabilities and _has_any(instructions, _BF16_INSTRUCTIONS):
        found.add("bf16")
    if "INT8" in capabilities and _has_any(instructions, _INT8_INSTRUCTIONS):
        found.add("int8")
    return frozenset(found)


def processor_name() -> str:
    """What the processor calls itself."""
    return str(openvino.Core().get_property(DEVICE, ov_properties.device.full_name)).strip()


def _has_any(instructions: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(bool(instructions.get(name)) for name in names)


def _floating_point(precision: Precision) -> openvino.Type:
    if precision == "bf16" or (precision == "int8" and "bf16" in hardware_precisions()):
        return openvino.Type.bf16
    return openvino.Type.f32
