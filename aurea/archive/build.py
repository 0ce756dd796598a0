"""Builds model_store/NAME.mar: the handler, the core, a model and their settings.

The archive holds all that a TorchServe elsewhere needs, given the pinned packages. A model
that could not be served is refused here and not at a worker's start.
"""

import hashlib
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Final

from accent.layout import WORTH_FILE, layout_in, layouts_text
from pydantic import ValidationError

from aurea.archive.archiver import ArchiverFailed, write_archive
from aurea.archive.documents import Provenance, write_document
from aurea.archive.errors import ArchiveRefused
from aurea.archive.layout import (
    CALIBRATION_FILE,
    CARD_FILE,
    CONFIG_FILE,
    CORE_FOLDER,
    HANDLER_FILE,
    METRICS_FILE,
    PROVENANCE_FILE,
)
from aurea.archive.repacking import is_repacked
from aurea.archive.settings import (
    UnreadableSettings,
    core_settings,
    parse_settings,
    with_engine,
)
from aurea.archive.vetting import read_manifest, strange_code
from aurea.files import sha256_of
from aurea.names import BadName, check_name, check_version
from aurea.paths import HANDLER, MODEL_STORE

# The modules that torch comes with are imported where they are used: an archive that is up to
# date needs none of them, and `make serve` starts sooner.
if TYPE_CHECKING:
    from accent.model import LoadedModel
    from accent.settings import WorkerSettings

_ROOM: Final = Path(__file__).parent
_BLOCK_BYTES: Final = 1 << 20
# An archive is read by these, and looks the same whatever they say.
_READERS: Final = frozenset({"errors.py", "member_names.py", "vetting.py", "zip_records.py"})


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
    portable: bool = False,
    store: Path = MODEL_STORE,
) -> Archive:
    """Build `store`/NAME.mar from a model folder, unless it is there from the same inputs.

    `engine` and `precision` take the place of what the handler's settings say. Its engines
    are made and judged here, which takes some seconds; for a `portable` archive, which is for
    other processors as well, by how far they stray alone.

    Raises `PackagingError` for a name or a version that cannot be served, for a folder that
    the server could not serve (a missing or malformed file, weights that do not fit, no label
    `us`) and for settings that are none.
    """
    _check_identity(name, version)
    target = store / f"{name}.mar"
    config = _model_config(engine, precision)
    inputs = inputs_digest(model_folder, name, version, config)
    if _is_of(target, config, inputs, portable):
        return Archive(target, name, version, rebuilt=False)
    from aurea.archive.engines import pack_engines

    settings = _worker_settings(config)
    model = _verified(model_folder)
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packaging-", dir=store) as scratch:
        contents = Path(scratch)
        _copy_code(contents)
        for file_name in _files_to_pack(model_folder):
            shutil.copyfile(model_folder / file_name, contents / file_name)
        report = pack_engines(
            model_folder, model, contents, settings.engine, settings.trimming, portable=portable
        )
        write_document(
            Provenance(
                inputs_sha256=_portable(inputs) if portable else inputs,
                handler_sha256=_handler_digests(),
            ),
            contents / PROVENANCE_FILE,
        )
        (contents / CONFIG_FILE).write_text(config, encoding="utf-8")
        try:
            write_archive(contents, target, version=version)
        except ArchiverFailed as error:
            raise PackagingError(f"torch-model-archiver failed:\n{error}") from None
    return Archive(target, name, version, rebuilt=True, report=report)


def is_built_from(
    archive: Path,
    model_folder: Path,
    *,
    name: str,
    version: str,
    engine: str = "",
    precision: str = "",
    portable: bool = False,
) -> bool:
    """Whether an archive, wherever it lies, is what `package` would build from these.

    A portable one will do where none was asked for.

    Raises `PackagingError` for a file of the model that cannot be read.
    """
    config = _model_config(engine, precision)
    inputs = inputs_digest(model_folder, name, version, config)
    return _is_of(archive, config, inputs, portable)


def inputs_digest(model_folder: Path, name: str, version: str, config: str = "") -> str:
    """The sha256 of all that decides an archive: handler, settings, engines, model, its name.

    `config` is the text of the settings where they differ from the handler's own.

    Raises `PackagingError` for a file of the model that cannot be read.
    """
    handler = [path for path in sorted(HANDLER.rglob("*")) if path.suffix in {".py", ".yaml"}]
    compiler = version_of("openvino")
    digest = hashlib.sha256(f"{name}\0{version}\0{compiler}\0{config}".encode())
    for path in [
        *handler,
        *_packaging_sources(),
        *(model_folder / file_name for file_name in _files_to_pack(model_folder)),
    ]:
        try:
            # In blocks: a checkpoint may be larger than what a supervisor may hold.
            with path.open("rb") as file:
                digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
                for block in iter(partial(file.read, _BLOCK_BYTES), b""):
                    digest.update(block)
        except OSError as error:
            raise PackagingError(
                f"{model_folder} cannot be packaged: {path.name}: {error.strerror}. "
                f"A model is {layouts_text()}."
            ) from None
    return digest.hexdigest()


def _is_of(archive: Path, config: str, inputs: str, portable: bool) -> bool:
    will_do = {_portable(inputs)} if portable else {inputs, _portable(inputs)}
    return _packaged_inputs(archive, config) in will_do


def _portable(inputs: str) -> str:
    return hashlib.sha256(f"{inputs}\0portable".encode()).hexdigest()


def _check_identity(name: str, version: str) -> None:
    try:
        check_name(name)
        check_version(version)
    except BadName as error:
        raise PackagingError(f"{error}") from None


def _packaging_sources() -> list[Path]:
    """What makes, judges and describes engines, and the speech that they are judged by."""
    code = [path for path in sorted(_ROOM.glob("*.py")) if path.name not in _READERS]
    speech = [path for path in sorted((_ROOM / "reference_speech").rglob("*")) if path.is_file()]
    return code + speech


def _model_config(engine: str, precision: str) -> str:
    text = (HANDLER / CONFIG_FILE).read_text(encoding="utf-8")
    try:
        return with_engine(text, engine=engine, precision=precision)
    except UnreadableSettings as error:
        raise PackagingError(f"{error}") from None


def _worker_settings(config: str) -> "WorkerSettings":
    from accent.engine import EngineError
    from accent.settings import WorkerSettings

    try:
        return WorkerSettings.from_entries(core_settings(parse_settings(config)))
    except (EngineError, UnreadableSettings) as error:
        raise PackagingError(str(error)) from None


def _verified(model_folder: Path) -> "LoadedModel":
    from accent.classifier import AccentClassifier
    from accent.errors import ModelFolderError
    from accent.kinds import load_model

    try:
        model = load_model(model_folder)
    except ModelFolderError as error:
        raise PackagingError(f"{model_folder} cannot be packaged. {error}") from None
    try:
        engine = model.reference_engine()
        classifier = AccentClassifier(model, engine, name="packaging", version="none")
        classifier.warm_up()
    except Exception as error:
        raise PackagingError(f"{model_folder}: the network fails on audio: {error}") from error
    return model


def _copy_code(contents: Path) -> None:
    shutil.copytree(
        HANDLER / CORE_FOLDER,
        contents / CORE_FOLDER,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for file_name in (HANDLER_FILE, METRICS_FILE):
        shutil.copyfile(HANDLER / file_name, contents / file_name)


def _handler_digests() -> dict[str, str]:
    sources = [HANDLER / HANDLER_FILE, HANDLER / METRICS_FILE]
    sources += sorted((HANDLER / CORE_FOLDER).rglob("*.py"))
    return {path.relative_to(HANDLER).as_posix(): sha256_of(path) for path in sources}


def _files_to_pack(model_folder: Path) -> list[str]:
    found = [
        name
        for name in (CALIBRATION_FILE, CARD_FILE, WORTH_FILE)
        if (model_folder / name).is_file()
    ]
    layout = layout_in(model_folder)
    if layout is None:
        raise PackagingError(f"{model_folder} cannot be packaged: a model is {layouts_text()}.")
    return [*layout.files, *found]


def _packaged_inputs(archive: Path, config: str) -> str | None:
    """The digest of what an archive was built from; None where it was not packaged here.

    Whoever wrote an archive may write any digest into it: what a worker runs must be in it as it
    is here, with the settings `config`.
    """
    if not is_repacked(archive):
        return None
    try:
        with zipfile.ZipFile(archive) as content:
            if strange_code(content, read_manifest(content), HANDLER):
                return None
            if content.read(CONFIG_FILE) != config.encode():
                return None
            return Provenance.model_validate_json(content.read(PROVENANCE_FILE)).inputs_sha256
    except (OSError, zipfile.BadZipFile, KeyError, ValidationError, ArchiveRefused):
        return None
