"""A speech encoder with a probe as an archive: packaged, vetted, unpacked and opened."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accent.cores import CoreShare
from accent.ecapa.compiled import hardware_precisions
from accent.ecapa.torch_engine import TORCH
from accent.engine import EngineError, WindowScores
from accent.layout import ENCODER_FILE, PROBE, PROBE_FILE
from accent.model import Calibration
from accent.probe.loading import ProbeModel
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
def test_the_archive_holds_the_model_as_it_is(built: Archive, unpacked: Path, folder: Path) -> None:
    for name in PROBE.files:
        assert (unpacked / name).read_bytes() == (folder / name).read_bytes()
    assert built.rebuilt
    assert not package(folder, name="probed", version="1.0", store=built.path.parent).rebuilt


@pytest.mark.slow
def test_the_archive_offers_the_encoder_in_floats(unpacked: Path, built: Archive) -> None:
    document = json.loads((unpacked / "engines.json").read_text())
    entries = {f"{each['engine']} {each['precision']}": each for each in document["engines"]}
    assert list(entries)[-1] == "torch fp32"
    for name, entry in entries.items():
        assert entry["within_bounds"], name
        assert entry["milliseconds_for_5_s"] > 0
        assert (unpacked / (entry["graph"] or "engines.json")).is_file()
    judged = [*document["engines"], *document["not_packed"]]
    for entry in judged:
        if entry["precision"] == "fp32":
            assert entry["deviation_points"]["max"] < 0.01
    # A pass of each was timed but once.
    assert document["auto"]["neither"] in ("openvino fp32", "torch fp32")
    assert document["auto"]["a GPU"] == "none: it is computed on the CPU"
    if "bf16" in hardware_precisions():
        assert "bf16" in {each["precision"] for each in judged}
    measured = document["measured"]
    assert (measured["softmax_scale"], measured["us_bias"]) == (0.5, 1.25)
    assert packed_engines(unpacked)[-1] == TORCH
    assert "WARNING" not in built.report
    card = (unpacked / "README.md").read_text()
    assert "Deviation of `us_confidence` from torch fp32" in card
    assert "scale 0.5, US bias 1.25" in card


@pytest.mark.slow
def test_a_worker_reproduces_the_reference_clips_of_the_archive(unpacked: Path) -> None:
    document = json.loads((unpacked / "reference.json").read_text())
    assert document["tolerance_points"]["fp32"] == 0.2
    assert len(document["clips"]) == 4
    settings = WorkerSettings(engine=EngineSettings(precision="fp32"))
    opened = open_classifier(unpacked, settings, name="probed", version="1.0", cores=CoreShare(1))
    for clip in document["clips"]:
        (answer,) = opened.classifier.classify([(unpacked / clip["file"]).read_bytes()])
        assert answer.status == 200, answer.document
        assert answer.document["us_confidence"] == pytest.approx(
            clip["us_confidence"]["fp32"], abs=0.06
        )
        assert answer.document["accents"][0]["label"] == clip["top_accent"]
    points = [clip["us_confidence"]["fp32"] for clip in document["clips"]]
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
    opened = open_engine(unpacked, EngineSettings(precision="fp32"), device=device)
    assert (opened.name, opened.precision) in (("openvino", "fp32"), ("torch", "fp32"))
    assert opened.model.calibration == Calibration(0.5, 1.25)
    in_torch = open_engine(folder, device=device)
    assert (in_torch.name, in_torch.precision) == ("torch", "fp32")
    np.testing.assert_allclose(scores_of(opened), scores_of(in_torch), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(precision="int8"),
        EngineSettings("onnxruntime"),
        EngineSettings("torch", "bf16"),
    ],
)
def test_what_is_not_there_cannot_be_had_by_name(
    settings: EngineSettings, unpacked: Path, folder: Path
) -> None:
    asked = f"engine {settings.engine}, precision {settings.precision}"
    for each in (unpacked, folder):
        with pytest.raises(EngineError, match=rf"{asked}\. There is .*torch fp32\."):
            open_engine(each, settings)


@pytest.mark.slow
@pytest.mark.usefixtures("little_speech")
def test_the_encoder_as_published_is_packed_where_it_is_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    archive = package(folder, name="probed", version="1.0", precision="int8", store=tmp_path)
    assert "onnxruntime int8" in archive.report
    with zipfile.ZipFile(archive.path) as content:
        content.extractall(tmp_path / "unpacked")
    opened = open_engine(tmp_path / "unpacked", EngineSettings(precision="int8"))
    assert (opened.name, opened.precision) == ("onnxruntime", "int8")


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
