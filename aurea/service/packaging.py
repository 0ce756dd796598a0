"""From a chosen model to its archive, and `make mar`.

Packaging runs in a process of its own: the graph compiler of some engines leaves the thread
that called it without a stack for signals, and a supervisor that it ran in would die by the
next SIGTERM and end nothing in order. It also keeps torch out of the supervisor's memory.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic_settings import CliPositionalArg

from aurea.archive.build import Archive, PackagingError, is_built_from
from aurea.command_line import CommandLine, read
from aurea.models.choice import DEFAULT_CACHE, DEFAULT_EMBEDDED, ModelUnavailable, choose_model
from aurea.names import BadName, check_name, check_version
from aurea.paths import MODEL_STORE, ROOT
from aurea.service.children import die_with_parent, end_group
from aurea.service.console import say
from aurea.service.disk import trouble
from aurea.service.settings import ModelName, ModelVersion
from aurea.versions.registry import Registry

_JOB_MODULE: Final = "aurea.service.packaging_job"


class PackagingOrder(BaseModel):
    """What is to be packaged; goes to the packaging process as JSON."""

    model: Path
    name: str
    version: str
    engine: str = ""
    precision: str = ""
    portable: bool = False

    def arguments(self) -> dict[str, Any]:
        """All but the model, by the names that `aurea.archive.build` has for them."""
        return self.model_dump(exclude={"model"})


class PackagingResult(BaseModel):
    """What the packaging process answers, as JSON: a report, or why there is no archive."""

    report: str = ""
    error: str = ""


def build(order: PackagingOrder, store: Path = MODEL_STORE) -> Archive:
    """Build `store`/NAME.mar as `aurea.archive.build.package` does, in a process of its own.

    Raises `PackagingError`. The process is ended with this call, however that ends.
    """
    try:
        check_name(order.name)
        check_version(order.version)
    except BadName as error:
        raise PackagingError(str(error)) from None
    target = store / f"{order.name}.mar"
    if is_built_from(target, order.model, **order.arguments()):
        return Archive(target, order.name, order.version, rebuilt=False)
    try:
        store.mkdir(parents=True, exist_ok=True)
        # The folder is this process's own: it goes even if the other one is killed.
        with tempfile.TemporaryDirectory(prefix=".packaging-", dir=store) as scratch:
            result = _ordered(order, Path(scratch))
            (Path(scratch) / target.name).replace(target)
    except OSError as error:
        if (sentence := trouble(error, (store,))) is None:
            raise
        raise PackagingError(sentence) from error
    return Archive(target, order.name, order.version, rebuilt=True, report=result.report)


def _ordered(order: PackagingOrder, store: Path) -> PackagingResult:
    process = subprocess.Popen(
        [sys.executable, "-m", _JOB_MODULE, order.model_dump_json(), str(store)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        answer, _ = process.communicate()
    finally:
        end_group(process)
    if process.returncode != 0:
        raise PackagingError(f"Packaging ended by itself (status {process.returncode}).")
    result = PackagingResult.model_validate_json(answer)
    if result.error:
        raise PackagingError(result.error)
    return result


def archive_to_serve(
    order: PackagingOrder, registry: Registry, store: Path = MODEL_STORE
) -> Path | None:
    """The registered archive if it is up to date, else one that is built; None if retired.

    Raises `PackagingError`.
    """
    if registry.stays_away(order.version):
        return None
    registered = registry.unchanged(order.version)
    if registered is not None and is_built_from(registered, order.model, **order.arguments()):
        return registered
    say(f"Archive {shown(store / f'{order.name}.mar')}")
    archive = build(order, store)
    if archive.report:
        print(archive.report, flush=True)
    return archive.path


def shown(path: Path) -> str:
    """A path for people: from the project's folder on where it lies in there."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


class PackageSettings(CommandLine):
    """Build model_store/NAME.mar: the handler, its package, a model and their settings."""

    model: CliPositionalArg[str]
    """auto, commonaccent, commonaccent-xlsr, embedded, embedded-ecapa or a folder."""

    name: ModelName = ""
    """Name of the archive; the model's if empty."""

    version: ModelVersion = "1.0"
    """Version that it is registered as."""

    engine: str = ""
    """auto, torch or openvino; what the handler's settings say if empty."""

    precision: str = ""
    """auto, fp32, bf16 or int8, fp16 or tf32 on a GPU; the handler's settings decide if empty."""

    portable: bool = False
    """For other processors than this one as well: nothing is timed, engines come in a declared
    order, and the same inputs give the same archive on machines of one kind."""

    model_store: Path = MODEL_STORE
    """Folder that the archive is put into."""


def main() -> None:
    """`make mar`: package the model that the command line names."""
    settings = read(PackageSettings)
    try:
        choice = choose_model(settings.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
        order = PackagingOrder(
            model=choice.folder,
            name=settings.name or choice.name,
            version=settings.version,
            engine=settings.engine,
            precision=settings.precision,
            portable=settings.portable,
        )
        archive = build(order, settings.model_store.absolute())
    except (ModelUnavailable, PackagingError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Broken off.")
    if choice.notice:
        print(choice.notice)
    if archive.report:
        print(archive.report)
    state = "built" if archive.rebuilt else "up to date"
    print(f"{shown(archive.path)} ({archive.name} {archive.version}): {state}")
