"""The manifests without a cluster: rendered, held to schemas and policies, and to this code."""

import re
import runpy
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from aurea.paths import ROOT
from aurea.service import following, supervisor
from aurea.service.settings import ServeSettings
from aurea.versions.declared import read_declaration
from proxy.settings import Settings
from tests.unit.deploy.custom_resources import SPECS, Named

KUBERNETES = ROOT / "deploy" / "kubernetes"
TOOLS = ROOT / ".venv-deploy" / "bin"
OVERLAYS = ("cpu", "gpu", "kserve")
OLDEST, NEWEST = "1.34", "1.37"
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())

needs_tools = pytest.mark.skipif(
    not (TOOLS / "kubectl").exists(), reason="its tools are set up by make check-deploy"
)


def run(tool: str, *arguments: str) -> str:
    done = subprocess.run(
        [TOOLS / tool, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def rendered(folder: str) -> str:
    return run("kubectl", "kustomize", str(KUBERNETES / folder))


def resources(folder: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(rendered(folder)) if each]


def read(path: str) -> Any:
    return yaml.safe_load((KUBERNETES / path).read_text())


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = read("base/deployment.yaml")["spec"]["template"]["spec"]
    return spec


def predictor() -> dict[str, Any]:
    spec: dict[str, Any] = read("overlays/kserve/inference-service.yaml")["spec"]["predictor"]
    return spec


@needs_tools
@pytest.mark.slow
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_overlay_renders_and_fits_the_schemas_of_two_kubernetes(
    version: str, tmp_path: Path
) -> None:
    for overlay in OVERLAYS:
        (tmp_path / f"{overlay}.yaml").write_text(rendered(f"overlays/{overlay}"))
    files = [str(tmp_path / f"{each}.yaml") for each in OVERLAYS]
    said = run("kubernetes-validate", "-k", version, "--strict", *files)
    assert said.count("deployment/aureavoice against") == 2


@needs_tools
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_custom_resources_fit_what_their_operators_take(overlay: str) -> None:
    custom = [each for each in resources(f"overlays/{overlay}") if key(each) in SPECS]
    assert custom
    for each in custom:
        Named.model_validate(each["metadata"])
        SPECS[key(each)].model_validate(each["spec"])
    known = {"v1", "apps/v1", "autoscaling/v2", "networking.k8s.io/v1", "policy/v1"}
    strange = {each["apiVersion"] for each in resources(f"overlays/{overlay}")} - known
    assert strange <= {group for group, _ in SPECS}


@needs_tools
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_renders_with_the_base(component: str, tmp_path: Path) -> None:
    # kustomize takes paths from the file's own folder on alone.
    here = Path(*[".."] * len(tmp_path.parts)) / KUBERNETES.relative_to("/")
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "namespace": "aureavoice",
                "resources": [str(here / "base")],
                "components": [str(here / "components" / component)],
            }
        )
    )
    for each in yaml.safe_load_all(run("kubectl", "kustomize", str(tmp_path))):
        if key(each) in SPECS:
            SPECS[key(each)].model_validate(each["spec"])


def key(resource: dict[str, Any]) -> tuple[str, str]:
    return resource["apiVersion"], resource["kind"]


@needs_tools
@pytest.mark.long
@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_no_policy_finds_what_is_not_explained(overlay: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(rendered(f"overlays/{overlay}"))
    options = ["--config-file", "deploy/checkov.yaml", "--skip-download"]
    run("checkov", *options, "-f", str(tmp_path / "all.yaml"))
    run("checkov", *options, "-f", "Dockerfile")


@needs_tools
def test_the_dockerfile_has_no_finding() -> None:
    assert run("hadolint", "Dockerfile") == ""


def test_what_checkov_skips_has_its_reason() -> None:
    lines = (ROOT / "deploy" / "checkov.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  - CKV"):
            assert lines[number - 1].lstrip().startswith("#")


def test_the_grace_period_covers_the_drain_and_what_follows_it() -> None:
    for spec, container in (
        (pod(), pod()["containers"][0]),
        (predictor(), predictor()["containers"][0]),
    ):
        (drain_s,) = re.findall(r"--drain-s (\d+)", " ".join(container["args"]))
        sleep_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        needed_s = sleep_s + float(drain_s) + 1.5 + supervisor._STOP_TORCHSERVE_S + following._END_S
        assert needed_s <= spec["terminationGracePeriodSeconds"] <= needed_s + 15
        # A clip that is taken is given its time, and probes see the drain before the end.
        assert float(drain_s) > ServeSettings.model_fields["drain_s"].default


def test_pods_are_as_the_restricted_profile_wants_them() -> None:
    for spec in (pod(), predictor()):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"] + spec["initContainers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]) == {"requests", "limits"}
            writable = [
                each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")
            ]
            assert writable == ["/var/lib/aurea/model_store", "/run/aurea"]


def test_the_pod_under_kserve_is_the_same() -> None:
    for kind in ("containers", "initContainers"):
        ours, theirs = pod()[kind][0], predictor()[kind][0]
        for part in (
            "args",
            "command",
            "lifecycle",
            "resources",
            "securityContext",
            "volumeMounts",
        ):
            assert ours.get(part) == theirs.get(part)
    assert pod()["volumes"] == predictor()["volumes"]
    assert pod()["securityContext"] == predictor()["securityContext"]


def test_a_rolling_update_never_has_fewer_replicas_than_asked_for() -> None:
    spec = read("base/deployment.yaml")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["replicas"] >= 2


def test_the_declared_versions_can_be_followed() -> None:
    shipped = KUBERNETES / "base" / "versions.yaml"
    declaration = read_declaration(shipped)
    assert declaration.versions[declaration.default].source.startswith("https://")
    assert (KUBERNETES / "overlays/kserve/versions.yaml").read_text() == shipped.read_text()


def test_every_setting_of_the_config_map_is_one_of_the_proxys() -> None:
    lines = (KUBERNETES / "base" / "settings.env").read_text().split()
    names = {line.partition("=")[0] for line in lines}
    assert names <= {f"AUREA_{name.upper()}" for name in Settings.model_fields}
    kserve = {each["name"]: each["value"] for each in predictor()["containers"][0]["env"]}
    assert kserve == dict(line.split("=", 1) for line in lines)


def test_the_rules_in_the_cluster_are_those_of_deploy_monitoring() -> None:
    rules = runpy.run_path(str(KUBERNETES / "rules.py"))
    assert read("components/monitoring/prometheusrule.yaml") == rules["prometheus_rule"]()


def test_the_pod_monitor_scrapes_as_the_shipped_prometheus_does() -> None:
    monitor = read("components/monitoring/podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    jobs = {each["relabelings"][0]["replacement"]: each["path"] for each in monitor}
    shipped = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())
    assert jobs == {
        each["job_name"]: each.get("metrics_path", "/metrics") for each in shipped["scrape_configs"]
    }


def test_the_scaler_asks_for_a_number_that_is_recorded() -> None:
    trigger = read("components/autoscaling-queue/scaledobject.yaml")["spec"]["triggers"][0]
    assert trigger["metadata"]["query"] in (ROOT / "deploy/monitoring/rules.yml").read_text()
