"""Builds model_store/NAME.mar: the handler, its package, a model and their settings.

The archive holds all that a TorchServe elsewhere needs, given the pinned packages. A model
that could not be served is refused here and not at a worker's start.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.get_model import (
    DEFAULT_CACHE,
    DEFAULT_EMBEDDED,
    MODEL_FILES,
    ROOT,
    ModelUnavailable,
    choose_model,
)

HANDLER_DIR: Final = ROOT / "handler"
MODEL_STORE: Final = ROOT / "model_store"
PROVENANCE_FILE: Final = "provenance.json"
CALIBRATION_FILE: Final = "calibration.json"
"""What a model's softmax scale rests on; `make calibrate` writes it into the model's folder."""


class PackagingError(Exception):
    """An archive that cannot be built. The message says what to do."""


@dataclass(frozen=True)
class Archive:
    """A built archive and what it is registered as."""

    path: Path
    name: str
    version: str
    rebuilt: bool


def package(model_folder: Path, *, name: str, version: str, store: Path = MODEL_STORE) -> Archive:
    """Build `store`/NAME.mar from a model folder, unless it is there from the same inputs.

    Raises `PackagingError` for a folder that the server could not serve: a missing or
    malformed file, weights that do not fit, no label `us`.
    """
    target = store / f"{name}.mar"
    inputs = inputs_digest(model_folder, name, version)
    if _packaged_inputs(target) == inputs:
        return Archive(target, name, version, rebuilt=False)
    _verify(model_folder)
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packaging-", dir=store) as scratch:
        # The archiver flattens a folder it is given, so the package travels in a parent.
        extras = Path(scratch) / "extras"
        shutil.copytree(
            HANDLER_DIR / "accent", extras / "accent", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copyfile(HANDLER_DIR / "accent_metrics.py", extras / "accent_metrics.py")
        for file_name in _files_to_pack(model_folder):
            shutil.copyfile(model_folder / file_name, extras / file_name)
        (extras / PROVENANCE_FILE).write_text(json.dumps({"inputs_sha256": inputs}))
        command = [
            str(Path(sys.executable).parent / "torch-model-archiver"),
            *("--model-name", name),
            *("--version", version),
            *("--handler", str(HANDLER_DIR / "accent_handler.py")),
            *("--config-file", str(HANDLER_DIR / "model-config.yaml")),
            *("--extra-files", str(extras)),
            *("--export-path", scratch),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise PackagingError(f"torch-model-archiver failed:\n{result.stdout}{result.stderr}")
        (Path(scratch) / target.name).replace(target)
    return Archive(target, name, version, rebuilt=True)


def _verify(model_folder: Path) -> None:
    # Imported late: an archive that is up to date needs no torch, and starts sooner.
    sys.path.insert(0, str(HANDLER_DIR))
    from accent.classifier import AccentClassifier
    from accent.engine import TorchEngine
    from accent.errors import ModelFolderError
    from accent.network import load_model

    try:
        model = load_model(model_folder)
    except ModelFolderError as error:
        raise PackagingError(f"{model_folder} cannot be packaged. {error}") from None
    classifier = AccentClassifier(
        model, TorchEngine(model.network), name="packaging", version="none"
    )
    try:
        classifier.warm_up()
    except Exception as error:
        raise PackagingError(f"{model_folder}: the network fails on audio: {error}") from error


def inputs_digest(model_folder: Path, name: str, version: str) -> str:
    """The sha256 of all that decides an archive: handler, settings, model, name and version.

    Raises `PackagingError` for a file of the model that cannot be read.
    """
    sources = [path for path in sorted(HANDLER_DIR.rglob("*")) if path.suffix in {".py", ".yaml"}]
    digest = hashlib.sha256(f"{name}\0{version}".encode())
    for path in [
        *sources,
        *(model_folder / file_name for file_name in _files_to_pack(model_folder)),
    ]:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PackagingError(
                f"{model_folder} cannot be packaged: {path.name}: {error.strerror}. "
                f"A model is a folder with {', '.join(MODEL_FILES)}."
            ) from None
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _files_to_pack(model_folder: Path) -> list[str]:
    evidence = [CALIBRATION_FILE] if (model_folder / CALIBRATION_FILE).is_file() else []
    return [*MODEL_FILES, *evidence]


def _packaged_inputs(archive: Path) -> str | None:
    try:
        with zipfile.ZipFile(archive) as content:
            return str(json.loads(content.read(PROVENANCE_FILE))["inputs_sha256"])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", help="auto, commonaccent, embedded or a folder")
    parser.add_argument("--name", default="", help="name of the archive; the model's by default")
    parser.add_argument("--version", default="1.0", help="version it is registered as")
    arguments = parser.parse_args()
    try:
        choice = choose_model(arguments.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
        archive = package(
            choice.folder, name=arguments.name or choice.name, version=arguments.version
        )
    except (ModelUnavailable, PackagingError) as error:
        sys.exit(f"{error}")
    if choice.notice:
        print(choice.notice)
    state = "built" if archive.rebuilt else "up to date"
    print(f"{archive.path.relative_to(ROOT)} ({archive.name} {archive.version}): {state}")


if __name__ == "__main__":
    main()
