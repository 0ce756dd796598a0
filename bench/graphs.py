"""An unpacked archive with the graphs of every precision, those that it left out included."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from accent.ecapa.loading import EcapaModel, load_model
from accent.engine import PRECISIONS, Precision
from accent.layout import ENGINES_FILE
from accent.openvino_runtime import openvino
from pydantic_settings import CliPositionalArg

from aurea.archive.documents import EngineEntry, EnginesDocument, write_document
from aurea.archive.graph import build_graph
from aurea.archive.layout import PROVENANCE_FILE
from aurea.archive.reference import calibration_speech
from aurea.command_line import CommandLine, read


class GraphOptions(CommandLine):
    """Complete an unpacked archive with the graphs of every precision."""

    archive: CliPositionalArg[Path]
    """Folder of the unpacked archive."""

    target: CliPositionalArg[Path]
    """Folder of the copy that has them all."""


def complete(archive: Path, target: Path) -> None:
    """Copy `archive` to `target` and add what it lacks, unless that was done before."""
    if _is_copy(archive, target):
        return
    shutil.rmtree(target, ignore_errors=True)
    # Only what is whole is worth keeping for the next run.
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(archive, part)
    document = EnginesDocument(engines=[])
    if (part / ENGINES_FILE).is_file():
        document = EnginesDocument.model_validate_json((part / ENGINES_FILE).read_bytes())
    missing = [precision for precision in PRECISIONS if not _entry(document.engines, precision)]
    model = load_model(archive)
    for precision in missing:
        measured = _entry(document.not_packed, precision) or EngineEntry(
            engine="openvino", precision=precision
        )
        graph = _graph(part, document, model, precision)
        document.engines.append(measured.model_copy(update={"graph": graph}))
    write_document(document, part / ENGINES_FILE)
    part.replace(target)


def _entry(entries: Sequence[EngineEntry], precision: str) -> EngineEntry | None:
    wanted = ("openvino", precision)
    return next((entry for entry in entries if (entry.engine, entry.precision) == wanted), None)


def _graph(folder: Path, document: EnginesDocument, model: EcapaModel, precision: Precision) -> str:
    """The file of a graph, made unless another precision has the same one."""
    twin = {"fp32": "bf16", "bf16": "fp32"}.get(precision, "")
    entry = _entry(document.engines, twin)
    if entry is not None and entry.graph is not None:
        return entry.graph
    name = f"accent-{precision}.xml"
    graph = build_graph(model, precision, calibration_speech())
    openvino.save_model(graph, folder / name, compress_to_fp16=False)
    return name


def _is_copy(archive: Path, target: Path) -> bool:
    try:
        return (archive / PROVENANCE_FILE).read_bytes() == (target / PROVENANCE_FILE).read_bytes()
    except OSError:
        return False


def main() -> None:
    """Complete an unpacked archive."""
    options = read(GraphOptions)
    complete(options.archive, options.target)


if __name__ == "__main__":
    main()
