"""Which engine a worker opens: settings, archive and processor, with stand-ins for OpenVINO."""

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from accent.cores import CoreShare
from accent.ecapa import compiled
from accent.ecapa.compiled import EngineUnavailable
from accent.ecapa.loading import EcapaDescription, EcapaModel
from accent.ecapa.ragged_opening import open_ragged
from accent.ecapa.torch_engine import TORCH, TorchEngine
from accent.engine import Engine, EngineError, PackedEngine, Precision, WindowScores
from accent.errors import ModelFolderError
from accent.layout import ENGINES_FILE, REFERENCE_FILE
from accent.selection import EngineSettings, open_engine, packed_engines
from accent.waveform import Waveform

from tests.clips import voice

BF16 = PackedEngine("openvino", "bf16", "float.xml", within_bounds=True)
FP32 = PackedEngine("openvino", "fp32", "float.xml", within_bounds=True)
INT8 = PackedEngine("openvino", "int8", "int8.xml", within_bounds=True)
STRAYING_INT8 = PackedEngine("openvino", "int8", "int8.xml", within_bounds=False)
ALL = (INT8, BF16, FP32, TORCH)


class StandInEngine:
    """Remembers what it was made of."""

    def __init__(
        self,
        model: EcapaDescription,
        graph: Path,
        precision: Precision,
        cores: CoreShare,
    ) -> None:
        assert model.us_index == 1
        if graph.read_text() == "broken":
            raise EngineUnavailable("the graph cannot be read")
        self.made_of = graph.name, precision
        self.cores = cores

    def score(self, _: Any) -> list[Any]:
        return []


def has(monkeypatch: pytest.MonkeyPatch, *precisions: Precision) -> None:
    """Let the processor have instructions for these."""
    monkeypatch.setattr(compiled, "hardware_precisions", lambda: frozenset(precisions))


@pytest.fixture(autouse=True)
def able_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "CompiledEngine", StandInEngine)
    has(monkeypatch, "fp32", "bf16", "int8")


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_folder, tmp_path / "archive"))


def pack(folder: Path, engines: Sequence[PackedEngine]) -> Path:
    entries = [
        {
            "engine": each.engine,
            "precision": each.precision,
            "graph": each.graph,
            "within_bounds": each.within_bounds,
        }
        for each in engines
    ]
    (folder / ENGINES_FILE).write_text(json.dumps({"engines": entries}))
    for each in engines:
        if each.graph is not None:
            (folder / each.graph).write_text("graph")
    return folder


def opened(folder: Path, engine: Any = "auto", precision: Any = "auto", **options: Any) -> str:
    found = open_engine(folder, EngineSettings(engine, precision), **options)
    assert found.model.labels == ("england", "us", "canada")
    assert isinstance(found.engine, TorchEngine if found.name == "torch" else StandInEngine)
    return f"{found.name} {found.precision}"


@pytest.mark.parametrize(
    ("precisions", "expected"),
    [
        (("fp32", "bf16", "int8"), "openvino int8"),
        (("fp32", "bf16"), "openvino bf16"),
        (("fp32",), "openvino fp32"),
    ],
)
def test_auto_takes_the_first_that_the_processor_has_instructions_for(
    precisions: tuple[Precision, ...],
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has(monkeypatch, *precisions)
    assert opened(pack(folder, ALL)) == expected


def test_auto_follows_the_order_of_the_archive(folder: Path) -> None:
    assert opened(pack(folder, [BF16, INT8, TORCH])) == "openvino bf16"
    assert opened(pack(folder, [TORCH, BF16])) == "torch fp32"


def test_auto_never_takes_what_strays_beyond_its_bounds(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert opened(pack(folder, [STRAYING_INT8, BF16, TORCH])) == "openvino bf16"
    assert "not openvino int8: strays from fp32 by more than its bounds" in caplog.text


def test_what_is_asked_for_by_name_is_taken_even_beyond_the_bounds(folder: Path) -> None:
    pack(folder, [STRAYING_INT8, BF16, TORCH])
    assert opened(folder, precision="int8") == "openvino int8"
    assert opened(folder, engine="torch") == "torch fp32"
    assert opened(folder, precision="fp32") == "torch fp32"
    assert opened(folder, engine="openvino") == "openvino bf16"


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("openvino", "fp32"), ("auto", "int8"), ("torch", "bf16"), ("torch", "int8")],
)
def test_what_is_not_packed_cannot_be_had_by_name(
    engine: str, precision: str, folder: Path
) -> None:
    pack(folder, [BF16, TORCH])
    with pytest.raises(EngineError, match=f"No engine for engine {engine}, precision {precision}"):
        opened(folder, engine, precision)


def test_a_precision_by_name_needs_its_instructions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, "fp32")
    with pytest.raises(EngineError, match="openvino bf16: this processor has no instructions"):
        opened(pack(folder, ALL), precision="bf16")


def test_a_folder_without_engines_has_torch_alone(folder: Path) -> None:
    assert packed_engines(folder) == [TORCH]
    assert opened(folder) == "torch fp32"
    with pytest.raises(EngineError, match=r"precision auto\. There is torch fp32\."):
        opened(folder, engine="openvino")


def test_torch_is_there_whether_an_archive_names_it_or_not(folder: Path) -> None:
    assert packed_engines(pack(folder, [BF16])) == [BF16, TORCH]


@pytest.mark.parametrize("content", [None, "broken"])
def test_without_a_sound_graph_auto_goes_on_and_a_name_fails(
    content: str | None, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pack(folder, [BF16, TORCH])
    (folder / "float.xml").unlink()
    if content is not None:
        (folder / "float.xml").write_text(content)
    assert opened(folder) == "torch fp32"
    assert "not openvino bf16: " in caplog.text
    for engine, precision in (("openvino", "auto"), ("auto", "bf16")):
        with pytest.raises(EngineError, match=r"missing|cannot be read"):
            opened(folder, engine, precision)


def test_without_openvino_auto_goes_on_and_a_name_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(sys.modules, "accent.ecapa.compiled", None)
    pack(folder, ALL)
    assert opened(folder) == "torch fp32"
    assert "OpenVINO cannot be imported" in caplog.text
    with pytest.raises(EngineError, match="OpenVINO cannot be imported"):
        opened(folder, engine="openvino")


def test_its_cores_reach_the_compiled_engine(folder: Path) -> None:
    cores = CoreShare(3)
    found = open_engine(pack(folder, ALL), cores=cores)
    assert isinstance(found.engine, StandInEngine)
    assert found.engine.made_of == ("int8.xml", "int8")
    assert found.engine.cores is cores


def test_a_compiled_engine_reads_no_checkpoint(folder: Path) -> None:
    pack(folder, ALL)
    (folder / "embedding_model.ckpt").write_bytes(b"no checkpoint")
    assert opened(folder) == "openvino int8"
    with pytest.raises(ModelFolderError, match=r"embedding_model\.ckpt"):
        opened(folder, engine="torch")


@pytest.mark.parametrize(
    ("name", "settings", "known"),
    [
        ("engine", {"engine": "tensorflow"}, "auto, torch, openvino, onnxruntime"),
        ("engine", {"engine": None}, "auto, torch, openvino, onnxruntime"),
        ("precision", {"precision": "fp64"}, "auto, fp32, bf16, int8, fp16, tf32"),
        ("precision", {"precision": ["int8"]}, "auto, fp32, bf16, int8, fp16, tf32"),
    ],
)
def test_a_setting_that_is_none_is_refused_with_those_that_are(
    name: str, settings: dict[str, Any], known: str
) -> None:
    with pytest.raises(EngineError, match=f"The setting {name} is .*; {known} are taken"):
        EngineSettings(**settings)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        '{"engines": [{"engine": "onnx", "precision": "fp32", "graph": null}]}',
        '{"engines": [{"engine": "openvino", "precision": "fp64", "graph": "a.xml"}]}',
        '{"engines": [{"engine": "openvino", "precision": "fp32", "graph": "../a.xml"}]}',
        '{"engines": [{"engine": "openvino", "precision": "fp32"}]}',
        '{"engines": [{"engine": "openvino", "precision": "fp32", "graph": 3}]}',
        '{"engines": ["openvino"]}',
    ],
)
def test_a_broken_list_of_engines_is_refused(text: str, folder: Path) -> None:
    (folder / ENGINES_FILE).write_text(text)
    with pytest.raises(ModelFolderError, match=r"engines\.json: cannot be read"):
        packed_engines(folder)


class PretendGpu:
    """What is made for a GPU, computed on the CPU; some precisions may stray there."""

    def __init__(self, straying: Sequence[Precision] = ()) -> None:
        self.made: list[tuple[str, Precision, int | None]] = []
        self._straying = straying

    def open_ragged(
        self, model: EcapaModel, device: str, precision: Precision, windows: int | None
    ) -> Engine:
        self.made.append((device, precision, windows))
        engine = open_ragged(model)
        return Straying(engine) if precision in self._straying else engine


class Straying:
    """An engine with another opinion of every window."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        scores = self._engine.score(windows)
        return [
            replace(score, evidence=-score.evidence) if isinstance(score, WindowScores) else score
            for score in scores
        ]


def on_gpu(monkeypatch: pytest.MonkeyPatch, *straying: Precision) -> PretendGpu:
    gpu = PretendGpu(straying)
    monkeypatch.setattr("accent.ecapa.opening.open_ragged", gpu.open_ragged)
    return gpu


def with_reference_clips(folder: Path) -> Path:
    (folder / "reference").mkdir()
    clips = []
    for seed in range(2):
        file = f"reference/{seed}.wav"
        soundfile.write(folder / file, voice(1.5, seed=seed), 16_000)
        clips.append({"file": file, "us_confidence": {"fp32": 50.0}, "top_accent": "us"})
    (folder / REFERENCE_FILE).write_text(json.dumps({"clips": clips}))
    return folder


def opened_on_gpu(folder: Path, precision: Any = "auto") -> str:
    found = open_engine(folder, EngineSettings("auto", precision), device="cuda:1")
    return f"{found.name} {found.precision}"


def test_a_gpu_computes_with_torch_in_fp16_unless_told_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = on_gpu(monkeypatch)
    pack(folder, ALL)
    assert opened_on_gpu(folder) == "torch fp16"
    for precision in ("fp16", "bf16", "tf32", "fp32"):
        assert opened_on_gpu(folder, precision) == f"torch {precision}"
    assert [(device, precision) for device, precision, _ in gpu.made] == [
        ("cuda:1", precision) for precision in ("fp16", "fp16", "bf16", "tf32", "fp32")
    ]
    with pytest.raises(EngineError, match=r"A GPU computes in fp16, bf16, tf32, fp32; .* int8"):
        opened_on_gpu(folder, "int8")
    assert opened(folder, device="cuda:1", engine="openvino") == "openvino int8"


@pytest.mark.parametrize(
    ("straying", "expected"),
    [
        ((), "torch fp16"),
        (("fp16",), "torch bf16"),
        (("fp16", "bf16"), "torch tf32"),
        (("fp16", "bf16", "tf32"), "torch fp32"),
    ],
)
def test_what_strays_on_a_gpu_is_replaced_by_the_next_before_it_serves(
    straying: tuple[Precision, ...],
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    on_gpu(monkeypatch, *straying)
    assert opened_on_gpu(with_reference_clips(folder)) == expected
    for precision in straying:
        assert f"not torch {precision} on cuda:1: it strays from fp32 by up to" in caplog.text
    assert caplog.text.count("strays from fp32") == len(straying)


def test_a_gpu_on_which_everything_strays_has_no_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, "fp16", "bf16", "tf32", "fp32")
    with pytest.raises(EngineError, match="Every engine on cuda:1 strays"):
        opened_on_gpu(with_reference_clips(folder))


def test_what_is_asked_for_by_name_on_a_gpu_is_kept_and_its_straying_logged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_gpu(monkeypatch, "bf16")
    assert opened_on_gpu(with_reference_clips(folder), "bf16") == "torch bf16"
    assert "torch bf16 was asked for by name: it strays from fp32" in caplog.text
