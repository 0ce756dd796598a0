"""A wav2vec 2.0 model as an archive: its graphs, packaged, vetted, unpacked and opened."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from accent.cores import CoreShare
from accent.engine import Engine, EngineError, Precision, WindowScores
from accent.errors import ModelFolderError
from accent.layout import HYPERPARAMS_FILE, WAV2VEC2, WAV2VEC2_LABELS_FILE
from accent.model import Calibration
from accent.openvino_runtime import openvino, ops
from accent.selection import EngineSettings, open_engine
from accent.settings import WorkerSettings, open_classifier
from accent.wav2vec2 import compiled, opening
from accent.wav2vec2.compiled import CompiledWav2Vec2, normalised
from accent.wav2vec2.loading import Wav2Vec2Model, load_model
from accent.wav2vec2.specification import read_spec
from accent.wav2vec2.torch_engine import Wav2Vec2Engine

from aurea.archive.build import Archive, package
from aurea.archive.graph_files import make_graphs
from aurea.archive.vetting import archive_labels, vet
from aurea.archive.wav2vec2_graph import quantize_wav2vec2
from aurea.lab.calibration.model_folder import write_calibration
from aurea.lab.evaluation.model_facts import model_facts
from tests.clips import voice

LABELS = ("england", "us", "canada")


@pytest.fixture(scope="module")
def folder(wav2vec2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a temperature of its own."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(wav2vec2_folder, folder)
    write_calibration(folder, Calibration(0.5, 1.25))
    return folder


@pytest.fixture(scope="module")
def built(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    little_speech: None,  # noqa: ARG001
) -> Archive:
    return package(folder, name="xlsr", version="1.0", store=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def unpacked(built: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built.path) as content:
        content.extractall(folder)
    return folder


def logits(engine: Engine) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    clips = [voice(each, seed=seed).astype(np.float32) for seed, each in enumerate((0.5, 1, 2))]
    scores = engine.score(clips)
    found = [score.evidence for score in scores if isinstance(score, WindowScores)]
    assert len(found) == len(clips), scores
    return np.stack(found)


def test_a_temperature_is_set_in_the_description_and_nothing_else(
    folder: Path, wav2vec2_folder: Path
) -> None:
    spec = read_spec(folder / HYPERPARAMS_FILE)
    assert (spec.softmax_scale, spec.us_bias) == (0.5, 1.25)
    for name in WAV2VEC2.files:
        same = (folder / name).read_bytes() == (wav2vec2_folder / name).read_bytes()
        assert same is (name != HYPERPARAMS_FILE)


def test_a_model_is_known_to_the_lab(folder: Path) -> None:
    facts = model_facts(folder)
    assert (facts.labels, facts.calibration) == (LABELS, Calibration(0.5, 1.25))


@pytest.mark.slow
def test_the_archive_holds_the_model_and_a_graph_where_it_is_within_bounds(
    built: Archive, unpacked: Path, folder: Path
) -> None:
    for name in WAV2VEC2.files:
        assert (unpacked / name).read_bytes() == (folder / name).read_bytes()
    document = json.loads((unpacked / "engines.json").read_text())
    found = document["engines"] + document["not_packed"]
    measured = {f"{each['engine']} {each['precision']}" for each in found}
    assert {"torch fp32", "openvino int8"} <= measured
    assert "openvino fp32" not in measured, "torch computes that from the checkpoint"
    assert document["auto"]["a GPU"] == "torch fp16, not measured"
    assert document["measured"]["softmax_scale"] == 0.5
    assert all(
        (unpacked / each["graph"]).is_file() for each in document["engines"] if each["graph"]
    )
    with zipfile.ZipFile(built.path) as content:
        assert {each.compress_type for each in content.infolist()} == {zipfile.ZIP_STORED}
    assert not package(folder, name="xlsr", version="1.0", store=built.path.parent).rebuilt


@pytest.mark.slow
def test_the_archive_can_be_registered_beside_others(built: Archive, tmp_path: Path) -> None:
    assert archive_labels(built.path) == LABELS
    found = vet(built.path, tmp_path / "copy.mar", served_name="xlsr", served_labels=LABELS)
    assert found.labels == LABELS
    assert found.reference is not None


@pytest.mark.slow
def test_a_worker_reproduces_the_reference_clips_of_the_archive(unpacked: Path) -> None:
    document = json.loads((unpacked / "reference.json").read_text())
    settings = WorkerSettings.from_entries({"engine": "torch"})
    opened = open_classifier(unpacked, settings, name="xlsr", version="1.0", cores=CoreShare(1))
    for clip in document["clips"]:
        (answer,) = opened.classifier.classify([(unpacked / clip["file"]).read_bytes()])
        assert answer.status == 200, answer.document
        assert answer.document["us_confidence"] == pytest.approx(
            clip["us_confidence"]["fp32"], abs=0.06
        )
        assert answer.document["accents"][0]["label"] == clip["top_accent"]
        assert answer.document["model"] == {"name": "xlsr", "version": "1.0", "kind": "wav2vec2"}
    points = [clip["us_confidence"]["fp32"] for clip in document["clips"]]
    assert max(points) - min(points) > 0.3, "the stand-in tells clips apart"


@pytest.fixture(scope="module")
def graphs(
    wav2vec2_model: Wav2Vec2Model,
    tmp_path_factory: pytest.TempPathFactory,
    little_speech: None,  # noqa: ARG001
) -> dict[Precision, Path]:
    return make_graphs(wav2vec2_model, tmp_path_factory.mktemp("graphs"))


@pytest.mark.slow
def test_int8_strays_a_little_from_torch_and_keeps_its_order(
    wav2vec2_model: Wav2Vec2Model, graphs: dict[Precision, Path]
) -> None:
    assert set(graphs) == {"bf16", "int8"}
    engine = CompiledWav2Vec2(graphs["int8"], "int8", CoreShare(1))
    exact = logits(wav2vec2_model.reference_engine())
    found = logits(engine)
    assert 0 < np.abs(found - exact).max() < 0.3
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).all()
    weights = {path.name: path.stat().st_size for path in graphs["int8"].parent.glob("*.bin")}
    assert weights["accent-bf16.bin"] < 0.6 * 4 * sum(
        weight.numel() for weight in wav2vec2_model.network.parameters()
    )


@pytest.mark.slow
def test_a_graph_that_was_opened_holds_none_of_its_file(
    graphs: dict[Precision, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full width the file is 0.6 GB, beside the same weights laid out for the processor."""
    with monkeypatch.context() as patched:
        patched.setattr(compiled, "forget_pages", lambda _: None)
        expected = logits(CompiledWav2Vec2(graphs["int8"], "int8", CoreShare(1)))
    engine = CompiledWav2Vec2(graphs["int8"], "int8", CoreShare(1))
    file = str(graphs["int8"].with_suffix(".bin"))
    maps = psutil.Process().memory_maps(grouped=False)
    held_bytes = [each.rss for each in maps if each.path == file]
    assert held_bytes
    assert not any(held_bytes)
    np.testing.assert_array_equal(logits(engine), expected)


def test_int8_needs_speech() -> None:
    parameter = ops.parameter([1, -1])
    graph = openvino.Model([ops.result(parameter)], [parameter])
    with pytest.raises(ValueError, match="int8 needs calibration"):
        quantize_wav2vec2(graph, ())


def test_a_window_that_is_not_finite_is_not_scored_by_a_graph() -> None:
    engine = object.__new__(CompiledWav2Vec2)
    (failed,) = engine.score([np.full(8_000, np.nan, np.float32)])
    assert isinstance(failed, FloatingPointError)
    (failed,) = engine.score([np.zeros(0, np.float32)])
    assert isinstance(failed, ValueError)


def test_the_two_norms_of_a_waveform_agree(wav2vec2_model: Wav2Vec2Model) -> None:
    clip = voice(1.0).astype(np.float32)
    expected = wav2vec2_model.network.normalised(torch.from_numpy(clip)[None])[0].numpy()
    np.testing.assert_allclose(normalised(clip), expected, atol=1e-5)


# What opens


def test_a_folder_without_graphs_is_computed_by_torch(folder: Path) -> None:
    opened = open_engine(folder)
    assert (opened.name, opened.precision, opened.model.kind) == ("torch", "fp32", "wav2vec2")
    with pytest.raises(EngineError, match="There is torch fp32"):
        open_engine(folder, EngineSettings(engine="openvino"))


def test_a_gpu_computes_in_fp16_unless_told_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class OnGpu(Wav2Vec2Engine):
        def __init__(self, network: object, device: str, windows: object, precision: str) -> None:  # noqa: ARG002
            made.append((device, precision))

    monkeypatch.setattr(opening, "Wav2Vec2Engine", OnGpu)
    assert open_engine(folder, device="cuda:1").precision == "fp16"
    assert open_engine(folder, EngineSettings(precision="fp32"), device="cuda").precision == "fp32"
    assert made == [("cuda:1", "fp16"), ("cuda", "fp32")]
    with pytest.raises(EngineError, match="the setting precision is int8"):
        open_engine(folder, EngineSettings(precision="int8"), device="cuda")


def test_a_graph_that_is_missing_is_a_reason(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "model")
    entry = {"engine": "openvino", "precision": "fp32", "graph": "a.xml", "within_bounds": True}
    (broken / "engines.json").write_text(json.dumps({"engines": [entry]}))
    with pytest.raises(EngineError, match=r"the graph a\.xml is missing"):
        open_engine(broken, EngineSettings(engine="openvino"))
    (broken / WAV2VEC2_LABELS_FILE).write_text("'us' => 0\n")
    with pytest.raises(ModelFolderError, match="has 1 labels, the model has 3 outputs"):
        load_model(broken)
