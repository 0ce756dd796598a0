"""The one line of a model's folder that calibration changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from accent.ecapa.loading import load_model
from accent.ecapa.specification import read_spec
from accent.layout import HYPERPARAMS_FILE

from aurea.lab.calibration.model_folder import write_scale
from tests.models import write_stand_in


@pytest.mark.parametrize("start", ["", "# A comment.\n", "%YAML 1.1\n---\n", "---\n# hub\n"])
def test_a_missing_entry_is_added_at_the_top(tmp_path: Path, start: str) -> None:
    folder = write_stand_in(tmp_path / "model")
    path = folder / HYPERPARAMS_FILE
    path.write_text(start + path.read_text())
    before, spec = path.read_text(), read_spec(path)
    write_scale(folder, 7.25)
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
    write_scale(folder, 11.5)
    after = path.read_bytes().split(b"\n")
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert [new.strip() for _, new in changed] == [b"softmax_scale: 11.5"]
    assert list(folder.glob("*.part*")) == []
    assert load_model(folder).spec.softmax_scale == 11.5


def test_other_entries_of_the_yaml_are_never_touched(tmp_path: Path) -> None:
    folder = write_stand_in(tmp_path / "model", softmax_scale=30.0)
    path = folder / HYPERPARAMS_FILE
    path.write_text(path.read_text() + "notes:\n  softmax_scale: 4\n")
    write_scale(folder, 9.0)
    assert yaml.safe_load(path.read_text().rpartition("notes:")[2]) == {"softmax_scale": 4}
