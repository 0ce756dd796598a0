"""What is registered under a model's name, remembered beyond a restart.

One folder a name: `models.json` (versions, default, canary), `store/` (TorchServe's model
store, one archive a version) and `routing.json`, which the proxy reads.
"""

import fcntl
import filecmp
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from aurea.files import sha256_of, whole_file

STATE_FOLDER: Final = "state"
"""In the run folder; a folder for each model's name lies in it."""

_LOCK_POLL_S: Final = 0.1


class RegistryBusy(Exception):
    """Another command changes the versions. The message says what to do."""


class ArchiveChanged(Exception):
    """An archive in the store is not the one that was put there."""


class Canary(BaseModel):
    """The share of requests that a candidate version answers, in percent."""

    version: str
    percent: float = Field(gt=0, le=100)


class VersionRecord(BaseModel):
    """A version that is to be served."""

    archive: str
    """File name in the store."""
    sha256: str
    """Of the archive."""
    workers: int | None = None
    """Workers that it was given; None: as many as `make serve` is told."""
    failed: str = ""
    """Why it could not be loaded when the service last started; empty where it was."""


class State(BaseModel):
    """Everything that a restart must bring back."""

    default: str = ""
    """The version that answers; empty before the first start."""
    previous: str = ""
    """The default before it, for a rollback; empty where there is none."""
    left: str = ""
    """The version that the last rollback took away from being the default."""
    canary: Canary | None = None
    workers_setting: int = 0
    """What `make serve` was told under WORKERS at the last start; 0: one per core."""
    versions: dict[str, VersionRecord] = {}
    retired: list[str] = []
    """Versions that were taken away, so that a start does not bring them back."""

    def in_order(self) -> list[str]:
        """All versions, those first that should become the default, if they can be loaded."""
        first = [each for each in (self.default, self.previous) if each in self.versions]
        return list(dict.fromkeys([*first, *self.versions]))

    def make_default(self, version: str) -> None:
        """Let `version` answer; the default until now is kept for a rollback."""
        if version == self.default:
            return
        self.previous, self.default, self.left = self.default, version, ""
        self._end_canary_of(version)

    def roll_back(self) -> None:
        """Let the previous default answer, and nothing else beside it."""
        self.left, self.default, self.previous = self.default, self.previous, ""
        self.canary = None

    def fall_back(self, version: str) -> None:
        """Let `version` answer because the default could not be loaded."""
        self.left, self.default = self.default, version
        if self.previous == version:
            self.previous = ""
        self._end_canary_of(version)

    def forget(self, version: str) -> None:
        """Take a version that is not the default out of everything, for good."""
        self.versions.pop(version, None)
        self.retired = [*(each for each in self.retired if each != version), version]
        if self.previous == version:
            self.previous = ""
        self._end_canary_of(version)

    def _end_canary_of(self, version: str) -> None:
        if self.canary is not None and self.canary.version == version:
            self.canary = None


class Registry:
    """The folder of one model's name. Change it only under `locked`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._state_file = folder / "models.json"
        self.store = folder / "store"
        self.routing_file = folder / "routing.json"

    def prepare(self) -> None:
        """Make the folders."""
        self.store.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def locked(
        self, timeout_s: float, on_wait: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Keep other commands out. Raises `RegistryBusy` after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        with (self._folder / "lock").open("a") as lock:
            waited = False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    pass
                if not waited:
                    waited = True
                    on_wait()
                if time.monotonic() > deadline:
                    raise RegistryBusy(
                        f"Another command has been changing the versions for {timeout_s:g} s. "
                        "Try again once it is done."
                    )
                time.sleep(_LOCK_POLL_S)
            yield

    def load(self) -> State:
        """What is remembered. A file that cannot be read is set aside, and all starts anew."""
        try:
            return State.model_validate_json(self._state_file.read_bytes())
        except FileNotFoundError:
            return State()
        except ValidationError:
            self._state_file.replace(self._state_file.with_suffix(".broken"))
            return State()

    def save(self, state: State) -> None:
        """Remember `state`; a reader sees the old one or the new one."""
        _write(self._state_file, state.model_dump_json(indent=1))

    def route(self, state: State) -> None:
        """Tell the proxy which share goes to which version, and which could not be loaded."""
        routing: dict[str, Any] = {}
        if state.canary is not None:
            routing["canary"] = state.canary.model_dump()
        failed = [version for version, record in state.versions.items() if record.failed]
        if failed:
            routing["failed"] = failed
        _write(self.routing_file, json.dumps(routing))

    def archive_name(self, version: str) -> str:
        """The file name of a version's archive in the store."""
        return f"{self._name}-{version}.mar"

    def place(self, source: Path, version: str) -> VersionRecord:
        """Copy an archive into the store; nobody meets half of it there."""
        target = self.store / self.archive_name(version)
        if not (target.exists() and filecmp.cmp(source, target)):
            with whole_file(target) as draft:
                shutil.copy2(source, draft)
        return VersionRecord(archive=target.name, sha256=sha256_of(target))

    def check(self, record: VersionRecord) -> None:
        """Raise `ArchiveChanged` unless a version's archive is still what it was."""
        try:
            same = sha256_of(self.store / record.archive) == record.sha256
        except OSError as error:
            raise ArchiveChanged(f"{record.archive} cannot be read: {error.strerror}.") from None
        if not same:
            raise ArchiveChanged(f"{record.archive} is damaged: its sha256 is another.")

    def discard_strays(self, state: State) -> None:
        """Remove archives that no version needs: a command was broken off before its end."""
        wanted = {record.archive for record in state.versions.values()}
        for path in self.store.iterdir():
            if path.name not in wanted:
                path.unlink()

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
        - A version that is known is served from the archive as it is packaged now. The
          default stays what it was.
        - A version that was retired stays away while there is another one.
        - Numbers of workers stay as they were scaled, until `workers_setting` is another
          than at the last start: then it holds for all versions.
        """
        state, said = self.load(), []
        if state.workers_setting != workers_setting:
            for record in state.versions.values():
                record.workers = None
            state.workers_setting = workers_setting
        if archive is None:
            said.append(
                f"{self._name}/{version} was retired and stays away; to bring it back: make mar "
                f"NAME={self._name} VERSION={version}, then make models "
                f"ARGS='register model_store/{self._name}.mar'"
            )
            return state, said
        old = state.versions.get(version)
        record = self.place(archive, version)
        if old is not None:
            record.workers = old.workers
            if old.sha256 != record.sha256:
                said.append(f"{self._name}/{version} is served as it is packaged now")
        state.versions[version] = record
        state.retired = [each for each in state.retired if each != version]
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


def _write(path: Path, text: str) -> None:
    with whole_file(path) as draft, draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
