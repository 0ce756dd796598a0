"""Brings back what was registered: the default first, then every other version.

A version that cannot be loaded is left out with the reason; if it was the default, the one
before it answers.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from aurea.archive.errors import ArchiveRefused
from aurea.archive.repacking import check_sound
from aurea.archive.vetting import Vetted, archive_reference
from aurea.service.children import tail
from aurea.service.console import say
from aurea.service.errors import ServiceFailed
from aurea.service.readiness import attended
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError
from aurea.torchserve.workers import await_workers, last_complaint
from aurea.versions.gpu_profile import batching_of
from aurea.versions.outcome import CommandRefused
from aurea.versions.proof import prove
from aurea.versions.registry import ArchiveChanged, Registry
from aurea.versions.state import State


class Restoring:
    """Loads the versions of a registry's state into a TorchServe that has just started."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        state: State,
        torchserve: TorchServe,
        *,
        workers: Callable[[str], int],
        model_log: Path,
        ready_timeout_s: float,
        check_alive: Callable[[], None],
        cards: int = 0,
        proven: bool = False,
    ) -> None:
        """`workers` says how many a version gets; `check_alive` raises once a process is gone.

        `cards` is the number of the machine's GPUs. With `proven` a version counts as loaded once
        it scores its reference clips as measured.
        """
        self._name = name
        self._registry = registry
        self._state = state
        self._torchserve = torchserve
        self._workers = workers
        self._model_log = model_log
        self._ready_timeout_s = ready_timeout_s
        self._check_alive = check_alive
        self._cards = cards
        self._proven = proven
        self._tried: set[str] = set()

    def load_default(self) -> str:
        """Load the first version that can be loaded, the remembered default before others.

        Returns it. Raises `ServiceFailed` where there is none.
        """
        for version in self._state.in_order():
            if not self._try(version):
                continue
            if version != self._state.default:
                say(f"NOTE: {self._name}/{version} answers in place of {self._state.default}")
                self._state.fall_back(version)
            self._torchserve.set_default(version)
            self._registry.save(self._state)
            self._registry.route(self._state.model_copy(update={"canary": None}))
            return version
        raise ServiceFailed("The workers cannot load the model.\n" + tail(self._model_log))

    def load_others(self) -> None:
        """Load what is registered beside the default; leave out what cannot be loaded."""
        for version in self._state.in_order():
            if version not in self._tried:
                self._try(version)
        canary = self._state.canary
        if canary is not None and self._state.versions[canary.version].failed:
            say(f"NOTE: {self._name}/{canary.version} gets no share of the requests")
            self._state.canary = None
        self._registry.save(self._state)
        self._registry.route(self._state)
        self._registry.delete_leftovers(self._state)

    def _try(self, version: str) -> bool:
        """Load one version with its workers; if it fails take it away and remember why."""
        self._tried.add(version)
        try:
            attended(lambda: self._load(version), self._check_alive)
        except (ManagementError, ArchiveChanged, ArchiveRefused, CommandRefused) as error:
            self._check_alive()
            complaint = last_complaint(self._model_log, self._name, version)
            reason = " ".join(f"{error} {complaint}".split())
            self._state.not_loaded(version, reason)
            say(f"NOTE: {self._name}/{version} is not served: {reason}")
            with suppress(ManagementError):
                attended(lambda: self._torchserve.unregister(version), self._check_alive)
            return False
        self._state.loaded(version)
        return True

    def _load(self, version: str) -> None:
        workers = self._workers(version)
        # TorchServe would take what is no archive for an empty model of version 1.0.
        self._registry.check(self._state.versions[version])
        # An earlier release may have put it into the store as somebody gave it.
        archive = self._registry.store / self._state.versions[version].archive
        check_sound(archive)
        self._torchserve.register(archive.name, **batching_of(archive, self._cards))
        self._torchserve.ask_workers(version, workers)
        # No bar where nobody watches: a log would get a line for every step of it.
        description = f"    {version}: workers ready"
        with tqdm(total=workers, desc=description, unit="", disable=None) as bar:

            def show(ready: int) -> None:
                bar.n = ready
                bar.refresh()

            await_workers(
                self._torchserve,
                version,
                workers,
                timeout_s=self._ready_timeout_s,
                # Each may die once, of something that passes.
                max_deaths=workers,
                on_ready=show,
            )
        if self._proven:
            self._prove(version)

    def _prove(self, version: str) -> None:
        record = self._state.versions[version]
        path = self._registry.store / record.archive
        reference = archive_reference(path)
        if reference is not None:
            prove(
                self._torchserve,
                Vetted(path, self._name, version, record.sha256, (), (), reference[0]),
                lambda what, done, total: None,  # noqa: ARG005
            )
