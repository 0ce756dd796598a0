"""What the figures were measured on."""

import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import psutil
from accent.cores import available_cores

from aurea.paths import ROOT


def machine_facts() -> dict[str, str]:
    """`date` and `commit` of a run, and a `summary` of the machine and its libraries."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    cores = available_cores()
    memory_gb = psutil.virtual_memory().total / 1e9
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "openvino"))
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit,
        "summary": f"{name}, {cores} cores, {memory_gb:.0f} GB, Python "
        f"{platform.python_version()}, {versions}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "absent"
