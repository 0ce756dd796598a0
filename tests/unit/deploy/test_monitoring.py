"""The files that a Prometheus and a Grafana are given: sound, tested, and about real numbers."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from aurea.paths import ROOT
from proxy.telemetry.metrics import Metrics

MONITORING = ROOT / "deploy" / "monitoring"


def proxy_metrics() -> set[str]:
    names = re.findall(r"^# TYPE (aurea_\w+) ", Metrics().exposition().decode(), re.MULTILINE)
    return set(names)


def read(name: str) -> Any:
    return yaml.safe_load((MONITORING / name).read_text())


def rules(name: str) -> Iterator[dict[str, Any]]:
    for group in read(name)["groups"]:
        yield from group["rules"]


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return content


def dashboard_queries() -> list[str]:
    return [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (it comes with Prometheus)")
    run = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_says_what_happened_how_urgent_it_is_and_what_to_do() -> None:
    for alert in rules("alerts.yml"):
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert set(alert["annotations"]) == {"summary", "runbook"}
        for text in alert["annotations"].values():
            assert "\n" not in text
            assert text.endswith(".")


def test_every_alert_is_tested_to_be_quiet_to_fire_and_to_clear() -> None:
    told = {alert["alert"]: "" for alert in rules("alerts.yml")}
    for scenario in read("alerts_test.yml")["tests"]:
        steps = sorted(scenario["alert_rule_test"], key=lambda step: int(step["eval_time"][:-1]))
        for name in {step["alertname"] for step in steps}:
            fires = ["F" if s["exp_alerts"] else "-" for s in steps if s["alertname"] == name]
            told[name] += "".join(fires)
    assert all("-F-" in course for course in told.values()), told


def test_rules_and_dashboard_ask_for_numbers_that_exist() -> None:
    declared = yaml.safe_load((ROOT / "deploy" / "metrics.yaml").read_text())
    existing = proxy_metrics() | {
        metric["name"]
        for kinds in (declared["ts_metrics"], declared["model_metrics"])
        for metrics in kinds.values()
        for metric in metrics
    }
    recorded = {rule["record"] for rule in rules("rules.yml")}
    expressions = [rule["expr"] for name in ("rules.yml", "alerts.yml") for rule in rules(name)]
    asked: set[str] = set()
    for expression in expressions + dashboard_queries():
        plain = re.sub(r'"[^"]*"', "", expression)
        asked |= set(re.findall(r"\b(?:aurea|accent|ts)_\w+", plain))
        assert set(re.findall(r"\baccent:[\w:]+", plain)) <= recorded
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} <= existing


def test_what_is_told_is_shown() -> None:
    declared = yaml.safe_load((ROOT / "deploy" / "metrics.yaml").read_text())["model_metrics"]
    names = {metric["name"] for metrics in declared.values() for metric in metrics}
    expressions = [rule["expr"] for name in ("rules.yml", "alerts.yml") for rule in rules(name)]
    everything = " ".join(expressions + dashboard_queries())
    assert {name for name in names | proxy_metrics() if name not in everything} == set()


def test_the_panels_of_the_dashboard_are_whole_and_do_not_overlap() -> None:
    content = dashboard()
    panels = content["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in content["templating"]["list"]}
    for panel in panels:
        targets = panel.get("targets", [])
        assert bool(targets) == (panel["type"] != "row")
        for target in targets:
            assert target["datasource"]["uid"] == "${datasource}"
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            assert used <= variables | {"__rate_interval", "__range"}
        assert len({target["refId"] for target in targets}) == len(targets)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
