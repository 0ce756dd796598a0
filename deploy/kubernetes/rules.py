"""Writes components/monitoring/prometheusrule.yaml from the rules and alerts of deploy/monitoring.

Run it after a change of those: python deploy/kubernetes/rules.py
"""

from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).resolve().parent
MONITORING: Final = HERE.parent / "monitoring"
TARGET: Final = HERE / "components" / "monitoring" / "prometheusrule.yaml"


def prometheus_rule() -> dict[str, Any]:
    """The custom resource, with every group of the two files."""
    groups = [
        group
        for name in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((MONITORING / name).read_text())["groups"]
    ]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "aureavoice"},
        "spec": {"groups": groups},
    }


if __name__ == "__main__":
    text = yaml.safe_dump(prometheus_rule(), sort_keys=False, allow_unicode=True, width=100)
    TARGET.write_text(f"# Written by deploy/kubernetes/rules.py from deploy/monitoring.\n{text}")
