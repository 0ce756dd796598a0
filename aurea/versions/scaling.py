"""Numbers of workers: given, taken, and given back where that is broken off or fails."""

from collections.abc import Callable

from aurea.torchserve.answers import RegisteredVersion
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError
from aurea.versions.capacity import Capacity, worker_bytes
from aurea.versions.description import serves
from aurea.versions.interruption import Interruption
from aurea.versions.outcome import CommandRefused, counted
from aurea.versions.registry import Registry
from aurea.versions.state import State
from aurea.versions.waiting import Waiting


class Scaling:
    """Changes how many workers versions have, at TorchServe and in the state alike."""

    def __init__(
        self,
        torchserve: TorchServe,
        registry: Registry,
        wait: Waiting,
        interruption: Interruption,
        *,
        name: str,
        cores: int,
        free_bytes: Callable[[], int],
    ) -> None:
        """`free_bytes` says how much memory is free."""
        self._torchserve = torchserve
        self._registry = registry
        self._wait = wait
        self._interruption = interruption
        self._name = name
        self._cores = cores
        self._free_bytes = free_bytes

    def check_capacity(self, version: str, workers: int) -> None:
        """Raise `CommandRefused` where the machine does not hold so many workers of a version."""
        versions = self._torchserve.versions()
        pids = [each.pid for served in versions.values() for each in served.workers]
        capacity = Capacity(self._cores, self._free_bytes(), worker_bytes(pids))
        own = versions[version].wanted if version in versions else 0
        refusal = capacity.refusal(
            workers, own, others=sum(each.wanted for each in versions.values()) - own
        )
        if refusal is not None:
            raise CommandRefused(f"{refusal} Ask for fewer, or go beyond with --force.")

    def scale(self, state: State, before: RegisteredVersion, workers: int) -> None:
        """Give a version `workers` workers and remember it, or leave it as it was.

        Raises `CommandRefused` where they do not become ready.
        """
        record = state.versions[before.version]
        remembered = record.workers
        # Should this process be killed, the next command reads how many there were.
        record.workers = before.wanted
        try:
            self._registry.save(state)
            if before.wanted < workers:
                self._torchserve.ask_workers(before.version, workers)
                self._wait.for_workers(before.version, workers)
            else:
                self._scale_down(before, workers)
            record.workers = workers
            self._registry.save(state)
        except BaseException as error:
            with self._interruption.held_back():
                sentence = self._undo(state, before, remembered)
            if isinstance(error, ManagementError):
                raise CommandRefused(f"{error} {sentence}") from error
            raise

    def settle(self, state: State) -> None:
        """Give versions the workers that the state remembers, after a step that was killed."""
        for version, registered in self._torchserve.versions().items():
            record = state.versions.get(version)
            if record is None or record.workers is None or not serves(registered, record):
                continue
            if registered.wanted != record.workers:
                self._torchserve.ask_workers(version, record.workers)

    def _undo(self, state: State, before: RegisteredVersion, remembered: int | None) -> str:
        """Restore what there was. Returns a sentence on what holds now."""
        version, record = before.version, state.versions[before.version]
        record.workers = before.wanted
        try:
            self._torchserve.ask_workers(version, before.wanted)
            record.workers = remembered
        except ManagementError:
            sentence = (
                f"{self._name}/{version} gets its {counted(before.wanted, 'worker')} back with "
                "the next command."
            )
        else:
            sentence = f"{self._name}/{version} keeps its {counted(before.wanted, 'worker')}."
        self._registry.save(state)
        return sentence

    def _scale_down(self, before: RegisteredVersion, workers: int) -> None:
        # TorchServe ends a worker under its clips; the proxy tries those once more.
        for count in range(before.wanted - 1, workers - 1, -1):
            self._torchserve.ask_workers(before.version, count)
            self._wait.for_workers(before.version, count)
            if count > workers:
                self._wait.for_retries()
        self._wait.for_workers(before.version, workers)
