"""A speech encoder with a probe as an archive: packaged, vetted, unpacked and opened."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accent.bounds import MAX_POINTS
from accent.cores import CoreShare
from accent.engine import EngineError, WindowScores
from accent.layout import ENCODER_FILE, PROBE, PROBE_FILE
from accent.model import Calibration
from accent.probe.loading import REFERENCE, ProbeModel
from accent.selection import EngineSettings, OpenedEngine, open_engine, packed_engines
from accent.settings import WorkerSettings, open_classifier

from aurea.archive.build import Archive, PackagingError, package
from aurea.archive.judging import Deviations, deviations_of
from aurea.archive.vetting import archive_reference, vet
from aurea.files import sha256_of
from aurea.lab.calibration.model_folder import write_calibration
from tests.clips import voice

LABELS = ("us", "native", "learner")


@pytest.fixture(scope="module")
def folder(probe_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe with a calibration of its own."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(probe_folder, folder)
    write_calibration(folder, Calibration(0.5, 1.25))
    return folder


@pytest.fixture(scope="module")
def built(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    little_speech: None,  # noqa: ARG001
) -> Archive:
    return package(folder, name="probed", version="1.0", store=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def unpacked(built: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built.path) as content:
        content.extractall(folder)
    return folder


def scores_of(opened: OpenedEngine) -> list[list[float]]:
    windows = [voice(each, seed=seed).astype(np.float32) for seed, each in enumerate((0.5, 1, 2))]
    scores = opened.engine.score(windows)
    found = [score for score in scores if isinstance(score, WindowScores)]
    assert len(found) == len(windows), scores
    return [score.evidence.tolist() for score in found]


@pytest.mark.slow
def test_the_archive_holds_the_model_as_it_is_and_no_graph(
    built: Archive, unpacked: Path, folder: Path
) -> None:
    for name in PROBE.files:
        assert (unpacked / name).read_bytes() == (folder / name).read_bytes()
    assert not [path for path in unpacked.iterdir() if path.suffix in {".xml", ".bin"}]
    assert built.rebuilt
    assert not package(folder, name="probed", version="1.0", store=built.path.parent).rebuilt


@pytest.mark.slow
def test_the_archive_offers_the_encoder_alone(unpacked: Path, built: Archive) -> None:
    document = json.loads((unpacked / "engines.json").read_text())
    (entry,) = document["engines"]
    assert entry.pop("milliseconds_for_5_s") > 0
    assert entry == {
        "engine": "onnxruntime",
        "precision": "int8",
        "graph": ENCODER_FILE,
        "size_bytes": 0,
        "within_bounds": True,
        "deviation_points": {"p50": 0.0, "p99": 0.0, "max": 0.0},
        "top_accent_agreement": 1.0,
    }
    assert document["not_packed"] == []
    assert document["auto"] == {"any processor": "onnxruntime int8"}
    measured = document["measured"]
    assert (measured["softmax_scale"], measured["us_bias"]) == (0.5, 1.25)
    assert packed_engines(unpacked) == [REFERENCE]
    assert "onnxruntime int8" in built.report
    assert "WARNING" not in built.report
    card = (unpacked / "README.md").read_text()
    assert "By onnxruntime int8 alone" in card
    assert "Scale 0.5, US bias 1.25." in card


@pytest.mark.slow
def test_a_worker_reproduces_the_reference_clips_of_the_archive(unpacked: Path) -> None:
    document = json.loads((unpacked / "reference.json").read_text())
    assert document["tolerance_points"] == {"fp32": 0.2, "int8": MAX_POINTS}
    assert len(document["clips"]) == 4
    opened = open_classifier(
        unpacked, WorkerSettings(), name="probed", version="1.0", cores=CoreShare(1)
    )
    for clip in document["clips"]:
        (answer,) = opened.classifier.classify([(unpacked / clip["file"]).read_bytes()])
        assert answer.status == 200, answer.document
        assert list(clip["us_confidence"]) == ["int8"]
        assert answer.document["us_confidence"] == pytest.approx(
            clip["us_confidence"]["int8"], abs=0.051
        )
        assert answer.document["accents"][0]["label"] == clip["top_accent"]
    points = [clip["us_confidence"]["int8"] for clip in document["clips"]]
    assert max(points) - min(points) > 1, "the stand-in tells clips apart"


@pytest.mark.slow
def test_the_archive_is_vetted_without_a_reservation(built: Archive, tmp_path: Path) -> None:
    found = vet(built.path, tmp_path / "copy.mar", served_name="probed", served_labels=LABELS)
    assert found.sha256 == sha256_of(built.path)
    assert (found.name, found.version, found.labels) == ("probed", "1.0", LABELS)
    assert found.strange_code == ()
    assert found.reference is not None
    assert archive_reference(built.path) == (found.reference, found.clip(found.reference.clips[0]))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_what_is_opened_of_the_archive_scores_as_the_folder(
    device: str, unpacked: Path, folder: Path
) -> None:
    opened = open_engine(unpacked, device=device)
    assert (opened.name, opened.precision) == ("onnxruntime", "int8")
    assert opened.model.calibration == Calibration(0.5, 1.25)
    assert scores_of(opened) == scores_of(open_engine(folder))
    by_name = open_engine(unpacked, EngineSettings("onnxruntime", "int8"))
    assert scores_of(by_name) == scores_of(opened)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(precision="fp32"),
        EngineSettings(precision="bf16"),
        EngineSettings(engine="torch"),
        EngineSettings(engine="openvino"),
        EngineSettings("onnxruntime", "fp32"),
    ],
)
def test_what_is_not_there_cannot_be_had_by_name(
    settings: EngineSettings, unpacked: Path, folder: Path
) -> None:
    asked = f"engine {settings.engine}, precision {settings.precision}"
    for each in (unpacked, folder):
        with pytest.raises(EngineError, match=rf"{asked}\. There is onnxruntime int8\."):
            open_engine(each, settings)


@pytest.mark.slow
@pytest.mark.usefixtures("little_speech")
def test_who_asks_for_another_precision_is_warned_while_packaging(
    folder: Path, tmp_path: Path
) -> None:
    archive = package(folder, name="probed", version="1.0", precision="fp32", store=tmp_path)
    assert "WARNING: fp32 could not be made" in archive.report


def test_a_probe_that_cannot_be_served_is_refused(probe_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(probe_folder, tmp_path / "model"))
    text = (folder / PROBE_FILE).read_text()
    (folder / PROBE_FILE).write_text(text.replace('"level_rms": 0.05', '"level_rms": 5'))
    with pytest.raises(PackagingError, match="level_rms must be"):
        package(folder, name="probed", version="1.0", store=tmp_path)
    (folder / PROBE_FILE).write_text(text)
    (folder / ENCODER_FILE).write_bytes(b"another encoder")
    with pytest.raises(PackagingError, match=f"{ENCODER_FILE} is not the encoder"):
        package(folder, name="probed", version="1.0", store=tmp_path)
    (folder / ENCODER_FILE).unlink()
    with pytest.raises(PackagingError, match=ENCODER_FILE):
        package(folder, name="probed", version="1.0", store=tmp_path)
    assert not (tmp_path / "probed.mar").exists()


def test_deviations_are_of_the_model_s_own_calibration(probe_model: ProbeModel) -> None:
    flat = replace(probe_model, calibration=Calibration(1e-3, 0.0))
    expected, found = np.zeros((2, 3)), np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert deviations_of(flat, expected, found).max < 0.1
    assert deviations_of(probe_model, expected, found).max > 20
    assert deviations_of(probe_model, found, found) == Deviations(0.0, 0.0, 0.0, 1.0)
