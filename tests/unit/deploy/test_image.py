"""What image and compose file promise, read from their files; tests/image runs the image."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from aurea import __version__
from aurea.paths import ROOT


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return services


def test_what_the_dockerfile_copies_is_in_its_context_and_there() -> None:
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(source == each or source.startswith(f"{each}/") for each in let_in), source


def test_every_part_of_the_project_that_is_installed_is_copied() -> None:
    # An editable install checks nothing: what is left out would be missed at run time alone.
    for room in ("aurea", "proxy", "bench", "handler", "scripts", "requirements", "model_store"):
        assert f"COPY {room} {room}\n" in dockerfile()


def test_the_image_runs_as_it_promises() -> None:
    runtime = dockerfile().rpartition("\nFROM ")[2]
    assert "USER 1000:1000" in runtime
    assert "EXPOSE 8000 9100" in runtime
    assert "AUREA_METRICS_PORT=9100" in runtime
    assert "/readyz" in runtime.partition("HEALTHCHECK")[2].partition("ENTRYPOINT")[0]
    assert 'VOLUME ["/var/lib/aurea/model_store"]' in runtime
    assert "STOPSIGNAL SIGTERM" in runtime


def test_compose_runs_the_service_with_no_more_rights_than_the_pod() -> None:
    service = compose()["aureavoice"]
    assert (service["read_only"], service["user"], service["cap_drop"]) == (
        True,
        "1000:1000",
        ["ALL"],
    )
    assert service["tmpfs"][0].startswith("/run/aurea:")
    # Whoever is not on this machine comes through something in front.
    ports = [port for each in compose().values() for port in each.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("tag", ["", "registry.example/voice:9"])
def test_compose_runs_what_make_image_builds(tag: str, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    engine.chmod(0o755)
    said = subprocess.run(
        ["sh", "deploy/image/build.sh"],
        cwd=ROOT,
        env=os.environ | {"ENGINE": str(engine), "TAG": tag},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    tags = {said[place + 1] for place, word in enumerate(said) if word == "--tag"}
    default = compose()["aureavoice"]["image"].partition(":-")[2].rstrip("}")
    assert tags == ({tag} if tag else {default, f"aureavoice:{__version__}"})


def test_what_compose_mounts_is_there() -> None:
    mounted = [
        volume.split(":")[0] for each in compose().values() for volume in each.get("volumes", ())
    ]
    assert all((ROOT / each).exists() for each in mounted if each.startswith("./"))


def test_prometheus_in_compose_scrapes_as_the_one_that_ships() -> None:
    ours, shipped = (
        yaml.safe_load((ROOT / "deploy" / path).read_text())
        for path in ("compose/prometheus.yml", "monitoring/prometheus.yml")
    )
    for mine, theirs in zip(ours["scrape_configs"], shipped["scrape_configs"], strict=True):
        assert mine | {"static_configs": 0} == theirs | {"static_configs": 0}
    assert [each.rpartition("/")[2] for each in ours["rule_files"]] == shipped["rule_files"]
