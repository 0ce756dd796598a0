"""An unpacked archive with the graphs of every precision, those that it left out included."""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from accent.network import load_model
from accent.selection import ENGINES_FILE

from scripts.engines import make_graphs
from scripts.package import PROVENANCE_FILE


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
    with tempfile.TemporaryDirectory(dir=part) as scratch:
        for precision, path in make_graphs(load_model(archive), Path(scratch)).items():
            for file in (path, path.with_suffix(".bin")):
                shutil.copyfile(file, part / file.name)
            _add(document, precision, path.name)
    (part / ENGINES_FILE).write_text(json.dumps(document), encoding="utf-8")
    part.replace(target)


def _add(document: dict[str, Any], precision: str, graph: str) -> None:
    """List a graph after those that the archive uses, so that `auto` stays what it was."""
    wanted = ("openvino", precision)
    if any((each["engine"], each["precision"]) == wanted for each in document["engines"]):
        return
    entry = next(
        (
            each
            for each in document.get("not_packed", [])
            if (each["engine"], each["precision"]) == wanted
        ),
        {"engine": "openvino", "precision": precision, "within_bounds": False},
    )
    document["engines"].append(entry | {"graph": graph})


def _is_copy(archive: Path, target: Path) -> bool:
    try:
        return (archive / PROVENANCE_FILE).read_bytes() == (target / PROVENANCE_FILE).read_bytes()
    except OSError:
        return False


def main() -> None:
    """Complete an unpacked archive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    complete(arguments.archive, arguments.target)


if __name__ == "__main__":
    main()
