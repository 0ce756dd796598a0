"""Graphs as files: equal ones once, and the same bytes every time."""

from pathlib import Path

import numpy as np
import pytest
from accent.ecapa.loading import EcapaModel
from accent.engine import Precision
from accent.waveform import Waveform

from aurea.archive import graph_files
from aurea.archive.graph_files import make_graphs, variants_of
from tests.clips import voice


@pytest.fixture(autouse=True)
def one_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    clips: list[Waveform] = [voice(1.0).astype(np.float32)]
    monkeypatch.setattr(graph_files, "calibration_speech", lambda: clips)


@pytest.mark.slow
def test_graphs_that_are_equal_are_written_once(small_model: EcapaModel, tmp_path: Path) -> None:
    graphs: dict[Precision, Path] = make_graphs(small_model, tmp_path)
    assert graphs["bf16"] == graphs["fp32"] != graphs["int8"]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"accent-{name}.{suffix}"
        for name in ("fp32", "int8", "int8-res2net", "int8-attention")
        for suffix in ("xml", "bin")
    }
    names = [path.stem for path in variants_of(graphs["int8"])]
    assert names == ["accent-int8", "accent-int8-res2net", "accent-int8-attention"]
    assert variants_of(graphs["fp32"]) == [graphs["fp32"]]


@pytest.mark.slow
def test_the_same_graph_is_the_same_bytes_every_time(
    small_model: EcapaModel, tmp_path: Path
) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        make_graphs(small_model, tmp_path / folder)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
