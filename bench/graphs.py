"""An unpacked archive with the graphs of every precision, those that it left out included."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino
from accent.engine import PRECISIONS, Precision
from accent.layout import ENGINES_FILE
from accent.loading import AccentModel, load_model
from pydantic_settings import CliPositionalArg

from aurea.archive.build import PROVENANCE_FILE
from aurea.archive.graph import build_graph
from aurea.archive.reference import calibration_speech
from aurea.command_line import CommandLine, read


def complete(archive: Path, target: Path) -> None:
    """Copy `archive` to `target` and add what it lacks, unless that was done before."""
    if _is_copy(archive, target):
        return
    shutil.rmtree(target, ignore_errors=True)
    # Only what is whole is worth keeping for the next run.
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(archive, part)
    document: dict[str, Any] = {"engines": []}
    if (part / ENGINES_FILE).is_file():
        document = json.loads((part / ENGINES_FILE).read_text(encoding="utf-8"))
    missing = [precision for precision in PRECISIONS if not _entry(document["engines"], precision)]
    model = load_model(archive)
    for precision in missing:
        document["engines"].append(
            (_entry(document.get("not_packed", []), precision) or {"within_bounds": False})
            | {"engine": "openvino", "precision": precision}
            | {"graph": _graph(part, document, model, precision)}
        )
    (part / ENGINES_FILE).write_text(json.dumps(document), encoding="utf-8")
    part.replace(target)


def _entry(entries: Sequence[dict[str, Any]], precision: str) -> dict[str, Any] | None:
    wanted = ("openvino", precision)
    return next((e for e in entries if (e["engine"], e["precision"]) == wanted), None)


def _graph(
    folder: Path, document: Mapping[str, Any], model: AccentModel, precision: Precision
) -> str:
    """The file of a graph, made unless another precision has the same one."""
    twin = {"fp32": "bf16", "bf16": "fp32"}.get(precision, "")
    entry = _entry(document["engines"], twin)
    if entry is not None:
        return str(entry["graph"])
    name = f"accent-{precision}.xml"
    graph = build_graph(model, precision, calibration_speech())
    openvino.save_model(graph, folder / name, compress_to_fp16=False)
    return name


def _is_copy(archive: Path, target: Path) -> bool:
    try:
        return (archive / PROVENANCE_FILE).read_bytes() == (target / PROVENANCE_FILE).read_bytes()
    except OSError:
        return False


class GraphOptions(CommandLine):
    """Complete an unpacked archive with the graphs of every precision."""

    archive: CliPositionalArg[Path]
    """Folder of the unpacked archive."""

    target: CliPositionalArg[Path]
    """Folder of the copy that has them all."""


def main() -> None:
    """Complete an unpacked archive."""
    options = read(GraphOptions)
    complete(options.archive, options.target)


if __name__ == "__main__":
    main()
