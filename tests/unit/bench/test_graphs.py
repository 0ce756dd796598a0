"""The copy of an archive that has the graphs of every precision."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from accent.engine import PRECISIONS
from accent.selection import packed_engines

from bench import graphs
from bench.graphs import complete
from tests.clips import voice

pytestmark = pytest.mark.slow

TORCH = {"engine": "torch", "precision": "fp32", "graph": None, "within_bounds": True}
LEFT_OUT = {
    "engine": "openvino",
    "precision": "int8",
    "graph": None,
    "size_bytes": 0,
    "within_bounds": True,
    "deviation_points": {"p50": 0.1, "p99": 0.2, "max": 0.3},
}


@pytest.fixture
def archive(small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unpacked archive whose packaging left out every graph, and measured int8 alone."""
    monkeypatch.setattr(graphs, "calibration_speech", lambda: [voice(1.0).astype(np.float32)])
    folder = Path(shutil.copytree(small_folder, tmp_path / "archive"))
    (folder / "provenance.json").write_text("{}")
    document = {"engines": [TORCH], "not_packed": [LEFT_OUT]}
    (folder / "engines.json").write_text(json.dumps(document))
    return folder


def test_what_packaging_left_out_is_made_and_equal_graphs_are_shared(
    archive: Path, tmp_path: Path
) -> None:
    complete(archive, tmp_path / "every")
    found = {engine.precision: engine for engine in packed_engines(tmp_path / "every")[1:]}
    assert set(found) == set(PRECISIONS)
    assert found["fp32"].graph == found["bf16"].graph != found["int8"].graph
    assert all((tmp_path / "every" / str(engine.graph)).is_file() for engine in found.values())
    assert {name: engine.within_bounds for name, engine in found.items()} == {
        "fp32": False,
        "bf16": False,
        "int8": True,
    }
    document = json.loads((tmp_path / "every" / "engines.json").read_text())
    (int8,) = (entry for entry in document["engines"] if entry["precision"] == "int8")
    assert int8["deviation_points"] == LEFT_OUT["deviation_points"]


def test_a_copy_is_made_again_only_from_another_archive(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "every"
    complete(archive, target)
    (target / "witness").touch()
    complete(archive, target)
    assert (target / "witness").is_file()
    (archive / "provenance.json").write_text('{"inputs_sha256": "other"}')
    complete(archive, target)
    assert not (target / "witness").exists()


def test_a_folder_without_engines_gets_all_of_them(archive: Path, tmp_path: Path) -> None:
    (archive / "engines.json").unlink()
    complete(archive, tmp_path / "every")
    engines = packed_engines(tmp_path / "every")
    assert {engine.precision for engine in engines if engine.engine == "openvino"} == set(
        PRECISIONS
    )
