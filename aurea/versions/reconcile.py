"""Makes a running service serve what `versions.yaml` declares, by the steps of `make models`."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from aurea.archive.errors import ArchiveRefused
from aurea.torchserve.errors import ManagementError, Unreachable
from aurea.versions.declared import Declaration, DeclaredVersion, checked_copy, differences
from aurea.versions.fetching import have_archive
from aurea.versions.lifecycle import Lifecycle
from aurea.versions.outcome import CommandRefused, Outcome
from aurea.versions.registry import Registry, RegistryBusy


class Reconciliation:
    """Brings one service to what is declared. Can be repeated: what is so already is left alone.

    A version that cannot be had, or does not score its reference clips as its packager measured,
    is left out and said, and what served before goes on.
    """

    def __init__(self, lifecycle: Lifecycle, registry: Registry, name: str) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._name = name
        self._said: list[str] = []
        self._refused: list[str] = []

    def run(self, declaration: Declaration, folder: Path) -> Outcome:
        """Reconcile; paths of archives count from `folder`.

        The facts say in `agreed` whether the service is now what is declared. Raises
        `CommandRefused` for another model, and what says that nothing can be changed now:
        `Unreachable`, `RegistryBusy`.
        """
        if declaration.model != self._name:
            raise CommandRefused(
                f"versions.yaml declares {declaration.model}, served here is {self._name}. "
                "A service serves one model's versions."
            )
        for version, declared in declaration.versions.items():
            self._attempt(version, partial(self._have, version, declared, folder))
        self._attempt(declaration.default, lambda: self._answer(declaration))
        self._share(declaration)
        if self._registry.load().default == declaration.default:
            for version in set(self._registry.load().versions) - set(declaration.versions):
                self._attempt(version, partial(self._lifecycle.retire, version))
        left = differences(declaration, self._registry.load())
        if not left and not self._refused:
            self._said.append(f"{self._name}: the service serves what is declared")
        return Outcome(
            {
                "model": self._name,
                "agreed": not left and not self._refused,
                "differences": left,
                "refused": self._refused,
            },
            self._said,
        )

    def _have(self, version: str, declared: DeclaredVersion, folder: Path) -> Outcome | None:
        """Have a version registered from its archive, with its workers."""
        record = self._registry.load().versions.get(version)
        if record is None or record.failed or record.sha256 != declared.sha256:
            with tempfile.TemporaryDirectory(dir=self._registry.store.parent) as scratch:
                copy = Path(scratch) / f"{version}.mar"
                if declared.source:
                    have_archive(declared, folder)
                checked_copy(folder / declared.archive, copy, declared.sha256)
                return self._lifecycle.register(
                    copy,
                    workers=declared.workers,
                    trust=declared.trust,
                    allow_new_labels=declared.allow_new_labels,
                )
        if declared.workers not in (None, record.workers):
            return self._lifecycle.scale(declared.workers, version)
        return None

    def _answer(self, declaration: Declaration) -> Outcome | None:
        if self._registry.load().default == declaration.default:
            return None
        return self._lifecycle.promote(declaration.default, fewer_workers=True)

    def _share(self, declaration: Declaration) -> None:
        """Give the declared canary its share, or nobody one."""
        canary, now = declaration.canary, self._registry.load().canary
        if canary is not None and (
            now is None or (now.version, now.percent) != (canary.version, canary.percent)
        ):
            self._attempt(
                canary.version, lambda: self._lifecycle.canary(canary.version, canary.percent)
            )
        now = self._registry.load().canary
        if now is not None and (canary is None or now.version != canary.version):
            self._attempt(now.version, self._lifecycle.end_canary)

    def _attempt(self, version: str, step: Callable[[], Outcome | None]) -> None:
        try:
            outcome = step()
        except (Unreachable, RegistryBusy):
            raise
        except (CommandRefused, ArchiveRefused, ManagementError) as error:
            sentence = f"{self._name}/{version} is not as it is declared: {error}"
            self._refused.append(sentence)
            self._said.append(sentence)
        else:
            self._said += outcome.sentences if outcome else []
