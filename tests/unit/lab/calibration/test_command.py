"""`make calibrate`: the model that it writes, the record that it leaves, what it never touches."""

import csv
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accent.ecapa.loading import load_model
from accent.ecapa.specification import read_spec
from accent.layout import ECAPA, HYPERPARAMS_FILE
from accent.model import Calibration

from aurea.archive.build import inputs_digest, package
from aurea.archive.layout import CALIBRATION_FILE
from aurea.lab.calibration import command
from aurea.lab.corpus import Clip
from aurea.lab.evaluation import engine
from aurea.lab.evaluation.answer_log import RESULTS_FILE
from aurea.lab.evaluation.engine import evaluate_clips
from aurea.lab.reporting.calibration_report import PAGE_FILE
from tests.clips import encode, voice
from tests.models import write_stand_in
from tests.results import LABELS
from tests.stand_ins import pool_of_threads


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    """Start no processes: torch is here already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "process_pool", pool_of_threads)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stand_in(tmp_path_factory.mktemp("stand-in") / "model", softmax_scale=30.0)


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech whose accents are what the stand-in hears in it, but for some mistakes."""
    home = tmp_path_factory.mktemp("speech")
    clips: list[Clip] = []
    for seed in range(24):
        path = home / f"{seed}.flac"
        path.write_bytes(encode(voice(1.0 + 0.1 * seed, seed=seed), 16_000, "flac"))
        clips.append(Clip(path, "us", f"{seed}", "recorded", ""))
    results = evaluate_clips(folder, clips, jobs=1)
    evidence = np.array([result.evidence for result in results])
    # Untrained weights hear one accent in everything; its mean taken off, they hear three.
    heard = (evidence - evidence.mean(axis=0)).argmax(axis=1)
    table = home / "clips.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "accent", "speaker"])
        for seed, label in enumerate(heard.tolist()):
            writer.writerow([f"{seed}.flac", LABELS[label], f"p{seed}"])
    return table


@pytest.fixture(scope="module")
def calibrated(folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into, out = (tmp_path_factory.mktemp(name) for name in ("into", "out"))
    options = ["--model", str(folder), "--data", str(data), "--into", str(into / "copy")]
    assert command.main([*options, "--out", str(out), "--jobs", "1"]) == 0
    assert "var(--first)" in (out / PAGE_FILE).read_text()
    assert (out / RESULTS_FILE).exists()
    return into / "copy"


@pytest.mark.slow
def test_a_calibrated_copy_loads_and_differs_in_its_calibration_and_record_alone(
    folder: Path, calibrated: Path
) -> None:
    assert {path.name for path in calibrated.iterdir()} == {*ECAPA.files, CALIBRATION_FILE}
    for name in ECAPA.files:
        same = (folder / name).read_bytes() == (calibrated / name).read_bytes()
        assert same == (name != HYPERPARAMS_FILE)
    before, after = load_model(folder), load_model(calibrated)
    assert after.spec.softmax_scale != 30.0
    assert replace(after.spec, softmax_scale=30.0, us_bias=0.0) == before.spec


@pytest.mark.slow
def test_the_record_says_what_the_calibration_rests_on(calibrated: Path) -> None:
    text = (calibrated / CALIBRATION_FILE).read_text()
    told = json.loads(text, parse_constant=pytest.fail)
    written = Calibration(told["softmax_scale"], told["us_bias"])
    assert written == load_model(calibrated).calibration
    assert told["before"]["calibration"] == {"scale": 30.0, "us_bias": 0.0}
    gain = told["before"]["surprise"] - told["after"]["surprise"]
    assert gain > 0
    assert told["fitted_on"]["clips"] + told["judged_on"]["clips"] == 24
    assert told["data"] == ["clips.csv"]
    assert str(calibrated.parent) not in text


@pytest.mark.slow
def test_an_archive_is_another_when_its_evidence_changes(calibrated: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(calibrated, bare)
    same = inputs_digest(bare, "calibrated", "1.0")
    assert same == inputs_digest(calibrated, "calibrated", "1.0")
    (bare / CALIBRATION_FILE).write_text("{}")
    assert inputs_digest(bare, "calibrated", "1.0") != same


@pytest.mark.long
def test_packaging_takes_the_evidence_along(calibrated: Path, tmp_path: Path) -> None:
    archive = package(calibrated, name="calibrated", version="1.0", store=tmp_path)
    with zipfile.ZipFile(archive.path) as content:
        assert content.read(CALIBRATION_FILE) == (calibrated / CALIBRATION_FILE).read_bytes()


@pytest.mark.slow
def test_a_dry_run_shows_and_writes_to_no_model(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {path.name: path.read_bytes() for path in folder.iterdir()}
    options = ["--model", str(folder), "--data", str(data), "--out", str(tmp_path)]
    assert command.main([*options, "--jobs", "1", "--dry-run"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == state
    assert "surprise, even" in capsys.readouterr().out
    assert (tmp_path / PAGE_FILE).exists()


def test_the_pretrained_model_in_its_cache_is_not_written_to(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "cache" / "commonaccent"
    shutil.copytree(folder, cached)
    monkeypatch.setattr(command, "DEFAULT_CACHE", tmp_path / "cache")
    with pytest.raises(SystemExit, match=r"pinned by their hashes.*INTO=folder"):
        command.main(["--model", str(cached), "--data", "any", "--out", str(tmp_path)])
    assert read_spec(cached / HYPERPARAMS_FILE).softmax_scale == 30.0


def test_a_copy_never_overwrites_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    options = ["--model", str(folder), "--data", "any", "--into", str(tmp_path)]
    with pytest.raises(SystemExit, match="name a new folder"):
        command.main(options)


def test_data_and_model_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    for options, complaint in (
        (["--model", "embedded", "--data", " "], "DATA is needed"),
        (["--data", "x"], "required: --model"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main(options)
        assert ended.value.code == 2
        assert complaint in capsys.readouterr().err
