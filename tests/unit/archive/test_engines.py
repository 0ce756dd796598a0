"""Judging engines: what deviates is found, what is beyond the bounds is never auto's."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from accent.classifier import AccentClassifier
from accent.compiled import CompiledEngine, EngineUnavailable, hardware_precisions
from accent.cores import CoreShare
from accent.decode import decode
from accent.engine import Precision
from accent.layout import MODEL_FILES
from accent.loading import AccentModel, load_model
from accent.selection import EngineSettings, PackedEngine, open_engine, packed_engines
from accent.waveform import Waveform

from aurea.archive import engines, graph
from aurea.archive.engines import (
    MAX_P99_POINTS,
    MAX_POINTS,
    Deviations,
    JudgedEngine,
    Judgement,
    card_section,
    engines_document,
    engines_to_pack,
    judge,
    make_graphs,
    pack_engines,
    warnings,
)
from aurea.archive.reference import ReferenceClip, reference_files, verification_speech
from aurea.models.choice import DEFAULT_EMBEDDED as EMBEDDED

FINE = Deviations(p50=0.1, p99=0.5, max=0.9, top_accent_agreement=1.0)
BAD = Deviations(p50=2.0, p99=9.0, max=20.0, top_accent_agreement=0.9)
NONE = Deviations(0.0, 0.0, 0.0, 1.0)


def judged(
    name: str, deviations: Deviations = FINE, pass_s: float = 0.1, graph_file: str = "float.xml"
) -> JudgedEngine:
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
    return Judgement(found, ("clip",), {"fp32": np.zeros(1)}, ("us",), 30.0)


def packed_names(judgement: Judgement, **settings: Any) -> list[str]:
    return [engine.packed.name for engine in engines_to_pack(judgement, EngineSettings(**settings))]


@pytest.mark.parametrize(
    ("p99", "largest", "within"),
    [
        (MAX_P99_POINTS, MAX_POINTS, True),
        (MAX_P99_POINTS + 0.01, MAX_POINTS, False),
        (MAX_P99_POINTS, MAX_POINTS + 0.01, False),
    ],
)
def test_both_bounds_bind(p99: float, largest: float, within: bool) -> None:
    assert Deviations(0.0, p99, largest, 1.0).within_bounds is within


def test_auto_packs_what_some_processor_would_take_and_torch() -> None:
    judgement = judgement_of(INT8, BF16, FP32, TORCH)
    assert packed_names(judgement) == [
        "openvino int8",
        "openvino bf16",
        "openvino fp32",
        "torch fp32",
    ]


def test_auto_packs_nothing_beyond_its_bounds() -> None:
    names = packed_names(judgement_of(STRAYING_INT8, BF16, FP32, TORCH))
    assert names == ["openvino bf16", "openvino fp32", "torch fp32"]


def test_what_is_slower_than_an_engine_that_runs_anywhere_is_not_packed() -> None:
    assert packed_names(judgement_of(INT8, TORCH, BF16, FP32)) == ["openvino int8", "torch fp32"]
    assert packed_names(judgement_of(TORCH, INT8, FP32)) == ["torch fp32"]


def test_a_name_packs_that_alone_and_torch() -> None:
    judgement = judgement_of(STRAYING_INT8, BF16, FP32, TORCH)
    assert packed_names(judgement, precision="int8") == ["openvino int8", "torch fp32"]
    assert packed_names(judgement, precision="fp32") == ["openvino fp32", "torch fp32"]
    assert packed_names(judgement, engine="torch") == ["torch fp32"]
    assert packed_names(judgement, engine="openvino") == [
        "openvino bf16",
        "openvino fp32",
        "torch fp32",
    ]


def test_what_was_asked_for_by_name_and_strays_is_warned_of() -> None:
    (warning,) = warnings([STRAYING_INT8, TORCH], EngineSettings(precision="int8"))
    assert "WARNING: openvino int8 strays from fp32 by up to 20.0 points (p99 9.0)" in warning
    assert warnings([INT8, TORCH], EngineSettings(precision="int8")) == []


def test_what_was_asked_for_by_name_and_is_not_there_is_warned_of() -> None:
    (warning,) = warnings([TORCH], EngineSettings(precision="bf16"))
    assert "bf16 could not be made" in warning


def test_the_document_says_what_auto_means_on_each_processor(tmp_path: Path) -> None:
    (tmp_path / "float.xml").write_bytes(b"12345")
    (tmp_path / "float.bin").write_bytes(b"67")
    judgement = judgement_of(STRAYING_INT8, BF16, FP32, TORCH)
    packed = engines_to_pack(judgement, EngineSettings())
    document = engines_document(judgement, packed, tmp_path)
    assert json.loads(json.dumps(document)) == document
    assert document["auto"] == {
        "int8 and bf16 instructions": "openvino bf16",
        "int8 instructions": "openvino fp32",
        "bf16 instructions": "openvino bf16",
        "neither": "openvino fp32",
        "a GPU": "torch bf16, not measured",
    }
    assert document["bounds_points"] == {"p99": 1.0, "max": 3.0}
    assert document["engines"][0]["size_bytes"] == 7
    assert document["engines"][0]["deviation_points"] == {"p50": 0.1, "p99": 0.5, "max": 0.9}
    assert [entry["precision"] for entry in document["not_packed"]] == ["int8"]
    assert document["not_packed"][0]["graph"] is None


def test_the_card_tells_of_every_engine_its_deviation_and_its_lot() -> None:
    judgement = judgement_of(STRAYING_INT8, BF16, FP32, TORCH)
    section = card_section(judgement, engines_to_pack(judgement, EngineSettings()))
    assert "| openvino int8 | 2.00 | 9.00 | 20.00 | 90.0 % | no | no |" in section
    assert "| openvino bf16 | 0.10 | 0.50 | 0.90 | 100.0 % | yes | yes |" in section
    assert "softmax scale 30" in section


# The rest makes and measures graphs of the embedded model.


@pytest.fixture(scope="module")
def model() -> AccentModel:
    return load_model(EMBEDDED)


@pytest.fixture(scope="module")
def few_clips() -> list[ReferenceClip]:
    """The clips that an archive carries, and some copies."""
    names = {path.stem for path in reference_files("verification")[:4]}
    return [clip for clip in verification_speech() if clip.name.split()[0] in names]


@pytest.fixture
def little_speech(few_clips: list[ReferenceClip], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "verification_speech", lambda: few_clips)


@pytest.fixture(scope="module")
def judgement(
    model: AccentModel, few_clips: list[ReferenceClip], tmp_path_factory: pytest.TempPathFactory
) -> Judgement:
    return judge(model, make_graphs(model, tmp_path_factory.mktemp("graphs")), few_clips)


def test_graphs_that_are_equal_are_written_once(model: AccentModel, tmp_path: Path) -> None:
    graphs = make_graphs(model, tmp_path)
    assert graphs["bf16"] == graphs["fp32"] != graphs["int8"]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"accent-{name}.{suffix}" for name in ("fp32", "int8") for suffix in ("xml", "bin")
    }


def test_the_same_graph_is_the_same_bytes_every_time(model: AccentModel, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        make_graphs(model, tmp_path / folder)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_fp32_does_not_stray_and_narrower_precisions_do(judgement: Judgement) -> None:
    by_name = {engine.packed.name: engine for engine in judgement.engines}
    assert by_name["torch fp32"].deviations == NONE
    assert by_name["openvino fp32"].deviations.max < 0.01
    for precision in ("bf16", "int8"):
        if precision in hardware_precisions():
            assert by_name[f"openvino {precision}"].deviations.max > 0.01
    assert all(engine.pass_s > 0 for engine in judgement.engines)


def test_the_scores_behind_a_judgement_are_those_of_the_clips(
    judgement: Judgement, few_clips: list[ReferenceClip]
) -> None:
    assert judgement.clips == tuple(clip.name for clip in few_clips)
    for points in judgement.us_points.values():
        assert points.shape == (len(few_clips),)
        assert 0 <= points.min() < points.max() <= 100


def worse_int8(
    model: AccentModel, precision: Precision, calibration: Sequence[Waveform]
) -> openvino.Model:
    """In place of int8, fp32 whose first product has lost a tenth of its weights."""
    if precision != "int8":
        return graph.build_graph(model, precision, calibration)
    damaged = load_model(EMBEDDED)
    for parameter in list(damaged.network.embedding_model.blocks[1].parameters())[:1]:
        parameter[: len(parameter) // 2] = 0
    return graph.build_graph(damaged, "fp32", calibration)


@pytest.mark.usefixtures("little_speech")
def test_a_damaged_precision_is_found_out_left_out_and_warned_of(
    model: AccentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "build_graph", worse_int8)
    auto, named = tmp_path / "auto", tmp_path / "named"
    auto.mkdir()
    named.mkdir()

    report = pack_engines(EMBEDDED, model, auto, EngineSettings())
    assert "beyond the bounds" in report
    assert "WARNING" not in report
    assert not (auto / "accent-int8.xml").exists()
    assert all(engine.precision != "int8" for engine in packed_engines(auto))

    report = pack_engines(EMBEDDED, model, named, EngineSettings(precision="int8"))
    assert "WARNING: openvino int8 strays" in report
    assert (named / "accent-int8.xml").exists()
    first = packed_engines(named)[0]
    assert (first.precision, first.within_bounds) == ("int8", False)


@pytest.mark.usefixtures("little_speech")
def test_a_worker_reproduces_the_reference_clips_of_its_archive(
    model: AccentModel, tmp_path: Path
) -> None:
    for name in MODEL_FILES:
        shutil.copyfile(EMBEDDED / name, tmp_path / name)
    pack_engines(EMBEDDED, model, tmp_path, EngineSettings())
    document = json.loads((tmp_path / "reference.json").read_text())
    assert len(document["clips"]) == 4
    assert any("us" in clip["file"] for clip in document["clips"])

    for packed in packed_engines(tmp_path):
        if packed.precision not in hardware_precisions():
            continue
        opened = open_engine(tmp_path, EngineSettings(packed.engine, packed.precision))
        classifier = AccentClassifier(opened.model, opened.engine, name="m", version="1")
        for clip in document["clips"]:
            (answer,) = classifier.classify([(tmp_path / clip["file"]).read_bytes()])
            assert answer.status == 200, answer.document
            assert answer.document["us_confidence"] == pytest.approx(
                clip["us_confidence"][packed.precision],
                abs=document["tolerance_points"][packed.precision],
            )
            assert answer.document["accents"][0]["label"] == clip["top_accent"]
    fp32 = [clip["us_confidence"]["fp32"] for clip in document["clips"]]
    assert max(fp32) - min(fp32) > 10 * document["tolerance_points"]["fp32"]


@pytest.mark.usefixtures("little_speech")
def test_the_card_of_the_model_stays_as_it_is_and_the_archives_goes_on_from_it(
    model: AccentModel, tmp_path: Path
) -> None:
    before = (EMBEDDED / "README.md").read_text()
    pack_engines(EMBEDDED, model, tmp_path, EngineSettings())
    assert (EMBEDDED / "README.md").read_text() == before
    packed = (tmp_path / "README.md").read_text()
    assert packed.startswith(before.rstrip())
    assert "## How exactly it is computed" in packed.removeprefix(before.rstrip())


def test_clips_of_another_manifest_can_judge(tmp_path: Path) -> None:
    (tmp_path / "us").mkdir()
    file = reference_files("verification")[0]
    (tmp_path / "us" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "us" / "empty.ogg").write_bytes(b"")
    (clip,) = engines._speech_of(tmp_path)
    np.testing.assert_array_equal(clip.waveform, decode(file.read_bytes()).waveform)


def test_a_precision_that_cannot_be_computed_here_is_not_measured(
    model: AccentModel,
    few_clips: list[ReferenceClip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_bf16(found: Any, path: Path, precision: Precision, cores: CoreShare) -> Any:
        if precision == "bf16":
            raise EngineUnavailable("no bf16 here")
        return CompiledEngine(found, path, precision, cores)

    monkeypatch.setattr(engines, "CompiledEngine", without_bf16)
    found = judge(model, make_graphs(model, tmp_path), few_clips[:2])
    assert "bf16" not in {engine.packed.precision for engine in found.engines}
    assert "bf16" not in found.us_points


def test_a_narrower_precision_must_be_faster_by_a_tenth(
    model: AccentModel,
    few_clips: list[ReferenceClip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs = make_graphs(model, tmp_path)
    names = ["torch fp32", *(f"openvino {precision}" for precision in graphs)]

    def order(**milliseconds: float) -> list[str]:
        seconds = [milliseconds[name.replace(" ", "_")] for name in names]
        monkeypatch.setattr(engines, "_pass_seconds", lambda _: seconds)
        return [each.packed.name for each in judge(model, graphs, few_clips[:1]).engines]

    times = {"torch_fp32": 100.0, "openvino_fp32": 50.0}
    assert order(**times, openvino_bf16=48.0, openvino_int8=47.0)[0] == "openvino fp32"
    assert order(**times, openvino_bf16=40.0, openvino_int8=39.0)[0] == "openvino bf16"
    assert order(**times, openvino_bf16=40.0, openvino_int8=30.0)[0] == "openvino int8"


def test_deviations_count_in_both_directions_and_tops_by_clip(model: AccentModel) -> None:
    expected = np.array([[0.5, 0.4, 0.1, 0.0], [0.4, 0.5, 0.1, 0.0], [0.5, 0.4, 0.1, 0.0]])
    swapped = expected[[1, 0, 2]]
    assert model.us_index == 1
    found = engines._deviations(model, expected, swapped)
    assert found.p50 == pytest.approx(found.max)
    assert found.max > 10
    assert found.top_accent_agreement == pytest.approx(1 / 3)
