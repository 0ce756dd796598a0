"""Where reports go: a folder for each state of a model, whatever its name is made of."""

import json
from pathlib import Path

import pytest

from aurea.lab.evaluation.outputs import default_out, write_json


def test_each_state_of_a_model_has_a_folder_of_its_own() -> None:
    digest = "0123456789abcdef"
    assert default_out("my model/1.0", digest).name == "my-model-1.0-0123456789ab"
    assert default_out("m", digest).parent == default_out("n", digest).parent


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "evaluation.json"
    write_json(path, {"auc": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"auc": float("nan")})
    assert json.loads(path.read_text()) == {"auc": 0.5}
    assert [each.name for each in path.parent.iterdir()] == [path.name]
