"""What is done with model versions while they serve: each step waits until it is true.

Every step can be repeated: what is so already is said, and nothing is done twice.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from aurea.archive.documents import ReferenceClip
from aurea.archive.vetting import Vetted, archive_labels, archive_reference, vet
from aurea.torchserve.management import (
    Addresses,
    ManagementError,
    RegisteredVersion,
    TorchServe,
    WorkersFailed,
    await_workers,
    last_complaint,
)
from aurea.versions.registry import Canary, Registry, State, VersionRecord

# The proxy looks at the routing file four times a second at most.
_ROUTING_S: Final = 0.3
# Between two workers that are taken away: what the first one held is tried once more by the
# proxy, and should not meet the end of the second.
_SETTLE_S: Final = 1.0
_IDLE_LOOK_S: Final = 0.2
_IDLE_TIMEOUT_S: Final = 30.0
_DEFAULT_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05


class CommandRefused(Exception):
    """A step that would do harm or cannot be done. The message says why and what to do."""


@dataclass
class Outcome:
    """What a step did: sentences for people, facts for programs."""

    facts: dict[str, Any]
    sentences: list[str] = field(default_factory=list)


class Progress(Protocol):
    """Told how far a wait has come."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are there."""


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
    ) -> None:
        self._torchserve = torchserve
        self._registry = registry
        self._addresses = addresses
        self._name = addresses.model_name
        self._model_log = model_log
        self._timeout_s = timeout_s
        self._progress = progress
        self._on_wait = on_wait

    def overview(self) -> Outcome:
        """All versions, the default first, with their workers."""
        state, registered = self._registry.load(), self._torchserve.versions()
        default = self._torchserve.default().version
        order = dict.fromkeys([default, *state.in_order(), *registered])
        return Outcome(
            {
                "model": self._name,
                "url": self._addresses.proxy_url,
                "default": default,
                "previous": state.previous or None,
                "canary": state.canary.model_dump() if state.canary else None,
                "versions": [
                    self._described(version, state, registered.get(version), default)
                    for version in order
                ],
            }
        )

    def show(self, version: str | None) -> Outcome:
        """One version with its workers and labels; the default where none is named."""
        state, default = self._registry.load(), self._torchserve.default().version
        version = version or default
        registered = self._torchserve.versions().get(version)
        if registered is None and version not in state.versions:
            raise self._unknown(version)
        facts = self._described(version, state, registered, default)
        if registered is not None:
            facts["labels"] = list(archive_labels(self._registry.store / registered.archive))
            facts["batch_size"] = registered.batch_size
            facts["processes"] = [
                {"pid": each.pid, "status": each.status, "memory_bytes": each.memory_bytes}
                for each in registered.workers
            ]
        return Outcome({"model": self._name, **facts})

    def register(
        self,
        archive: Path,
        *,
        workers: int | None = None,
        trust: bool = False,
        allow_new_labels: bool = False,
    ) -> Outcome:
        """Bring a new version up beside the others and have it prove its scores.

        It gets `workers` workers, or as many as the default has. Where it does not get
        ready, or scores otherwise than its packager measured, it is taken away again.
        """
        with self._changing() as state:
            default = self._torchserve.default()
            vetted = vet(
                archive,
                served_name=self._name,
                served_labels=archive_labels(self._registry.store / default.archive),
                trust=trust,
                allow_new_labels=allow_new_labels,
            )
            version = vetted.version
            known, registered = state.versions.get(version), self._torchserve.versions()
            if known is not None and version in registered:
                if known.sha256 != vetted.sha256:
                    raise CommandRefused(
                        f"{self._name}/{version} is registered already, from another archive. "
                        "Build this one under a version of its own (make mar VERSION=...), or "
                        f"take the other away first: make models ARGS='retire {version}'"
                    )
                sentence = f"{self._name}/{version} is registered already"
            else:
                if version in registered:
                    # A command was broken off between its first and its last step.
                    self._torchserve.unregister(version)
                count = workers or default.wanted
                record = self._bring_up(vetted, count, keep_archive=known is not None)
                state.versions[version] = record
                state.retired = [each for each in state.retired if each != version]
                self._registry.save(state)
                self._registry.route(state)
                sentence = f"{self._name}/{version} is registered beside {default.version}" + (
                    f", its scores proven on {len(vetted.reference.clips)} reference clips"
                    if vetted.reference
                    else ", its scores not proven: it has no reference clips"
                )
            outcome = self._outcome(state, version)
            ready, wanted = (outcome.facts[each] for each in ("workers_ready", "workers_wanted"))
            outcome.sentences.append(f"{sentence}; {ready} of {wanted} workers ready")
            if vetted.strange_code:
                outcome.sentences.append(f"trusted: {', '.join(vetted.strange_code)}")
            outcome.sentences += self._oversubscription()
            return outcome

    def scale(self, workers: int, version: str | None) -> Outcome:
        """Give a version, or the default, as many workers, without a request that fails."""
        if workers < 1:
            raise CommandRefused(
                "A version without workers would let its requests wait for nothing. To take a "
                "version away: make models ARGS='retire VERSION'"
            )
        with self._changing() as state:
            version = version or self._torchserve.default().version
            before = self._registered(state, version)
            if before.wanted < workers:
                self._scale_up(before, workers)
            else:
                self._scale_down(before, workers)
            state.versions[version].workers = workers
            self._registry.save(state)
            outcome = self._outcome(state, version)
            outcome.sentences.append(
                f"{self._name}/{version} has {_counted(workers, 'worker')}"
                + (", as before" if before.wanted == workers else f" instead of {before.wanted}")
            )
            outcome.sentences += self._oversubscription()
            return outcome

    def promote(self, version: str, *, fewer_workers: bool = False) -> Outcome:
        """Let `version` answer; the default until now is kept for `roll_back`."""
        with self._changing() as state:
            candidate, default = self._registered(state, version), self._torchserve.default()
            if default.version != version:
                if candidate.wanted < default.wanted and not fewer_workers:
                    raise CommandRefused(
                        f"{self._name}/{version} has {candidate.wanted} workers where "
                        f"{default.version} has {default.wanted}. Give it as many first (make "
                        f"models ARGS='scale {default.wanted} --version {version}'), or add "
                        "--with-fewer-workers."
                    )
                self._await_workers(version, candidate.wanted)
            state.make_default(version)
            self._switch(state)
            outcome = self._outcome(state, version)
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
                outcome = self._outcome(state, state.default)
                outcome.sentences.append(
                    f"{self._name}/{state.default} is the default already, since {state.left} "
                    "was left"
                )
                return outcome
            if self._registered(state, state.previous).ready == 0:
                raise CommandRefused(
                    f"{self._name}/{state.previous} has no worker that is ready. What there "
                    "is: make models ARGS=list"
                )
            state.roll_back()
            self._switch(state)
            outcome = self._outcome(state, state.default)
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
                    raise self._unknown(version)
                return Outcome(
                    {"model": self._name, "version": version, "registered": False},
                    [f"{self._name}/{version} is retired already"],
                )
            state.forget(version)
            self._registry.save(state)
            self._registry.route(state)
            if registered is not None:
                time.sleep(_ROUTING_S)
                self._await_idle(version)
                self._torchserve.unregister(version)
            self._registry.discard_strays(state)
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
            candidate = self._registered(state, version)
            if version == self._torchserve.default().version:
                raise CommandRefused(f"{self._name}/{version} is the default: it has it all.")
            self._await_workers(version, candidate.wanted)
            before, state.canary = state.canary, Canary(version=version, percent=percent)
            self._registry.save(state)
            self._registry.route(state)
            time.sleep(_ROUTING_S)
            outcome = self._outcome(state, version)
            outcome.sentences.append(
                f"{self._name}/{version} answers {percent:g} % of the requests"
                + (", as before" if before == state.canary else "")
            )
            return outcome

    def end_canary(self) -> Outcome:
        """Let the default answer all requests."""
        with self._changing() as state:
            before, state.canary = state.canary, None
            self._registry.save(state)
            self._registry.route(state)
            time.sleep(_ROUTING_S)
            outcome = self._outcome(state, state.default)
            outcome.sentences.append(
                f"{self._name}/{state.default} answers all requests"
                + ("" if before else ", as before")
            )
            return outcome

    @contextmanager
    def _changing(self) -> Iterator[State]:
        with self._registry.locked(self._timeout_s, self._on_wait):
            state = self._registry.load()
            # TorchServe's own word counts, should somebody have asked it directly.
            default = self._torchserve.default().version
            if default in state.versions:
                state.make_default(default)
            yield state

    def _bring_up(self, vetted: Vetted, workers: int, *, keep_archive: bool) -> VersionRecord:
        version = vetted.version
        record = self._registry.place(vetted.path, version)
        try:
            self._torchserve.register(record.archive)
            self._torchserve.ask_workers(version, workers)
            self._await_workers(version, workers)
            self._prove(vetted)
        except BaseException as error:
            with suppress(ManagementError):
                self._torchserve.unregister(version)
            if not keep_archive:
                (self._registry.store / record.archive).unlink(missing_ok=True)
            if isinstance(error, (ManagementError, CommandRefused)):
                raise CommandRefused(
                    f"{self._name}/{version} was taken away again; what served before still "
                    f"does. {error}"
                ) from error
            raise
        record.workers = workers
        return record

    def _prove(self, vetted: Vetted) -> None:
        """Raise `CommandRefused` unless the worker scores as some one precision did."""
        if vetted.reference is None:
            return
        clips = vetted.reference.clips
        answers = []
        for index, clip in enumerate(clips):
            self._progress("reference clips scored", index, len(clips))
            answers.append(self._torchserve.predict(vetted.clip(clip), vetted.version))
        self._progress("reference clips scored", len(clips), len(clips))
        faults = {
            precision: _fault(clips, answers, precision, tolerance)
            for precision, tolerance in vetted.reference.tolerance_points.items()
        }
        if all(faults.values()):
            raise CommandRefused(
                "Its worker does not score the reference clips as its packager measured: "
                + "; ".join(f"{precision}: {fault}" for precision, fault in faults.items())
            )

    def _scale_up(self, before: RegisteredVersion, workers: int) -> None:
        self._torchserve.ask_workers(before.version, workers)
        try:
            self._await_workers(before.version, workers)
        except WorkersFailed as error:
            self._torchserve.ask_workers(before.version, before.wanted)
            raise CommandRefused(
                f"{error} {self._name}/{before.version} keeps its {before.wanted} workers."
            ) from error

    def _scale_down(self, before: RegisteredVersion, workers: int) -> None:
        # TorchServe ends a worker under its clips; the proxy tries those once more.
        for count in range(before.wanted - 1, workers - 1, -1):
            self._torchserve.ask_workers(before.version, count)
            self._await_workers(before.version, count)
            if count > workers:
                time.sleep(_SETTLE_S)
        self._await_workers(before.version, workers)

    def _await_workers(self, version: str, count: int) -> None:
        try:
            await_workers(
                self._torchserve,
                version,
                count,
                timeout_s=self._timeout_s,
                on_ready=lambda ready: self._progress(f"{version}: workers ready", ready, count),
            )
        except WorkersFailed as error:
            complaint = last_complaint(self._model_log, self._name, version)
            raise WorkersFailed(f"{error} {complaint}".strip()) from error

    def _switch(self, state: State) -> None:
        """Make TorchServe's default and the proxy's routing what `state` says, and see it."""
        self._torchserve.set_default(state.default)
        self._registry.save(state)
        self._registry.route(state)
        reference = archive_reference(self._registry.store / state.versions[state.default].archive)
        deadline = time.monotonic() + _DEFAULT_TIMEOUT_S
        while True:
            answering = self._torchserve.default().version
            if answering == state.default and reference is not None:
                answering = str(self._torchserve.predict(reference[1])["model"]["version"])
            if answering == state.default:
                return
            if time.monotonic() > deadline:
                raise CommandRefused(
                    f"TorchServe was told to, and still {answering} answers. Try again."
                )
            time.sleep(_POLL_S)

    def _await_idle(self, version: str) -> None:
        """Wait until nothing waits for a version and its workers compute nothing.

        Ends after a while all the same: whoever is left is tried once more by the proxy.
        """
        deadline = time.monotonic() + _IDLE_TIMEOUT_S
        before = -1.0
        while time.monotonic() < deadline:
            described = self._torchserve.version(version)
            busy_s = sum(_cpu_s(worker.pid) for worker in described.workers)
            if described.queue.pending == 0 and busy_s == before:
                return
            before = busy_s
            time.sleep(_IDLE_LOOK_S)

    def _registered(self, state: State, version: str) -> RegisteredVersion:
        """A version that serves and that a restart would bring back."""
        registered = self._torchserve.versions().get(version)
        if registered is not None and version in state.versions:
            return registered
        record = state.versions.get(version)
        if record is not None and record.failed:
            raise CommandRefused(
                f"{self._name}/{version} could not be loaded when the service started: "
                f"{record.failed}. Register a sound archive of it, or retire it."
            )
        raise self._unknown(version)

    def _unknown(self, version: str) -> CommandRefused:
        there = ", ".join(self._torchserve.versions())
        return CommandRefused(
            f"{self._name}/{version} is not registered; there are {there}. To register it: "
            "make models ARGS='register ARCHIVE'"
        )

    def _oversubscription(self) -> list[str]:
        workers = sum(each.wanted for each in self._torchserve.versions().values())
        threads, cores = self._addresses.threads_per_worker, self._addresses.cores
        if workers * threads <= cores:
            return []
        return [
            f"note: {_counted(workers, 'worker')} of {_counted(threads, 'thread')} share "
            f"{_counted(cores, 'core')}; while all of them are busy each is slower"
        ]

    def _outcome(self, state: State, version: str) -> Outcome:
        registered = self._torchserve.versions().get(version)
        return Outcome(
            {
                "model": self._name,
                **self._described(version, state, registered, state.default),
                "default": state.default,
                "previous": state.previous or None,
                "canary": state.canary.model_dump() if state.canary else None,
            }
        )

    def _described(
        self,
        version: str,
        state: State,
        registered: RegisteredVersion | None,
        default: str,
    ) -> dict[str, Any]:
        record = state.versions.get(version)
        return {
            "version": version,
            "role": _role(version, state, default),
            "registered": registered is not None,
            "workers_ready": registered.ready if registered else 0,
            "workers_wanted": registered.wanted if registered else 0,
            "waiting": registered.queue.pending if registered else 0,
            "archive": record.archive if record else None,
            "sha256": record.sha256 if record else None,
            "failed": (record.failed or None) if record else None,
        }


def _role(version: str, state: State, default: str) -> str:
    if version == default:
        return "default"
    if state.canary is not None and state.canary.version == version:
        return f"canary {state.canary.percent:g} %"
    return "previous" if version == state.previous else ""


def _fault(
    clips: Sequence[ReferenceClip],
    answers: Sequence[dict[str, Any]],
    precision: str,
    tolerance_points: float,
) -> str:
    """How the answers differ from what was measured in `precision`; empty where they do not."""
    for clip, answer in zip(clips, answers, strict=True):
        expected, scored = clip.us_confidence.get(precision), answer["us_confidence"]
        if expected is None:
            return f"{clip.file} was not measured"
        if abs(scored - expected) > tolerance_points:
            return f"{clip.file} scores {scored:g} and not {expected:g} ± {tolerance_points:g}"
        scores = {each["label"]: 100 * each["score"] for each in answer["accents"]}
        # Two accents that are about as likely may change places within the tolerance.
        if max(scores.values()) - scores.get(clip.top_accent, 0.0) > 2 * tolerance_points:
            return f"{clip.file} sounds like {answer['accents'][0]['label']}, not {clip.top_accent}"
    return ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _cpu_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, ValueError):
        return 0.0
    return float(times.user + times.system)
