import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from scripts.dashboard_picture import (
    DASHBOARD,
    Prometheus,
    Query,
    Series,
    draw,
    read_panels,
)


def write_dashboard(folder: Path, *expressions: str) -> Path:
    place = {"x": 0, "y": 0, "w": 12, "h": 8}
    targets = [{"expr": expression, "legendFormat": ""} for expression in expressions]
    panel = {"title": "One", "type": "timeseries", "gridPos": place, "targets": targets}
    path = folder / "dashboard.json"
    path.write_text(json.dumps({"panels": [panel]}))
    return path


class Canned(Prometheus):
    """Answers every query with the same two series; or with none."""

    def __init__(self, empty: bool = False) -> None:
        super().__init__("http://127.0.0.1:9", 0.0, 600.0)
        self.empty = empty

    def ask(self, query: Query) -> list[Series]:
        if self.empty or not query.expression:
            return []
        minutes = np.array([-10.0, -5.0, 0.0])
        labels = {"version": "1.0", "code": "ok", "alertname": "AccentDown"}
        return [
            Series({**labels, "band": "20-30", "le": "0.5"}, minutes, np.array([1.0, 2.0, 3.0])),
            Series(
                {**labels, "band": "90-100", "le": "+Inf"}, minutes, np.array([2.0, np.nan, 9.0])
            ),
        ]


def test_variables_are_filled_in(tmp_path: Path) -> None:
    path = write_dashboard(tmp_path, 'a{v=~"$version"}[$__rate_interval]', "b[$__range]")
    (panel,) = read_panels(path, interval="1m", span="2h", version="1.0")
    assert [query.expression for query in panel.queries] == ['a{v=~"1.0"}[1m]', "b[2h]"]


def test_an_answer_is_read_as_minutes_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(_: Any, path: str, params: dict[str, Any]) -> httpx.Response:
        assert (path, params["query"], params["start"]) == ("/api/v1/query_range", "up", 0.0)
        row = {"metric": {"job": "a"}, "values": [[480.0, "1"], [600.0, "NaN"]]}
        body = {"data": {"result": [row]}}
        return httpx.Response(200, json=body, request=httpx.Request("GET", "http://a"))

    monkeypatch.setattr(httpx.Client, "get", get)
    (series,) = Prometheus("http://a", 0.0, 600.0).ask(Query("up", "", False, False))
    assert series.labels == {"job": "a"}
    assert series.minutes.tolist() == [-2.0, 0.0]
    assert series.values[0] == 1.0
    assert np.isnan(series.values[1])


@pytest.mark.parametrize("empty", [False, True])
def test_the_shipped_dashboard_is_drawn_with_and_without_data(tmp_path: Path, empty: bool) -> None:
    panels = read_panels(DASHBOARD, interval="1m", span="10m")
    draw(panels, Canned(empty), tmp_path / "new" / "picture.png")
    with Image.open(tmp_path / "new" / "picture.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
