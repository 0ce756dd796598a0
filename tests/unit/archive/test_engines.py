"""What an archive carries of its judged engines, and what it says of them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accent.classifier import AccentClassifier
from accent.ecapa.compiled import hardware_precisions
from accent.ecapa.loading import EcapaModel, load_model
from accent.engine import Precision
from accent.layout import ECAPA
from accent.model import Calibration, LoadedModel
from accent.openvino_runtime import openvino
from accent.selection import EngineSettings, open_engine, packed_engines

from aurea.archive import engines
from aurea.archive.engines import engines_document, engines_to_pack, pack_engines, warnings
from aurea.archive.graph import build_graph
from aurea.archive.graph_files import graph_files, variants_of
from aurea.archive.judging import Judgement, judge
from aurea.archive.reference import SpeechClip
from aurea.lab.calibration.model_folder import write_calibration
from aurea.models.choice import EMBEDDED_ECAPA as EMBEDDED
from tests.unit.archive.judged import BF16, FP32, INT8, STRAYING_INT8, TORCH, judgement_of


def packed_names(judgement: Judgement, **settings: Any) -> list[str]:
    return [engine.packed.name for engine in engines_to_pack(judgement, EngineSettings(**settings))]


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
    document = json.loads(engines_document(judgement, packed, tmp_path).model_dump_json())
    assert document["auto"] == {
        "int8 and bf16 instructions": "openvino bf16",
        "int8 instructions": "openvino fp32",
        "bf16 instructions": "openvino bf16",
        "neither": "openvino fp32",
        "a GPU": "torch fp16, measured at its start",
    }
    assert document["bounds_points"] == {"p99": 1.0, "max": 3.0}
    assert document["engines"][0]["size_bytes"] == 7
    assert document["engines"][0]["deviation_points"] == {"p50": 0.1, "p99": 0.5, "max": 0.9}
    assert [entry["precision"] for entry in document["not_packed"]] == ["int8"]
    assert document["not_packed"][0]["graph"] is None


def test_what_was_not_timed_says_nothing_of_times(tmp_path: Path) -> None:
    for name in ("int8.xml", "int8.bin", "float.xml", "float.bin"):
        (tmp_path / name).write_bytes(b"graph")
    judgement = judgement_of(*(replace(each, pass_s=None) for each in (INT8, BF16, FP32, TORCH)))
    packed = engines_to_pack(judgement, EngineSettings())
    document = engines_document(judgement, packed, tmp_path)
    assert [each.precision for each in document.engines] == ["int8", "bf16", "fp32", "fp32"]
    for each in (*document.engines, *document.not_packed):
        assert each.milliseconds_for_5_s is None
    assert document.auto["int8 instructions"] == "openvino int8"
    assert document.auto["neither"] == "openvino fp32"


# The rest packs the model that ships, its graphs made and judged once.


@pytest.fixture(scope="module")
def judgement(
    embedded: EcapaModel, graphs: dict[Precision, Path], carried_clips: list[SpeechClip]
) -> Judgement:
    return judge(embedded, graphs, carried_clips)


def give(
    patch: pytest.MonkeyPatch, graphs: dict[Precision, Path], judgement: Judgement | None
) -> None:
    """Let packaging find graphs, and a judgement of them, where it would make them."""

    def copied(_: LoadedModel, folder: Path) -> dict[Precision, Path]:
        for graph in set(graphs.values()):
            for variant in variants_of(graph):
                for file in graph_files(variant):
                    shutil.copyfile(file, folder / file.name)
        return {precision: folder / graph.name for precision, graph in graphs.items()}

    patch.setattr(engines, "make_graphs", copied)
    if judgement is not None:
        patch.setattr(engines, "judge", lambda *_, **__: judgement)


def with_model(folder: Path) -> Path:
    """The folder with what packaging copies into it first: the files of the model that ships."""
    folder.mkdir(exist_ok=True)
    for name in ECAPA.files:
        shutil.copyfile(EMBEDDED / name, folder / name)
    # As the fixture `embedded` has it.
    write_calibration(folder, Calibration(20.0))
    return folder


@pytest.fixture(scope="module")
def packed_folder(
    embedded: EcapaModel,
    graphs: dict[Precision, Path],
    judgement: Judgement,
    tmp_path_factory: pytest.TempPathFactory,
    little_speech: None,  # noqa: ARG001
) -> Path:
    """An unpacked archive's folder of the model that ships."""
    folder = with_model(tmp_path_factory.mktemp("packed"))
    with pytest.MonkeyPatch.context() as patch:
        give(patch, graphs, judgement)
        pack_engines(EMBEDDED, embedded, folder, EngineSettings())
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("little_speech")
def test_a_damaged_precision_is_found_out_left_out_and_warned_of(
    embedded: EcapaModel,
    graphs: dict[Precision, Path],
    carried_clips: list[SpeechClip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In place of int8, fp32 whose first product has lost half of its weights.
    broken = load_model(EMBEDDED)
    for parameter in list(broken.network.embedding_model.blocks[1].parameters())[:1]:
        parameter[: len(parameter) // 2] = 0
    openvino.save_model(
        build_graph(broken, "fp32", []), tmp_path / "accent-int8.xml", compress_to_fp16=False
    )
    damaged: dict[Precision, Path] = graphs | {"int8": tmp_path / "accent-int8.xml"}
    give(monkeypatch, damaged, judge(embedded, damaged, carried_clips))
    auto, named = with_model(tmp_path / "auto"), with_model(tmp_path / "named")

    report = pack_engines(EMBEDDED, embedded, auto, EngineSettings())
    assert "beyond the bounds" in report
    assert "WARNING" not in report
    assert not (auto / "accent-int8.xml").exists()
    assert all(engine.precision != "int8" for engine in packed_engines(auto))

    report = pack_engines(EMBEDDED, embedded, named, EngineSettings(precision="int8"))
    assert "WARNING: openvino int8 strays" in report
    assert (named / "accent-int8.xml").exists()
    first = packed_engines(named)[0]
    assert (first.precision, first.within_bounds) == ("int8", False)


@pytest.mark.slow
@pytest.mark.usefixtures("little_speech")
def test_torch_alone_needs_no_graph(
    embedded: EcapaModel,
    graphs: dict[Precision, Path],
    judgement: Judgement,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(monkeypatch, graphs, judgement)
    pack_engines(EMBEDDED, embedded, with_model(tmp_path), EngineSettings(engine="torch"))
    assert not any(path.suffix in {".xml", ".bin"} for path in tmp_path.iterdir())
    assert [engine.name for engine in packed_engines(tmp_path)] == ["torch fp32"]


@pytest.mark.slow
def test_a_worker_reproduces_the_reference_clips_of_its_archive(packed_folder: Path) -> None:
    document = json.loads((packed_folder / "reference.json").read_text())
    assert len(document["clips"]) == 4
    assert any("us" in clip["file"] for clip in document["clips"])

    for packed in packed_engines(packed_folder):
        if packed.precision not in hardware_precisions():
            continue
        opened = open_engine(packed_folder, EngineSettings(packed.engine, packed.precision))
        classifier = AccentClassifier(opened.model, opened.engine, name="m", version="1")
        for clip in document["clips"]:
            (answer,) = classifier.classify([(packed_folder / clip["file"]).read_bytes()])
            assert answer.status == 200, answer.document
            assert answer.document["us_confidence"] == pytest.approx(
                clip["us_confidence"][packed.precision],
                abs=document["tolerance_points"][packed.precision],
            )
            assert answer.document["accents"][0]["label"] == clip["top_accent"]
    fp32 = [clip["us_confidence"]["fp32"] for clip in document["clips"]]
    assert max(fp32) - min(fp32) > 10 * document["tolerance_points"]["fp32"]


@pytest.mark.slow
def test_the_archives_card_goes_on_from_the_models(packed_folder: Path) -> None:
    before = (EMBEDDED / "README.md").read_text().rstrip()
    packed = (packed_folder / "README.md").read_text()
    assert packed.startswith(before)
    assert "## How exactly it is computed" in packed.removeprefix(before)


@pytest.mark.slow
@pytest.mark.usefixtures("little_speech")
def test_a_model_without_a_card_gets_one(
    embedded: EcapaModel,
    graphs: dict[Precision, Path],
    judgement: Judgement,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(monkeypatch, graphs, judgement)
    pack_engines(tmp_path / "bare", embedded, tmp_path, EngineSettings())
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("# An accent model\n\n## How exactly it is computed\n")
