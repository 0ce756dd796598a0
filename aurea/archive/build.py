"""Builds model_store/NAME.mar: the handler, its package, a model and their settings.

The archive holds all that a TorchServe elsewhere needs, given the pinned packages. A model
that could not be served is refused here and not at a worker's start.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml
from accent.layout import MODEL_FILES

from aurea.models.choice import (
    DEFAULT_CACHE,
    DEFAULT_EMBEDDED,
    ModelUnavailable,
    choose_model,
)
from aurea.paths import ROOT

if TYPE_CHECKING:
    from accent.loading import AccentModel
    from accent.selection import EngineSettings

HANDLER_DIR: Final = ROOT / "handler"
CONFIG_FILE: Final = "model-config.yaml"
HANDLER_FILES: Final = ("accent_handler.py", "accent_metrics.py")
MODEL_STORE: Final = ROOT / "model_store"
PROVENANCE_FILE: Final = "provenance.json"
CALIBRATION_FILE: Final = "calibration.json"
"""What a model's softmax scale rests on; `make calibrate` writes it into the model's folder."""

CARD_FILE: Final = "README.md"

# What makes and judges engines; all of it decides an archive as the handler does.
_ENGINE_SOURCES: Final = tuple(
    Path(__file__).with_name(name)
    for name in ("distort.py", "engines.py", "graph.py", "reference.py")
)
_REFERENCE_SPEECH: Final = Path(__file__).with_name("reference_speech")


class PackagingError(Exception):
    """An archive that cannot be built. The message says what to do."""


@dataclass(frozen=True)
class Archive:
    """A built archive and what it is registered as."""

    path: Path
    name: str
    version: str
    rebuilt: bool
    report: str = ""
    """What was measured of its engines, for people; empty where nothing was built."""


def package(
    model_folder: Path,
    *,
    name: str,
    version: str,
    engine: str = "",
    precision: str = "",
    store: Path = MODEL_STORE,
) -> Archive:
    """Build `store`/NAME.mar from a model folder, unless it is there from the same inputs.

    `engine` and `precision` take the place of what the handler's settings say. Its engines
    are made and judged here, which takes some seconds.

    Raises `PackagingError` for a folder that the server could not serve (a missing or
    malformed file, weights that do not fit, no label `us`) and for settings that are none.
    """
    target = store / f"{name}.mar"
    config = _model_config(engine, precision)
    inputs = inputs_digest(model_folder, name, version, config)
    if _packaged_inputs(target) == inputs:
        return Archive(target, name, version, rebuilt=False)
    # Imported late: an archive that is up to date needs no torch, and starts sooner.
    sys.path.insert(0, str(HANDLER_DIR))
    from aurea.archive.engines import pack_engines

    settings = _engine_settings(config)
    model = _verified(model_folder)
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packaging-", dir=store) as scratch:
        # The archiver flattens a folder it is given, so the package travels in a parent.
        extras = Path(scratch) / "extras"
        shutil.copytree(
            HANDLER_DIR / "accent", extras / "accent", ignore=shutil.ignore_patterns("__pycache__")
        )
        for file_name in HANDLER_FILES[1:]:
            shutil.copyfile(HANDLER_DIR / file_name, extras / file_name)
        for file_name in _files_to_pack(model_folder):
            shutil.copyfile(model_folder / file_name, extras / file_name)
        report = pack_engines(model_folder, model, extras, settings)
        provenance = {"inputs_sha256": inputs, "handler_sha256": _handler_digests()}
        (extras / PROVENANCE_FILE).write_text(json.dumps(provenance, indent=2) + "\n")
        (Path(scratch) / CONFIG_FILE).write_text(config, encoding="utf-8")
        command = [
            str(Path(sys.executable).parent / "torch-model-archiver"),
            *("--model-name", name),
            *("--version", version),
            *("--handler", str(HANDLER_DIR / HANDLER_FILES[0])),
            *("--config-file", str(Path(scratch) / CONFIG_FILE)),
            *("--extra-files", str(extras)),
            *("--export-path", scratch),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise PackagingError(f"torch-model-archiver failed:\n{result.stdout}{result.stderr}")
        (Path(scratch) / target.name).replace(target)
    return Archive(target, name, version, rebuilt=True, report=report)


def is_built_from(
    archive: Path,
    model_folder: Path,
    *,
    name: str,
    version: str,
    engine: str = "",
    precision: str = "",
) -> bool:
    """Whether an archive, wherever it lies, is what `package` would build from these.

    Raises `PackagingError` for a file of the model that cannot be read.
    """
    config = _model_config(engine, precision)
    return _packaged_inputs(archive) == inputs_digest(model_folder, name, version, config)


def _model_config(engine: str, precision: str) -> str:
    text = (HANDLER_DIR / CONFIG_FILE).read_text(encoding="utf-8")
    for key, value in (("engine", engine), ("precision", precision)):
        if value:
            entry = re.search(rf"^  {key}:( .*)$", text, re.MULTILINE)
            if entry is None:
                raise PackagingError(f"{CONFIG_FILE} has no entry {key} to put {value!r} into.")
            # JSON's strings are YAML's, so that no value can be more than one.
            text = f"{text[: entry.start(1)]} {json.dumps(value)}{text[entry.end(1) :]}"
    return text


def _engine_settings(config: str) -> "EngineSettings":
    from accent.selection import EngineError, EngineSettings

    entries = (yaml.safe_load(config) or {}).get("accent") or {}
    try:
        return EngineSettings(
            **{key: entries[key] for key in ("engine", "precision") if key in entries}
        )
    except EngineError as error:
        raise PackagingError(str(error)) from None


def _verified(model_folder: Path) -> "AccentModel":
    from accent.classifier import AccentClassifier
    from accent.engine import TorchEngine
    from accent.errors import ModelFolderError
    from accent.loading import load_model

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
    return model


def _handler_digests() -> dict[str, str]:
    sources = [HANDLER_DIR / name for name in HANDLER_FILES]
    sources += sorted((HANDLER_DIR / "accent").glob("*.py"))
    return {
        path.relative_to(HANDLER_DIR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sources
    }


def inputs_digest(model_folder: Path, name: str, version: str, config: str = "") -> str:
    """The sha256 of all that decides an archive: handler, settings, engines, model, its name.

    `config` is the text of the settings where they differ from the handler's own.

    Raises `PackagingError` for a file of the model that cannot be read.
    """
    sources = [path for path in sorted(HANDLER_DIR.rglob("*")) if path.suffix in {".py", ".yaml"}]
    speech = [path for path in sorted(_REFERENCE_SPEECH.rglob("*")) if path.is_file()]
    compiler = version_of("openvino")
    digest = hashlib.sha256(f"{name}\0{version}\0{compiler}\0{config}".encode())
    for path in [
        *sources,
        *_ENGINE_SOURCES,
        *speech,
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
    told = [name for name in (CALIBRATION_FILE, CARD_FILE) if (model_folder / name).is_file()]
    return [*MODEL_FILES, *told]


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
    parser.add_argument("--engine", default="", help="auto, torch or openvino")
    parser.add_argument("--precision", default="", help="auto, fp32, bf16 or int8")
    arguments = parser.parse_args()
    try:
        choice = choose_model(arguments.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
        archive = package(
            choice.folder,
            name=arguments.name or choice.name,
            version=arguments.version,
            engine=arguments.engine,
            precision=arguments.precision,
        )
    except (ModelUnavailable, PackagingError) as error:
        sys.exit(f"{error}")
    if choice.notice:
        print(choice.notice)
    if archive.report:
        print(archive.report)
    state = "built" if archive.rebuilt else "up to date"
    print(f"{archive.path.relative_to(ROOT)} ({archive.name} {archive.version}): {state}")


if __name__ == "__main__":
    main()
