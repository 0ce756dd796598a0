"""Where reports on a model go, and how their JSON is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aurea.files import write_whole
from aurea.paths import ROOT


def default_out(name: str, digest: str) -> Path:
    """Where reports on a model go unless the caller says: a folder for each state of it."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    return ROOT / "build" / "evaluation" / f"{plain}-{digest[:12]}"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=2, allow_nan=False) + "\n")
