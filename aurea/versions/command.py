"""`make models`: register, compare, promote, scale and retire model versions while they serve.

Every command waits until what it was asked for is true, can be repeated without harm, and
with --json says what it did in JSON. It finds the service by its run folder.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import CliPositionalArg, CliSubCommand, SettingsConfigDict, get_subcommand
from tqdm import tqdm

from aurea.archive.errors import ArchiveRefused
from aurea.command_line import CommandLine, read
from aurea.files import write_whole
from aurea.paths import ROOT
from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError, Unreachable
from aurea.versions.comparison import compare, samples, since
from aurea.versions.declared import exported, read_declaration
from aurea.versions.interruption import Interruption
from aurea.versions.lifecycle import Lifecycle
from aurea.versions.outcome import CommandRefused, Outcome
from aurea.versions.presentation import listed, shown, side_by_side
from aurea.versions.reconcile import Reconciliation
from aurea.versions.registry import STATE_FOLDER, Registry, RegistryError

_SCRAPE_TIMEOUT_S: Final = 10.0
_MODEL_LOG: Final = "logs/model.log"


class Step(BaseModel, use_attribute_docstrings=True):
    """What every command can be told."""

    as_json: bool = Field(default=False, alias="json")
    """Say it in JSON."""
    timeout_s: float = 180.0
    """Longest wait for workers, in seconds."""


class List(Step):
    """All versions and their workers."""


class Show(Step):
    """One version; the default where none is named."""

    version: CliPositionalArg[str | None] = None
    """The version to show."""


class Register(Step):
    """Bring a version up beside the others and prove it."""

    archive: CliPositionalArg[Path]
    """What `make mar` has built."""
    workers: int | None = Field(default=None, ge=1)
    """How many it gets; as many as the default has, if not given."""
    trust: bool = False
    """Take code that is not ours, or no reference clips."""
    allow_new_labels: bool = False
    """Take other accents than the default's."""
    force: bool = False
    """Even if the machine does not hold so many workers."""


class Scale(Step):
    """Give a version that many workers."""

    workers: CliPositionalArg[int]
    """How many, at least 1."""
    version: str | None = None
    """The version to scale; the default where none is named."""
    force: bool = False
    """Even if the machine does not hold so many."""


class Promote(Step):
    """Let a version answer."""

    version: CliPositionalArg[str]
    """The version that is to answer."""
    with_fewer_workers: bool = False
    """Even if it has fewer than the default."""


class Rollback(Step):
    """Let the previous default answer again, at once."""


class Retire(Step):
    """Take a version that is not the default away."""

    version: CliPositionalArg[str]
    """The version to take away."""


class Share(Step):
    """Let a version answer a share of the requests."""

    version: CliPositionalArg[str]
    """A version, or off."""
    percent: CliPositionalArg[float | None] = None
    """The share, above 0 and up to 100."""


class Compare(Step):
    """Put versions side by side by what was measured."""

    versions: CliPositionalArg[list[str]] = []
    """The versions to compare; all where none is named."""
    for_s: float = 0.0
    """Only of so many seconds from now on; 0: of all."""


class Export(Step):
    """Write what is served as the file that VERSIONS= takes."""

    file: CliPositionalArg[Path | None] = None
    """Where to; standard output, if not given."""


class Reconcile(Step):
    """Make the service serve what such a file declares."""

    file: CliPositionalArg[Path]
    """The file, such as versions.yaml."""


class Models(CommandLine):
    """Register, compare, promote, scale and retire model versions while they serve."""

    model_config = SettingsConfigDict(cli_prog_name="models")

    run_dir: Path = ROOT / "run"
    """Run folder of the service."""
    listing: CliSubCommand[List] = Field(alias="list", description=List.__doc__)
    show: CliSubCommand[Show] = Field(description=Show.__doc__)
    registration: CliSubCommand[Register] = Field(alias="register", description=Register.__doc__)
    scale: CliSubCommand[Scale] = Field(description=Scale.__doc__)
    promote: CliSubCommand[Promote] = Field(description=Promote.__doc__)
    rollback: CliSubCommand[Rollback] = Field(description=Rollback.__doc__)
    retire: CliSubCommand[Retire] = Field(description=Retire.__doc__)
    canary: CliSubCommand[Share] = Field(description=Share.__doc__)
    compare: CliSubCommand[Compare] = Field(description=Compare.__doc__)
    export: CliSubCommand[Export] = Field(description=Export.__doc__)
    reconcile: CliSubCommand[Reconcile] = Field(description=Reconcile.__doc__)


def main(arguments: Sequence[str] | None = None) -> None:
    models = read(Models, arguments)
    step = get_subcommand(models, is_required=False)
    if not isinstance(step, Step):
        print("Say what to do, for example: list. All there is: --help", file=sys.stderr)
        sys.exit(2)
    interruption = Interruption()
    try:
        with interruption.watched():
            outcome = _run(models.run_dir.absolute(), step, interruption)
    except (CommandRefused, ArchiveRefused, ManagementError, RegistryError) as error:
        if step.as_json:
            print(json.dumps({"error": str(error)}))
            sys.exit(1)
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Broken off.")
    if step.as_json:
        print(json.dumps(outcome.facts, ensure_ascii=False, indent=1))
    else:
        print("\n".join(outcome.sentences))
    if outcome.facts.get("agreed") is False:
        sys.exit(1)


def _run(run_dir: Path, step: Step, interruption: Interruption) -> Outcome:
    addresses = _addresses(run_dir)
    registry = Registry(run_dir / STATE_FOLDER / addresses.model_name, addresses.model_name)
    torchserve = TorchServe(addresses)
    progress = _Bars()
    try:
        lifecycle = Lifecycle(
            torchserve,
            registry,
            addresses,
            model_log=run_dir / _MODEL_LOG,
            timeout_s=step.timeout_s,
            progress=progress,
            interruption=interruption,
            on_wait=lambda: print("waiting for another command to end", file=sys.stderr),
        )
        if isinstance(step, Export):
            return _export(step, registry, addresses)
        if isinstance(step, Reconcile):
            return _reconcile(step, lifecycle, registry, addresses)
        return _perform(step, lifecycle, addresses)
    except Unreachable as error:
        raise CommandRefused(
            f"No service answers in {run_dir}: {error} To start it: make serve"
        ) from error
    finally:
        progress.close()
        torchserve.close()


def _perform(step: Step, lifecycle: Lifecycle, addresses: Addresses) -> Outcome:
    outcome: Outcome
    match step:
        case List():
            outcome = lifecycle.overview()
            outcome.sentences = listed(outcome.facts)
        case Show():
            outcome = lifecycle.show(step.version)
            outcome.sentences = shown(outcome.facts)
        case Register():
            outcome = lifecycle.register(
                step.archive,
                workers=step.workers,
                trust=step.trust,
                allow_new_labels=step.allow_new_labels,
                force=step.force,
            )
        case Scale():
            outcome = lifecycle.scale(step.workers, step.version, force=step.force)
        case Promote():
            outcome = lifecycle.promote(step.version, fewer_workers=step.with_fewer_workers)
        case Rollback():
            outcome = lifecycle.roll_back()
        case Retire():
            outcome = lifecycle.retire(step.version)
        case Share(version="off"):
            outcome = lifecycle.end_canary()
        case Share(percent=None):
            raise CommandRefused("Say which share: canary VERSION PERCENT, or canary off.")
        case Share(version=version, percent=float(percent)):
            outcome = lifecycle.canary(version, percent)
        case Compare():
            outcome = _compare(step, lifecycle, addresses)
        case _:
            raise AssertionError(step)
    return outcome


def _export(step: Export, registry: Registry, addresses: Addresses) -> Outcome:
    declaration = exported(registry.load(), addresses.model_name, registry.store)
    facts = declaration.model_dump(exclude_defaults=True)
    if step.file is None:
        return Outcome(facts, [declaration.text().rstrip("\n")])
    try:
        write_whole(step.file, declaration.text())
    except OSError as error:
        raise CommandRefused(f"{step.file} cannot be written: {error.strerror or error}.") from None
    return Outcome(facts, [f"{step.file} declares what {addresses.model_name} serves now"])


def _reconcile(
    step: Reconcile, lifecycle: Lifecycle, registry: Registry, addresses: Addresses
) -> Outcome:
    declaration = read_declaration(step.file)
    reconciliation = Reconciliation(lifecycle, registry, addresses.model_name)
    return reconciliation.run(declaration, step.file.absolute().parent)


def _addresses(run_dir: Path) -> Addresses:
    try:
        return Addresses.model_validate_json((run_dir / ADDRESSES_FILE).read_bytes())
    except (OSError, ValidationError):
        raise CommandRefused(
            f"No service runs in {run_dir}. Start it with make serve, or name its folder: "
            "make models RUN_DIR=..."
        ) from None


class _Bars:
    """Progress on standard error, where somebody watches."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or what != self._what:
            self.close()
            self._what = what
            self._bar = tqdm(total=total, desc=what, unit="", leave=False, disable=None)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _compare(step: Compare, lifecycle: Lifecycle, addresses: Addresses) -> Outcome:
    overview = lifecycle.overview().facts
    roles = {each["version"]: each["role"] for each in overview["versions"]}
    unknown = [each for each in step.versions if each not in roles]
    if unknown:
        raise CommandRefused(f"Not registered: {', '.join(unknown)}. There are {', '.join(roles)}.")
    versions = step.versions or list(roles)
    urls = (addresses.proxy_metrics_url, addresses.metrics_url)
    with httpx.Client(timeout=_SCRAPE_TIMEOUT_S, trust_env=False) as client:
        pages = [samples(_scrape(client, url)) for url in urls]
        if step.for_s > 0:
            _wait(step.for_s)
            later = [samples(_scrape(client, url)) for url in urls]
            pages = [since(*each) for each in zip(pages, later, strict=True)]
    comparison = compare(pages[0], pages[1], versions)
    facts = {
        "model": overview["model"],
        "seconds": step.for_s or None,
        "unanswered": comparison.unanswered,
        "versions": [{**asdict(each), "role": roles[each.version]} for each in comparison.versions],
    }
    return Outcome(facts, side_by_side(comparison, roles))


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    with tqdm(total=round(seconds), desc="measuring", unit="s", leave=False, disable=None) as bar:
        while (left := end - time.monotonic()) > 0:
            bar.n = round(seconds - left)
            bar.refresh()
            time.sleep(min(1.0, left))


def _scrape(client: httpx.Client, url: str) -> str:
    try:
        answer = client.get(url).raise_for_status()
    except httpx.HTTPError as error:
        raise CommandRefused(f"No metrics from {url}: {error}") from error
    return answer.text


if __name__ == "__main__":
    main()
