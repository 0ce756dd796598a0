"""What is registered under a model's name, remembered beyond a restart.

One folder a name: `models.json` (versions, default, canary), `store/` (TorchServe's model
store, one archive a version), `quarantine/` (archives of the store that no version names),
`scratch/` (there while an archive is looked at) and `routing.json`, which the proxy reads.

An archive is only deleted where the state says that it may be: see `State.leftovers`.
"""

import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from aurea.archive.settings import archive_limits
from aurea.files import sha256_of, whole_file
from aurea.names import version_order
from aurea.versions.state import State, StoredArchive, VersionRecord, parse

STATE_FOLDER: Final = "state"
"""In the run folder; a folder for each model's name lies in it."""

_LOCK_POLL_S: Final = 0.1
_DIGEST_CHARS: Final = 12
# What `whole_file` leaves of an archive when its writer is killed.
_HALF_WRITTEN: Final = re.compile(r".*\.\d+\.part\.mar")


class RegistryError(Exception):
    """What is registered cannot be read or changed. The message says why and what to do."""


class RegistryBusy(RegistryError):
    """Another command changes the versions."""


class StateUnreadable(RegistryError):
    """The state's file is damaged, or does not fit the archives. Nothing was changed."""


class RegistryUnwritable(RegistryError):
    """A file of the registry cannot be written."""


class ArchiveChanged(Exception):
    """An archive in the store is not the one that was put there."""


class Registry:
    """The folder of one model's name. Change it only under `locked`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._state_file = folder / "models.json"
        self._scratch = folder / "scratch"
        self.store = folder / "store"
        self.quarantine = folder / "quarantine"
        self.routing_file = folder / "routing.json"

    def prepare(self) -> None:
        """Make the folders. Raises `StateUnreadable` unless state and store fit together."""
        self.store.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = self.load()
        strays = self._strays(state)
        lost = [
            (version, record.archive)
            for version, record in state.versions.items()
            if not (self.store / record.archive).exists()
        ]
        if strays and not state.versions:
            raise self._unreadable(
                f"it names no version, while {self.store} holds {', '.join(strays)}"
            )
        if strays and lost:
            version, archive = lost[0]
            raise self._unreadable(
                f"versions.{version}.archive: {archive} is not in {self.store}, which holds "
                f"{', '.join(strays)} that no version names"
            )

    @contextmanager
    def locked(
        self, timeout_s: float, on_wait: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Keep other commands out. Raises `RegistryBusy` after `timeout_s` seconds."""
        # A lock of another kind would outlive a process that is killed.
        lock = FileLock(self._folder / "lock", fallback_to_soft=False)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire(timeout=timeout_s, poll_interval=_LOCK_POLL_S)
        except Timeout:
            raise RegistryBusy(
                f"Another command has been changing the versions for {timeout_s:g} s. "
                "Try again once it is done."
            ) from None
        except OSError as error:
            raise _unwritable(self._folder / "lock", error) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder for a command under the lock, on the store's disk; goes with the block.

        What a killed command left in it goes at the next start. Raises `RegistryUnwritable`.
        """
        try:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch.mkdir(mode=0o700)
        except OSError as error:
            raise _unwritable(self._scratch, error) from error
        try:
            yield self._scratch
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def load(self) -> State:
        """What is remembered; an empty state before the first start.

        Raises `StateUnreadable` for a file that cannot be read, and where there is none beside
        archives that somebody has registered.
        """
        try:
            content = self._state_file.read_bytes()
        except FileNotFoundError:
            strays = self._strays(State())
            if strays:
                raise self._unreadable(
                    f"the file is not there, while {self.store} holds {', '.join(strays)}"
                ) from None
            return State()
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from None
        try:
            return parse(content)
        except ValueError as error:
            raise self._unreadable(str(error)) from None

    def save(self, state: State) -> None:
        """Remember `state`; a reader sees the old one or the new one."""
        self._write(self._state_file, state.to_json())

    def route(self, state: State) -> None:
        """Tell the proxy the canary's share, what could not be loaded, and the default's limits."""
        routing: dict[str, Any] = {}
        if state.canary is not None:
            routing["canary"] = state.canary.model_dump()
        failed = [version for version, record in state.versions.items() if record.failed]
        if failed:
            routing["failed"] = sorted(failed, key=version_order)
        limits = self._limits(state)
        if limits:
            routing["limits"] = limits
        self._write(self.routing_file, json.dumps(routing))

    def archive_name(self, version: str) -> str:
        """The file name of a version's archive in the store, unless another one has it."""
        return f"{self._name}-{version}.mar"

    def place(self, source: Path, version: str) -> VersionRecord:
        """Copy an archive into the store, beside what is there; nobody meets half of it.

        Where the version has another archive already, its digest becomes part of its name.
        Raises `RegistryUnwritable`.
        """
        digest = sha256_of(source)
        return self._copy(source, self._name_for(digest, version, State()), digest)

    def propose(
        self, state: State, source: Path, version: str, *, named: Path | None = None
    ) -> VersionRecord:
        """Copy an archive into the store that is still to be proven.

        `named` is the archive that somebody gave, where `source` is a copy of it. `state` is
        saved with it among its leftovers, so that the archive goes again if nobody comes to
        register it. One that lay in the store already is not among them.
        """
        digest = sha256_of(source)
        name = self._name_for(digest, version, state)
        target = self.store / name
        if target.exists() and target.samefile(named or source):
            # Somebody who names a file of the store wants to keep it.
            state.leftovers = [each for each in state.leftovers if each != name]
        elif name not in state.wanted() and not target.exists():
            state.may_delete(name)
            self.save(state)
        return self._copy(source, name, digest)

    def delete_leftovers(self, state: State) -> None:
        """Delete what a state that is saved says may be deleted."""
        if state.leftovers:
            for name in set(state.leftovers) - state.wanted():
                (self.store / name).unlink(missing_ok=True)
            state.leftovers = []
            self.save(state)

    def check(self, record: StoredArchive) -> None:
        """Raise `ArchiveChanged` unless a version's archive is still what it was."""
        try:
            same = sha256_of(self.store / record.archive) == record.sha256
        except OSError as error:
            raise ArchiveChanged(f"{record.archive} cannot be read: {error.strerror}.") from None
        if not same:
            raise ArchiveChanged(f"{record.archive} is damaged: its sha256 is another.")

    def stays_away(self, version: str) -> bool:
        """Whether a version was retired, and there is another one to serve."""
        state = self.load()
        return version in state.retired and bool(state.versions)

    def unchanged(self, version: str) -> Path | None:
        """The archive of a version, if there is one and it is still what it was."""
        record = self.load().versions.get(version)
        try:
            if record is not None:
                self.check(record)
                return self.store / record.archive
        except ArchiveChanged:
            pass
        return None

    def adopt(
        self, archive: Path | None, version: str, workers_setting: int
    ) -> tuple[State, list[str]]:
        """Bring what is remembered together with what `make serve` has packaged.

        `archive` is None for a version that `stays_away`.

        Returns the state to start from, not yet saved, and sentences on what was decided:

        - A version that is new becomes the default, and the default until now its previous.
        - A version that is known is served from the archive as it is packaged now; the one
          until now is kept until that has been loaded. The default stays what it was.
        - A version that was retired stays away while there is another one.
        - Numbers of workers stay as they were scaled, until `workers_setting` is another
          than at the last start: then it holds for all versions.
        - An archive in the store that no version names is put into `quarantine`.
        """
        state, record = self.load(), None
        shutil.rmtree(self._scratch, ignore_errors=True)
        if not self._state_file.exists():
            # From now on archives without a state are a state that was lost.
            self.save(state)
        if archive is not None:
            record = self.propose(state, archive, version)
        said = self._put_strays_aside(state, record)
        if state.workers_setting != workers_setting:
            for each in state.versions.values():
                each.workers = None
            state.workers_setting = workers_setting
        if record is None:
            said.append(
                f"{self._name}/{version} was retired and stays away; to bring it back: make mar "
                f"NAME={self._name} VERSION={version}, then make models "
                f"ARGS='register model_store/{self._name}.mar'"
            )
            return state, said
        old = state.versions.get(version)
        if old is not None:
            record.workers = old.workers
            loaded = old.former or old
            if loaded.sha256 != record.sha256:
                record.former = StoredArchive(archive=loaded.archive, sha256=loaded.sha256)
            if old.sha256 != record.sha256:
                said.append(f"{self._name}/{version} is served as it is packaged now")
        state.register(version, record)
        if old is None:
            if state.default:
                said.append(
                    f"{self._name}/{version} is new and becomes the default; "
                    f"{state.default} is kept for a rollback"
                )
            state.make_default(version)
        elif state.default != version:
            said.append(
                f"{self._name}/{state.default} stays the default, as it was; to change that: "
                f"make models ARGS='promote {version}'"
            )
        return state, said

    def _limits(self, state: State) -> dict[str, float]:
        """The shortest and longest clip that the default takes; empty where nothing tells."""
        record = state.versions.get(state.default)
        if record is None:
            return {}
        try:
            limits = archive_limits(self.store / record.archive)
        except Exception:
            # Routing goes on whatever is wrong with an archive: those who load it say so.
            return {}
        found = {"max_audio_s": limits.max_audio_s, "min_audio_s": limits.min_audio_s}
        return found if all(map(math.isfinite, found.values())) else {}

    def _name_for(self, digest: str, version: str, state: State) -> str:
        """The name under which an archive may be put into the store, or lies there already."""
        name = self.archive_name(version)
        plain, expected = self.store / name, state.archives().get(name)
        if expected is None:
            is_free = name in state.leftovers or not plain.exists() or sha256_of(plain) == digest
        else:
            # What is damaged or gone may be put back, and nothing else.
            is_free = expected == digest
        # No version has a tilde in it, so the other name is no other version's.
        return name if is_free else f"{plain.stem}~{digest[:_DIGEST_CHARS]}.mar"

    def _copy(self, source: Path, name: str, digest: str) -> VersionRecord:
        target = self.store / name
        if not target.exists() or sha256_of(target) != digest:
            try:
                with whole_file(target) as draft:
                    shutil.copy2(source, draft)
                    with draft.open("rb+") as file:
                        os.fsync(file.fileno())
            except OSError as error:
                raise _unwritable(target, error) from error
            digest = sha256_of(target)
        return VersionRecord(archive=name, sha256=digest)

    def _strays(self, state: State) -> list[str]:
        """Archives in the store that `state` says nothing of."""
        accounted = state.wanted() | set(state.leftovers)
        return [
            path.name
            for path in self._stored_files()
            if path.name not in accounted and not _is_half_written(path)
        ]

    def _stored_files(self) -> list[Path]:
        try:
            return sorted(
                path for path in self.store.iterdir() if path.suffix == ".mar" and path.is_file()
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreadable(f"{self.store}: {error.strerror}") from None

    def _put_strays_aside(self, state: State, proposed: VersionRecord | None) -> list[str]:
        """Delete what broken-off commands left, and put what nobody knows into quarantine."""
        kept = {proposed.archive} if proposed else set()
        leftovers = [each for each in state.leftovers if each not in state.wanted() | kept]
        half_written = [each.name for each in self._stored_files() if _is_half_written(each)]
        for name in {*leftovers, *half_written} - state.wanted():
            (self.store / name).unlink(missing_ok=True)
        state.leftovers = [each for each in state.leftovers if each in kept]
        said = []
        for name in self._strays(state):
            if name not in kept:
                self.quarantine.mkdir(mode=0o700, exist_ok=True)
                target = self.quarantine / name
                if target.exists():
                    digest = sha256_of(self.store / name)
                    target = target.with_name(f"{target.stem}~{digest[:_DIGEST_CHARS]}.mar")
                (self.store / name).replace(target)
                said.append(
                    f"{name} in the model store belonged to no version and lies in quarantine; to "
                    f"serve it: make models ARGS='register {target}'; else it can be removed"
                )
        return said

    def _unreadable(self, what: str) -> StateUnreadable:
        return StateUnreadable(
            f"{self._state_file} cannot be relied on: {what}. Nothing was changed. Put it right "
            f"and try again; or, to begin anew, move {self._folder} away: the archives in it can "
            "be registered again (make models ARGS='register ARCHIVE')."
        )

    def _write(self, path: Path, text: str) -> None:
        try:
            with whole_file(path) as draft, draft.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> RegistryUnwritable:
    return RegistryUnwritable(f"{path} cannot be written: {error.strerror or error}.")


def _is_half_written(path: Path) -> bool:
    return bool(_HALF_WRITTEN.fullmatch(path.name)) and not zipfile.is_zipfile(path)
