"""What there is to say of the versions, from what is remembered and what TorchServe serves."""

from typing import Any

from aurea.archive.vetting import archive_labels
from aurea.names import version_order
from aurea.torchserve.addresses import Addresses
from aurea.torchserve.answers import RegisteredVersion
from aurea.torchserve.client import TorchServe
from aurea.versions.outcome import CommandRefused, Outcome, counted
from aurea.versions.registry import Registry
from aurea.versions.state import State, VersionRecord


class Description:
    """The versions of the model that a running service serves, in facts and sentences."""

    def __init__(self, torchserve: TorchServe, registry: Registry, addresses: Addresses) -> None:
        self._torchserve = torchserve
        self._registry = registry
        self._addresses = addresses
        self._name = addresses.model_name

    def overview(self) -> Outcome:
        """All versions, the default first, with their workers."""
        state, registered = self._registry.load(), self._torchserve.versions()
        default = self._torchserve.default().version
        others = sorted(registered, key=version_order)
        order = dict.fromkeys([default, *state.in_order(), *others])
        return Outcome(
            {
                "model": self._name,
                "url": self._addresses.proxy_url,
                "default": default,
                "previous": state.previous or None,
                "canary": state.canary.model_dump() if state.canary else None,
                "versions": [
                    _described(version, state, registered.get(version), default)
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
            raise self.unknown(version)
        facts = _described(version, state, registered, default)
        if registered is not None:
            facts["labels"] = list(archive_labels(self._registry.store / registered.archive))
            facts["batch_size"] = registered.batch_size
            facts["processes"] = [
                {"pid": each.pid, "status": each.status, "memory_bytes": each.memory_bytes}
                for each in registered.workers
            ]
        return Outcome({"model": self._name, **facts})

    def after(self, state: State, version: str) -> Outcome:
        """One version and the default, once a step is done; still without sentences."""
        registered = self._torchserve.versions().get(version)
        return Outcome(
            {
                "model": self._name,
                **_described(version, state, registered, state.default),
                "default": state.default,
                "previous": state.previous or None,
                "canary": state.canary.model_dump() if state.canary else None,
            }
        )

    def served(self, state: State, version: str) -> RegisteredVersion:
        """A version that serves and that a restart would bring back.

        Raises `CommandRefused` for any other.
        """
        registered = self._torchserve.versions().get(version)
        record = state.versions.get(version)
        if registered is not None and record is not None and serves(registered, record):
            return registered
        if record is not None and record.failed:
            raise CommandRefused(
                f"{self._name}/{version} could not be loaded when the service started: "
                f"{record.failed}. Register a sound archive of it, or retire it."
            )
        if registered is not None and record is not None:
            raise CommandRefused(
                f"{self._name}/{version} is not proven: a command that registered another archive "
                "of it was broken off. To end that: make models ARGS='register ARCHIVE'"
            )
        raise self.unknown(version)

    def unknown(self, version: str) -> CommandRefused:
        """What to raise for a version that is not there."""
        there = ", ".join(sorted(self._torchserve.versions(), key=version_order))
        return CommandRefused(
            f"{self._name}/{version} is not registered; there are {there}. To register it: "
            "make models ARGS='register ARCHIVE'"
        )

    def oversubscription(self) -> list[str]:
        """A sentence where there are more threads than cores, else none."""
        workers = sum(each.wanted for each in self._torchserve.versions().values())
        threads, cores = self._addresses.threads_per_worker, self._addresses.cores
        if workers * threads <= cores:
            return []
        return [
            f"note: {counted(workers, 'worker')} of {counted(threads, 'thread')} share "
            f"{counted(cores, 'core')}; while all of them are busy each is slower"
        ]


def serves(registered: RegisteredVersion, record: VersionRecord) -> bool:
    """Whether what TorchServe serves is what is remembered, and not a step broken off."""
    return not record.failed and registered.archive == record.archive


def _described(
    version: str, state: State, registered: RegisteredVersion | None, default: str
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
