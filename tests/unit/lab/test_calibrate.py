"""`make calibrate`: the scale it finds, the one line it changes, and the evidence it leaves."""

import csv
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from accent.layout import HYPERPARAMS_FILE, MODEL_FILES
from accent.loading import load_model
from accent.scoring import posterior
from accent.specification import read_spec

from aurea.archive.build import inputs_digest, package
from aurea.archive.layout import CALIBRATION_FILE
from aurea.lab import calibrate
from aurea.lab.corpus import Clip
from aurea.lab.evaluate import RESULTS_FILE, evaluate_clips
from tests.clips import encode, voice
from tests.models import write_stand_in
from tests.results import LABELS, answers


def test_the_scale_behind_the_answers_is_found_and_believed_more() -> None:
    for true_scale in (5.0, 20.0):
        results = answers(80, 10, true_scale=true_scale)
        evidence = calibrate.fit(results, LABELS, 12.0, seed=0)
        assert evidence.after.softmax_scale == pytest.approx(true_scale, rel=0.12)
        assert evidence.before.softmax_scale == 12.0
        assert evidence.improves
        assert evidence.after.negative_log_likelihood < evidence.before.negative_log_likelihood
        assert (
            evidence.after.expected_calibration_error < evidence.before.expected_calibration_error
        )
        assert evidence.after.brier < evidence.before.brier


def test_a_scale_that_is_right_already_is_not_improved_by_much() -> None:
    evidence = calibrate.fit(answers(80, 10), LABELS, 12.0, seed=0)
    gained = evidence.before.negative_log_likelihood - evidence.after.negative_log_likelihood
    assert abs(gained) < 0.01


def test_a_scale_changes_no_clip_s_order_of_accents() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (500, 7))
    orders = [np.argsort(posterior(cosines, scale), axis=1) for scale in (1.0, 12.0, 30.0)]
    assert (orders[0] == orders[1]).all()
    assert (orders[1] == orders[2]).all()


def test_no_speaker_is_fitted_and_judged_and_the_seed_says_who_is_which() -> None:
    results = answers(9, 4)
    scales = set()
    for seed in range(4):
        evidence = calibrate.fit(results, LABELS, 12.0, seed)
        assert evidence.fitted_on.speakers + evidence.judged_on.speakers == 27
        assert evidence.fitted_on.clips + evidence.judged_on.clips == 108
        assert {evidence.fitted_on.us_speakers, evidence.judged_on.us_speakers} == {4, 5}
        scales.add(evidence.after.softmax_scale)
    assert len(scales) > 1


def test_clips_that_cannot_tell_are_left_out() -> None:
    results = answers(8, 2)
    stranger = replace(results[0].clip, accent="wales", speaker="w")
    more = [
        replace(results[0], clip=stranger),
        replace(results[1], us_score=None, cosines=None, refusal="no_speech"),
    ]
    evidence = calibrate.fit(results[2:] + more, LABELS, 12.0, seed=0)
    assert evidence.fitted_on.clips + evidence.judged_on.clips == len(results) - 2


def test_too_few_speakers_are_refused_in_a_sentence() -> None:
    results = [r for r in answers(3, 2) if r.clip.speaker not in ("us1", "us2")]
    with pytest.raises(SystemExit, match="Too few speakers"):
        calibrate.fit(results, LABELS, 12.0, seed=0)


@pytest.mark.parametrize("start", ["", "# A comment.\n", "%YAML 1.1\n---\n", "---\n# hub\n"])
def test_a_missing_entry_is_added_at_the_top(tmp_path: Path, start: str) -> None:
    folder = write_stand_in(tmp_path / "model")
    path = folder / HYPERPARAMS_FILE
    path.write_text(start + path.read_text())
    before, spec = path.read_text(), read_spec(path)
    calibrate.write_scale(folder, 7.25)
    after = path.read_text()
    assert after.replace("softmax_scale: 7.25\n", "", 1) == before
    assert read_spec(path) == replace(spec, softmax_scale=7.25)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_an_entry_that_is_there_is_the_only_line_that_changes(
    tmp_path: Path, line_end: str
) -> None:
    folder = write_stand_in(tmp_path / "model", softmax_scale=30.0)
    path = folder / HYPERPARAMS_FILE
    path.write_bytes(path.read_text().replace("\n", line_end).encode())
    before = path.read_bytes().split(b"\n")
    calibrate.write_scale(folder, 11.5)
    after = path.read_bytes().split(b"\n")
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert [new.strip() for _, new in changed] == [b"softmax_scale: 11.5"]
    assert list(folder.glob("*.part*")) == []
    assert load_model(folder).spec.softmax_scale == 11.5


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
    cosines = np.array([result.cosines for result in results])
    # Untrained weights hear one accent in everything; its mean taken off, they hear three.
    heard = (cosines - cosines.mean(axis=0)).argmax(axis=1)
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
    command = ["--model", str(folder), "--data", str(data), "--into", str(into / "copy")]
    assert calibrate.main([*command, "--out", str(out), "--jobs", "1"]) == 0
    assert "var(--first)" in (out / calibrate.PAGE_FILE).read_text()
    assert (out / RESULTS_FILE).exists()
    return into / "copy"


def test_a_calibrated_copy_loads_and_differs_in_its_scale_and_evidence_alone(
    folder: Path, calibrated: Path
) -> None:
    assert {path.name for path in calibrated.iterdir()} == {*MODEL_FILES, CALIBRATION_FILE}
    for name in MODEL_FILES:
        same = (folder / name).read_bytes() == (calibrated / name).read_bytes()
        assert same == (name != HYPERPARAMS_FILE)
    before, after = load_model(folder), load_model(calibrated)
    assert after.spec.softmax_scale != 30.0
    assert replace(after.spec, softmax_scale=30.0) == before.spec


def test_the_evidence_says_what_the_scale_rests_on(calibrated: Path) -> None:
    text = (calibrated / CALIBRATION_FILE).read_text()
    told = json.loads(text, parse_constant=pytest.fail)
    assert told["softmax_scale"] == load_model(calibrated).spec.softmax_scale
    assert told["before"]["softmax_scale"] == 30.0
    gain = told["before"]["negative_log_likelihood"] - told["after"]["negative_log_likelihood"]
    assert gain > 0
    assert told["fitted_on"]["clips"] + told["judged_on"]["clips"] == 24
    assert told["data"] == ["clips.csv"]
    assert str(calibrated.parent) not in text


def test_packaging_takes_the_evidence_along_and_notices_when_it_changes(
    calibrated: Path, tmp_path: Path
) -> None:
    archive = package(calibrated, name="calibrated", version="1.0", store=tmp_path)
    with zipfile.ZipFile(archive.path) as content:
        assert content.read(CALIBRATION_FILE) == (calibrated / CALIBRATION_FILE).read_bytes()
    bare = tmp_path / "bare"
    shutil.copytree(calibrated, bare)
    same = inputs_digest(bare, "calibrated", "1.0")
    assert same == inputs_digest(calibrated, "calibrated", "1.0")
    (bare / CALIBRATION_FILE).write_text("{}")
    assert inputs_digest(bare, "calibrated", "1.0") != same


def test_a_dry_run_shows_and_writes_to_no_model(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = ["--model", str(folder), "--data", str(data), "--out", str(tmp_path)]
    assert calibrate.main([*command, "--jobs", "1", "--dry-run"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == state
    assert "negative log-likelihood" in capsys.readouterr().out
    assert (tmp_path / calibrate.PAGE_FILE).exists()


def test_the_pretrained_model_in_its_cache_is_not_written_to(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "cache" / "commonaccent"
    shutil.copytree(folder, cached)
    monkeypatch.setattr(calibrate, "DEFAULT_CACHE", tmp_path / "cache")
    with pytest.raises(SystemExit, match=r"pinned by their hashes.*INTO=folder"):
        calibrate.main(["--model", str(cached), "--data", str(data), "--out", str(tmp_path)])
    assert read_spec(cached / HYPERPARAMS_FILE).softmax_scale == 30.0


def test_a_copy_never_overwrites_a_folder(folder: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    command = ["--model", str(folder), "--data", str(data), "--into", str(tmp_path)]
    with pytest.raises(SystemExit, match="name a new folder"):
        calibrate.main(command)


def test_other_entries_of_the_yaml_are_never_touched(tmp_path: Path) -> None:
    folder = write_stand_in(tmp_path / "model", softmax_scale=30.0)
    path = folder / HYPERPARAMS_FILE
    path.write_text(path.read_text() + "notes:\n  softmax_scale: 4\n")
    calibrate.write_scale(folder, 9.0)
    assert yaml.safe_load(path.read_text().rpartition("notes:")[2]) == {"softmax_scale": 4}
