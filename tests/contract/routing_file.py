"""The file that routes requests, as those who own it write it."""

import json
from pathlib import Path

CANDIDATE = "2.0"


def write(file: Path, routing: object) -> None:
    """Replaces the file as a whole, as those who own it do."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(routing))
    draft.replace(file)


def share(percent: float, version: str = CANDIDATE) -> dict[str, object]:
    return {"canary": {"version": version, "percent": percent}}
