"""What is done with model versions while they serve: each step waits until it is true.

Every step can be repeated: what is so already is said, and nothing is done twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aurea.archive.vetting import Vetted, archive_labels, archive_reference, vet
from aurea.files import sha256_of
from aurea.torchserve.addresses import Addresses
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError
from aurea.versions.capacity import free_memory_bytes
from aurea.versions.description import Description, serves
from aurea.versions.gpu_profile import batching_of
from aurea.versions.interruption import Interruption
from aurea.versions.outcome import CommandRefused, Outcome, Progress, counted
from aurea.versions.proof import prove
from aurea.versions.registry import Registry
from aurea.versions.scaling import Scaling
from aurea.versions.state import Canary, State
from aurea.versions.waiting import Waiting


class Lifecycle:
    """The versions of the model that a running service serves."""

    def __init__(
        self,
        torchserve: TorchServe,
        registry: Registry,
        addresses: Addresses,
        *,
        model_log: Path,
        timeout_s: float,
        progress: Progress,
        on_wait: Callable[[], None],
        interruption: Interruption | None = None,
        free_bytes: Callable[[], int] = free_memory_bytes,
    ) -> None:
        self._interruption = interruption or Interruption()
        self._torchserve = torchserve
        self._registry = registry
        self._name = addresses.model_name
        self._cards = addresses.cards
        self._timeout_s = timeout_s
        self._progress = progress
        self._on_wait = on_wait
        self._describe = Description(torchserve, registry, addresses)
        self._wait = Waiting(
            torchserve,
            self._name,
            model_log=model_log,
            timeout_s=timeout_s,
            progress=progress,
        )
        self._scaling = Scaling(
            torchserve,
            registry,
            self._wait,
            self._interruption,
            name=self._name,
            cores=addresses.cores,
            free_bytes=free_bytes,
        )

    def overview(self) -> Outcome:
        """All versions, the default first, with their workers."""
        return self._describe.overview()

    def show(self, version: str | None) -> Outcome:
        """One version with its workers and labels; the default where none is named."""
        return self._describe.show(version)

    def register(
        self,
        archive: Path,
        *,
        workers: int | None = None,
        trust: bool = False,
        allow_new_labels: bool = False,
        force: bool = False,
    ) -> Outcome:
        """Bring a new version up beside the others and have it prove its scores.

        It gets `workers` workers, or as many as the default has, and with `force` also more than
        the machine holds. Where it does not get
        ready, or scores otherwise than its packager measured, it is taken away again.
        """
        with self._changing() as state, self._registry.scratch() as scratch:
            default = self._torchserve.default()
            vetted = vet(
                archive,
                scratch / archive.name,
                served_name=self._name,
                served_labels=archive_labels(self._registry.store / default.archive),
                trust=trust,
                allow_new_labels=allow_new_labels,
            )
            version = vetted.version
            known = state.versions.get(version)
            registered = self._torchserve.versions().get(version)
            if known is not None and registered is not None and serves(registered, known):
                # What an earlier release registered is in the store as it was given.
                if known.sha256 != vetted.sha256 and known.sha256 != sha256_of(archive):
                    raise CommandRefused(
                        f"{self._name}/{version} is registered already, from another archive. "
                        "Build this one under a version of its own (make mar VERSION=...), or "
                        f"take the other away first: make models ARGS='retire {version}'"
                    )
                sentence = f"{self._name}/{version} is registered already"
            else:
                if registered is not None:
                    # A command was broken off between its first and its last step.
                    self._torchserve.unregister(version)
                wanted = workers or default.wanted
                if not force:
                    self._scaling.check_capacity(version, wanted)
                state = self._bring_up(state, vetted, archive, wanted)
                sentence = f"{self._name}/{version} is registered beside {default.version}" + (
                    f", its scores proven on {len(vetted.reference.clips)} reference clips"
                    if vetted.reference
                    else ", its scores not proven: it has no reference clips"
                )
            outcome = self._describe.after(state, version)
            ready, wanted = (outcome.facts[each] for each in ("workers_ready", "workers_wanted"))
            outcome.sentences.append(f"{sentence}; {ready} of {wanted} workers ready")
            if vetted.strange_code:
                outcome.sentences.append(f"trusted: {', '.join(vetted.strange_code)}")
            outcome.sentences += self._describe.oversubscription()
            return outcome

    def scale(self, workers: int, version: str | None, *, force: bool = False) -> Outcome:
        """Give a version, or the default, as many workers, without a request that fails.

        Refused where the machine does not hold them, but with `force`.
        """
        if workers < 1:
            raise CommandRefused(
                "A version without workers would let its requests wait for nothing. To take a "
                "version away: make models ARGS='retire VERSION'"
            )
        with self._changing() as state:
            version = version or self._torchserve.default().version
            before = self._describe.served(state, version)
            if before.wanted < workers and not force:
                self._scaling.check_capacity(version, workers)
            self._scaling.scale(state, before, workers)
            outcome = self._describe.after(state, version)
            outcome.sentences.append(
                f"{self._name}/{version} has {counted(workers, 'worker')}"
                + (", as before" if before.wanted == workers else f" instead of {before.wanted}")
            )
            outcome.sentences += self._describe.oversubscription()
            return outcome

    def promote(self, version: str, *, fewer_workers: bool = False) -> Outcome:
        """Let `version` answer; the default until now is kept for `roll_back`."""
        with self._changing() as state:
            candidate, default = self._describe.served(state, version), self._torchserve.default()
            if default.version != version:
                if candidate.wanted < default.wanted and not fewer_workers:
                    raise CommandRefused(
                        f"{self._name}/{version} has {candidate.wanted} workers where "
                        f"{default.version} has {default.wanted}. Give it as many first (make "
                        f"models ARGS='scale {default.wanted} --version {version}'), or add "
                        "--with-fewer-workers."
                    )
                self._wait.for_workers(version, candidate.wanted)
            state.make_default(version)
            self._switch(state)
            outcome = self._describe.after(state, version)
            outcome.sentences.append(
                f"{self._name}/{version} is the default already"
                if default.version == version
                else f"{self._name}/{version} answers; {default.version} is kept for a rollback"
            )
            return outcome

    def roll_back(self) -> Outcome:
        """Let the previous default answer at once, and no canary beside it."""
        with self._changing() as state:
            if not state.previous:
                if not state.left:
                    raise CommandRefused(
                        "There is no previous default to go back to. Versions that can be "
                        "promoted: make models ARGS=list"
                    )
                outcome = self._describe.after(state, state.default)
                outcome.sentences.append(
                    f"{self._name}/{state.default} is the default already, since {state.left} "
                    "was left"
                )
                return outcome
            if self._describe.served(state, state.previous).ready == 0:
                raise CommandRefused(
                    f"{self._name}/{state.previous} has no worker that is ready. What there "
                    "is: make models ARGS=list"
                )
            state.roll_back()
            self._switch(state)
            outcome = self._describe.after(state, state.default)
            outcome.sentences.append(
                f"{self._name}/{state.default} answers again; {state.left} is still registered"
            )
            return outcome

    def retire(self, version: str) -> Outcome:
        """Take a version and its archive away, once nobody waits for it any more."""
        with self._changing() as state:
            registered = self._torchserve.versions().get(version)
            if version == self._torchserve.default().version:
                raise CommandRefused(
                    f"{self._name}/{version} is the default. Let another version answer first: "
                    "make models ARGS='promote VERSION' (or rollback)"
                )
            if registered is None and version not in state.versions:
                if version not in state.retired:
                    raise self._describe.unknown(version)
                return Outcome(
                    {"model": self._name, "version": version, "registered": False},
                    [f"{self._name}/{version} is retired already"],
                )
            before = state.model_copy(deep=True)
            try:
                state.forget(version)
                self._remember(state)
                if registered is not None:
                    self._wait.for_routing()
                    self._wait.for_idle(version)
            except BaseException:
                # It still serves: then it is still registered, with its share of the requests.
                with self._interruption.held_back():
                    self._remember(before)
                raise
            with self._interruption.held_back():
                if registered is not None:
                    self._torchserve.unregister(version)
                self._registry.delete_leftovers(state)
            return Outcome(
                {"model": self._name, "version": version, "registered": False},
                [f"{self._name}/{version} is retired, its archive removed from the model store"],
            )

    def canary(self, version: str, percent: float) -> Outcome:
        """Let `version` answer a share of the requests beside the default."""
        with self._changing() as state:
            if not 0 < percent <= 100:
                raise CommandRefused(
                    "The share is a percentage above 0, up to 100. To end it: make models "
                    "ARGS='canary off'"
                )
            candidate = self._describe.served(state, version)
            if version == self._torchserve.default().version:
                raise CommandRefused(f"{self._name}/{version} is the default: it has it all.")
            self._wait.for_workers(version, candidate.wanted)
            before, state.canary = state.canary, Canary(version=version, percent=percent)
            self._remember(state)
            self._wait.for_routing()
            outcome = self._describe.after(state, version)
            outcome.sentences.append(
                f"{self._name}/{version} answers {percent:g} % of the requests"
                + (", as before" if before == state.canary else "")
            )
            return outcome

    def end_canary(self) -> Outcome:
        """Let the default answer all requests."""
        with self._changing() as state:
            before, state.canary = state.canary, None
            self._remember(state)
            self._wait.for_routing()
            outcome = self._describe.after(state, state.default)
            outcome.sentences.append(
                f"{self._name}/{state.default} answers all requests"
                + ("" if before else ", as before")
            )
            return outcome

    @contextmanager
    def _changing(self) -> Iterator[State]:
        with self._registry.locked(self._timeout_s, self._on_wait):
            state = self._registry.load()
            # Somebody may have set the default at TorchServe directly: then that one counts.
            default = self._torchserve.default().version
            if default in state.versions:
                state.make_default(default)
            self._settle(state, default)
            yield state

    def _settle(self, state: State, default: str) -> None:
        """Make TorchServe what the state says, where a step was killed or lost its connection."""
        self._scaling.settle(state)
        for version in self._torchserve.versions():
            if version in state.retired and version not in (*state.versions, default):
                self._torchserve.unregister(version)

    def _remember(self, state: State) -> None:
        with self._interruption.held_back():
            self._registry.save(state)
            self._registry.route(state)

    def _bring_up(self, state: State, vetted: Vetted, named: Path, workers: int) -> State:
        """Start and prove an archive beside the one that the version may have already.

        `named` is the archive that was given, of which only the vetted copy is loaded.

        `state` remembers the new one among its leftovers, whatever breaks this off. Returns the
        state, saved, in which the version is registered.
        """
        version = vetted.version
        saved = False
        try:
            record = self._registry.propose(state, vetted.path, version, named=named)
            archive = self._registry.store / record.archive
            self._torchserve.register(record.archive, **batching_of(archive, self._cards))
            self._torchserve.ask_workers(version, workers)
            self._wait.for_workers(version, workers)
            prove(self._torchserve, vetted, self._progress)
            record.workers = workers
            following = state.model_copy(deep=True)
            following.register(version, record)
            with self._interruption.held_back():
                self._registry.save(following)
                saved = True
                self._registry.route(following)
                self._registry.delete_leftovers(following)
        except BaseException as error:
            if saved:
                raise
            with self._interruption.held_back():
                with suppress(ManagementError):
                    self._torchserve.unregister(version)
                self._registry.delete_leftovers(state)
            if isinstance(error, (ManagementError, CommandRefused)):
                raise CommandRefused(
                    f"{self._name}/{version} was taken away again; what served before still "
                    f"does. {error}"
                ) from error
            raise
        return following

    def _switch(self, state: State) -> None:
        """Make TorchServe's default and the proxy's routing what `state` says, and see it."""
        with self._interruption.held_back():
            self._torchserve.set_default(state.default)
            self._remember(state)
        reference = archive_reference(self._registry.store / state.versions[state.default].archive)
        self._wait.for_default(state.default, reference[1] if reference else None)
