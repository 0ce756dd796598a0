"""What the figures were measured on."""

import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil
from accent.cores import available_cores

from aurea.paths import ROOT

_CPUINFO: Final = Path("/proc/cpuinfo")
_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
_INSTRUCTION_SETS: Final = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""Those that decide what an engine's products take, by the names that Linux has for them."""


def machine_facts() -> dict[str, str]:
    """`date` and `commit` of a run, its `processor`, and a `summary` of machine and libraries."""
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    cores = available_cores()
    memory_gb = psutil.virtual_memory().total / 1e9
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "openvino"))
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit,
        "processor": processor(),
        "summary": f"{name}, {cores} cores, {memory_gb:.0f} GB, Python "
        f"{platform.python_version()}, {versions}",
    }


def processor(cpuinfo: Path = _CPUINFO, caches: Path = _CACHES) -> str:
    """A processor so that it is told from another of the same name: model, caches, instructions.

    Where the files of Linux are absent, what Python knows of it.
    """
    facts = _cpuinfo(cpuinfo)
    parts = [facts.get("model name") or platform.processor() or platform.machine()]
    parts += [
        f"{name} {facts[key]}"
        for name, key in (("family", "cpu family"), ("model", "model"), ("stepping", "stepping"))
        if key in facts
    ]
    for cache in sorted(caches.glob("index*")):
        level, kind, size = (
            (cache / each).read_text().strip() for each in ("level", "type", "size")
        )
        if kind != "Instruction":
            parts.append(f"L{level} {size}")
    has = set((facts.get("flags") or facts.get("Features") or "").split())
    parts += [each for each in _INSTRUCTION_SETS if each in has]
    return ", ".join([*parts, f"{available_cores()} cores"])


def _cpuinfo(path: Path = _CPUINFO) -> dict[str, str]:
    """What Linux says of the first core."""
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "absent"
