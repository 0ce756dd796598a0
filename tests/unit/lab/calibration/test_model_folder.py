"""The lines of a model's folder that calibration changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from accent.ecapa.loading import load_model
from accent.ecapa.specification import read_spec
from accent.errors import ModelFolderError
from accent.kinds import load_model as load_any
from accent.layout import HYPERPARAMS_FILE, PROBE_FILE
from accent.model import Calibration
from accent.probe.loading import read_probe_spec

from aurea.lab.calibration.model_folder import write_calibration
from tests.models import write_probe_stand_in, write_stand_in


@pytest.mark.parametrize("start", ["", "# A comment.\n", "%YAML 1.1\n---\n", "---\n# hub\n"])
def test_a_missing_entry_is_added_at_the_top(tmp_path: Path, start: str) -> None:
    folder = write_stand_in(tmp_path / "model")
    path = folder / HYPERPARAMS_FILE
    path.write_text(start + path.read_text())
    before, spec = path.read_text(), read_spec(path)
    write_calibration(folder, Calibration(7.25))
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
    write_calibration(folder, Calibration(11.5))
    after = path.read_bytes().split(b"\n")
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert [new.strip() for _, new in changed] == [b"softmax_scale: 11.5"]
    assert list(folder.glob("*.part*")) == []
    assert load_model(folder).spec.softmax_scale == 11.5


def test_other_entries_of_the_yaml_are_never_touched(tmp_path: Path) -> None:
    folder = write_stand_in(tmp_path / "model", softmax_scale=30.0)
    path = folder / HYPERPARAMS_FILE
    path.write_text(path.read_text() + "notes:\n  softmax_scale: 4\n  us_bias: 3\n")
    write_calibration(folder, Calibration(9.0, 0.5))
    assert yaml.safe_load(path.read_text().rpartition("notes:")[2]) == {
        "softmax_scale": 4,
        "us_bias": 3,
    }
    assert load_model(folder).calibration == Calibration(9.0, 0.5)


def test_a_bias_is_written_beside_the_scale_and_set_to_nothing_again(tmp_path: Path) -> None:
    folder = write_stand_in(tmp_path / "model", softmax_scale=30.0)
    path = folder / HYPERPARAMS_FILE
    before = path.read_text()
    assert write_calibration(folder, Calibration(30.0, -0.75)) == path
    assert path.read_text() == "us_bias: -0.75\n" + before.replace("scale: 30.0", "scale: 30")
    assert load_model(folder).calibration == Calibration(30.0, -0.75)
    write_calibration(folder, Calibration(12.5, 1.125))
    assert path.read_text().count("us_bias:") == 1
    assert load_model(folder).calibration == Calibration(12.5, 1.125)
    write_calibration(folder, Calibration(12.5))
    assert "us_bias: 0\n" in path.read_text()
    assert load_model(folder).calibration == Calibration(12.5)


def test_a_model_without_a_bias_gets_no_entry_for_it(tmp_path: Path) -> None:
    folder = write_stand_in(tmp_path / "model", softmax_scale=30.0)
    write_calibration(folder, Calibration(12.5, 0.0))
    assert "us_bias" not in (folder / HYPERPARAMS_FILE).read_text()


def test_a_probe_is_calibrated_in_its_own_file_and_nothing_else_in_it_changes(
    tmp_path: Path,
) -> None:
    folder = write_probe_stand_in(tmp_path / "probe")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    spec = read_probe_spec(folder / PROBE_FILE)
    assert write_calibration(folder, Calibration(0.75, 1.25)) == folder / PROBE_FILE
    assert read_probe_spec(folder / PROBE_FILE) == replace(spec, scale=0.75, us_bias=1.25)
    assert load_any(folder).calibration == Calibration(0.75, 1.25)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {PROBE_FILE}


@pytest.mark.parametrize(
    "calibration", [Calibration(0.0), Calibration(float("nan")), Calibration(1.0, 20.5)]
)
def test_a_calibration_that_would_not_load_is_never_written(
    calibration: Calibration, tmp_path: Path
) -> None:
    for folder in (write_stand_in(tmp_path / "ecapa"), write_probe_stand_in(tmp_path / "probe")):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(ModelFolderError):
            write_calibration(folder, calibration)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
