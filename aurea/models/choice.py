"""From a MODEL name to a folder on disk that was checked byte by byte.

`auto`, `commonaccent`, `embedded` or a folder. The pretrained model is fetched once
into a cache, resumed where a download broke, and hashed before every use: nothing
reads a file whose sha256 is not the pinned one. Only `auto` falls back, and says so.
"""

import argparse
import fcntl
import hashlib
import json
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NoReturn

import httpx
from accent.layout import MODEL_FILES
from tqdm import tqdm

from aurea.paths import ROOT

HUB_URL: Final = "https://huggingface.co"
REPOSITORY: Final = "Jzuluaga/accent-id-commonaccent_ecapa"
REVISION: Final = "14bebf44b7e7a34204d0acc2c897935945fb5c51"

DEFAULT_CACHE: Final = ROOT / ".cache" / "models"
DEFAULT_EMBEDDED: Final = ROOT / "model_store" / "embedded"

_DOWNLOAD_ATTEMPTS: Final = 3
_MAX_REDIRECTS: Final = 5
_HASH_BLOCK_BYTES: Final = 1 << 20
_RESERVED_NAMES: Final = ("auto", "commonaccent", "embedded")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class PinnedFile:
    """A file of the pretrained model as it must be.

    `size_bytes` is None where only the hash is known; `cap_bytes` then bounds what is
    written before the hash can tell.
    """

    name: str
    size_bytes: int | None
    sha256: str
    cap_bytes: int = 100_000_000

    @property
    def max_bytes(self) -> int:
        """The most bytes of it that are ever written to disk."""
        return self.cap_bytes if self.size_bytes is None else self.size_bytes

    @property
    def expected(self) -> str:
        """Its size and hash, for people."""
        bound = "at most " if self.size_bytes is None else ""
        return f"{bound}{self.max_bytes:,} bytes, sha256 {self.sha256}"


COMMONACCENT_FILES: Final = (
    PinnedFile(
        "embedding_model.ckpt",
        None,
        "7ffa5ac9c0ec21fd6677fa8a39b3b045f182236f5c312a8edca385dfa79e7e3c",
    ),
    PinnedFile(
        "classifier.ckpt",
        13_172,
        "146a2c6cb236e387b24972797ed9aebb3b54b09b33a072bee87eb3576bd88c01",
    ),
    PinnedFile(
        "accent_encoder.txt",
        297,
        "a74ac219335687eba66ba1a389a6e48cd83897c7efd4692f5fd36c3e04f4ef6c",
    ),
    PinnedFile(
        "hyperparams.yaml",
        1_816,
        "bc8c4171c8b9427dfbe8ab34b25f67289fdcdee94d16510833cc4869d5c4607d",
    ),
)


@dataclass(frozen=True)
class Timeouts:
    """How long the hub is waited for, in seconds.

    `probe_s` is all that `auto` gives an absent hub, from name lookup to first byte.
    `read_s` is the longest silence within a download. `backoff_s` is the pause before
    the second attempt at a file; it doubles before the third.
    """

    connect_s: float = 3.0
    read_s: float = 15.0
    probe_s: float = 4.0
    backoff_s: float = 0.5


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


class _Interrupted(Exception):
    """The download stopped early; what has come so far is worth keeping."""


class _Corrupt(Exception):
    """The bytes cannot be those of the pinned file. The message says what was found."""


class _Refused(Exception):
    """The hub's answer is one that asking again would not change."""


_SETUP_ERRORS: Final = (OSError, ValueError, ImportError, httpx.InvalidURL)
"""What a full disk, a bad hub address or unusable proxy variables raise."""


def choose_model(
    wanted: str,
    *,
    cache: Path,
    embedded: Path,
    hub_url: str = HUB_URL,
    files: tuple[PinnedFile, ...] = COMMONACCENT_FILES,
    timeouts: Timeouts = Timeouts(),
) -> ModelChoice:
    """Find, fetch if need be, and check the model that `wanted` names.

    `wanted` is `auto`, `commonaccent`, `embedded` or a folder. Only `auto` falls back
    to the embedded model, with a notice that says why.

    Raises `ModelUnavailable` if the model, or for `auto` both models, cannot be had.
    """
    pretrained = _Pretrained(cache, hub_url, files, timeouts)
    if wanted == "commonaccent":
        return pretrained.choice(patient=True)
    if wanted == "embedded":
        return _embedded_choice(embedded, notice="")
    if wanted != "auto":
        return _folder_choice(wanted)
    try:
        return pretrained.choice(patient=False)
    except ModelUnavailable as unavailable:
        notice = (
            f"The pretrained model could not be fetched ({unavailable.reason}): "
            "serving the small embedded model. Its scores are rough."
        )
        try:
            return _embedded_choice(embedded, notice=notice)
        except ModelUnavailable as neither:
            raise ModelUnavailable(
                f"{unavailable}\n{neither}", reason=f"{unavailable.reason}; {neither.reason}"
            ) from unavailable


def _folder_choice(wanted: str) -> ModelChoice:
    try:
        folder = Path(wanted).expanduser().resolve()
        is_folder = bool(wanted) and folder.is_dir()
    except RuntimeError:  # an unknown user's home, or links in a circle
        is_folder = False
    if not is_folder:
        reason = f"MODEL={wanted} is neither auto, commonaccent, embedded nor a folder"
        raise ModelUnavailable(f"{reason}.", reason=reason)
    _require_files(folder)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name).strip("-") or "model"
    # Clients read the name in every answer: an unchecked folder must not pass for a
    # model that was checked.
    return ModelChoice(f"local-{name}" if name in _RESERVED_NAMES else name, folder, "")


def _embedded_choice(folder: Path, *, notice: str) -> ModelChoice:
    _require_files(
        folder,
        hint=" The embedded model ships with the repository; `make train` makes it anew.",
    )
    return ModelChoice("embedded", folder.resolve(), notice)


def _require_files(folder: Path, *, hint: str = "") -> None:
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        reason = f"{folder} has no {', '.join(missing)}"
        raise ModelUnavailable(
            f"{reason}: a model is a folder with {', '.join(MODEL_FILES)}.{hint}", reason=reason
        )


@dataclass(frozen=True)
class _Pretrained:
    """The pinned model: its place in the cache and its source on the hub."""

    cache: Path
    hub_url: str
    files: tuple[PinnedFile, ...]
    timeouts: Timeouts

    @property
    def folder(self) -> Path:
        return self.cache.resolve() / f"commonaccent-{REVISION[:12]}"

    def choice(self, *, patient: bool) -> ModelChoice:
        """The model with every file checked; if not `patient`, a silent hub is given up."""
        wrong = self._wrong_files()
        if wrong:
            try:
                if not patient:
                    self._probe(min(wrong, key=lambda pinned: pinned.max_bytes))
                self._fill()
            except _SETUP_ERRORS as error:
                raise self._unavailable(_one_line(error)) from error
        return ModelChoice("commonaccent", self.folder, "")

    def _wrong_files(self) -> list[PinnedFile]:
        return [p for p in self.files if not _is_right(self.folder / p.name, p)]

    def _url(self, pinned: PinnedFile) -> str:
        return f"{self.hub_url.rstrip('/')}/{REPOSITORY}/resolve/{REVISION}/{pinned.name}"

    def _probe(self, pinned: PinnedFile) -> None:
        """Raise `ModelUnavailable` unless the hub sends a first byte within `probe_s`.

        Any answer counts, even an error: the download then says what is wrong.
        """
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()

        def ask() -> None:
            try:
                with (
                    hub_client(self.timeouts) as client,
                    client.stream("GET", self._url(pinned), headers={"Range": "bytes=0-0"}) as got,
                ):
                    next(got.iter_raw(), b"")
            except (*_SETUP_ERRORS, httpx.HTTPError, _Refused) as error:
                answers.put(self._describe(error))
            else:
                answers.put("")

        # A thread, because neither a name lookup nor a chain of redirects heeds a
        # timeout as a whole; a daemon, because it may outlive its use.
        threading.Thread(target=ask, name="hub-probe", daemon=True).start()
        try:
            failure = answers.get(timeout=self.timeouts.probe_s)
        except queue.Empty:
            failure = f"hub did not answer within {self.timeouts.probe_s:g} s"
        if failure:
            raise self._unavailable(failure)

    def _fill(self) -> None:
        """Fetch what is missing or wrong, one process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / ".lock"), hub_client(self.timeouts) as client:
            for pinned in self._wrong_files():
                self._download(client, pinned)

    def _download(self, client: httpx.Client, pinned: PinnedFile) -> None:
        part = self.folder / f"{pinned.name}.part"
        interruptions = 0
        corruptions = 0
        while True:
            try:
                self._attempt(client, pinned, part)
                return
            except _Interrupted as interrupted:
                interruptions += 1
                if interruptions == _DOWNLOAD_ATTEMPTS:
                    raise self._unavailable(str(interrupted)) from interrupted
                _say(f"{pinned.name}: {interrupted}; trying again")
                time.sleep(self.timeouts.backoff_s * 2 ** (interruptions - 1))
            except _Corrupt as corrupt:
                part.unlink(missing_ok=True)
                corruptions += 1
                if corruptions == 2:
                    raise self._unavailable(
                        f"{pinned.name} from the hub was refused: it is not the pinned file",
                        from_hub={pinned.name: str(corrupt)},
                    ) from corrupt
                _say(f"{pinned.name}: wrong bytes ({corrupt}); starting again")
            except (_Refused, httpx.HTTPError) as refused:
                raise self._unavailable(self._describe(refused)) from refused
            except OSError as error:
                raise self._unavailable(f"{pinned.name}: {_one_line(error)}") from error

    def _attempt(self, client: httpx.Client, pinned: PinnedFile, part: Path) -> None:
        """One request for what `part` lacks; puts the file in place if it is then right."""
        digest = hashlib.sha256()
        held_bytes = _hash_into(digest, part)
        if held_bytes and digest.hexdigest() == pinned.sha256:
            self._put_in_place(pinned, part)
            return
        if held_bytes > pinned.max_bytes or held_bytes == pinned.size_bytes:
            raise _Corrupt(f"{held_bytes:,} bytes, sha256 {digest.hexdigest()}")
        headers = {"Range": f"bytes={held_bytes}-"} if held_bytes else {}
        try:
            with client.stream("GET", self._url(pinned), headers=headers) as response:
                start_byte, total_bytes = _extent(response, pinned, held_bytes)
                if start_byte != held_bytes:
                    digest, held_bytes = hashlib.sha256(), start_byte
                with (
                    part.open("ab" if held_bytes else "wb") as out,
                    _progress(pinned, held_bytes, total_bytes) as bar,
                ):
                    for chunk in response.iter_raw():
                        held_bytes += len(chunk)
                        if held_bytes > pinned.max_bytes:
                            raise _Corrupt(f"more than {pinned.max_bytes:,} bytes")
                        out.write(chunk)
                        digest.update(chunk)
                        bar.update(len(chunk))
        except httpx.TransportError as error:
            raise _Interrupted(self._describe(error)) from error
        if total_bytes is not None and held_bytes < total_bytes:
            raise _Interrupted(f"the hub ended it after {held_bytes:,} of {total_bytes:,} bytes")
        if digest.hexdigest() != pinned.sha256:
            raise _Corrupt(f"{held_bytes:,} bytes, sha256 {digest.hexdigest()}")
        self._put_in_place(pinned, part)

    def _put_in_place(self, pinned: PinnedFile, part: Path) -> None:
        _sync(part)
        part.replace(self.folder / pinned.name)
        _sync(self.folder)

    def _unavailable(
        self, reason: str, from_hub: Mapping[str, str] | None = None
    ) -> ModelUnavailable:
        """The refusal for `reason`; `from_hub` says what came for a file, by its name."""
        wrong = self._wrong_files()
        bad = [pinned.name for pinned in wrong if (self.folder / pinned.name).exists()]
        if bad:
            reason = f"{', '.join(bad)} in the cache was refused, its sha256 is wrong; {reason}"
        seen = {pinned.name: _found(self.folder / pinned.name) for pinned in wrong}
        seen |= from_hub or {}
        faults = "\n".join(
            f"  {pinned.name}: expected {pinned.expected}; found {seen[pinned.name]}"
            for pinned in wrong
        )
        width = max(len(pinned.name) for pinned in self.files)
        by_hand = "\n".join(f"  {p.name:<{width}}  {p.expected}" for p in self.files)
        message = (
            f"The pretrained model commonaccent cannot be used: {reason}.\n"
            f"{faults}\n"
            f"To put the files in place by hand, copy these {len(self.files)} into\n"
            f"  {self.folder}\n"
            f"{by_hand}\n"
            f"They are published at {self.hub_url.rstrip('/')}/{REPOSITORY}/tree/{REVISION}"
        )
        return ModelUnavailable(message, reason=reason)

    def _describe(self, error: Exception) -> str:
        if isinstance(error, httpx.ConnectTimeout):
            return f"hub did not answer within {self.timeouts.connect_s:g} s"
        if isinstance(error, httpx.ReadTimeout):
            return f"hub sent nothing for {self.timeouts.read_s:g} s"
        if isinstance(error, httpx.ConnectError):
            return f"hub did not answer: {_one_line(error)}"
        if isinstance(error, httpx.TransportError):
            return f"connection to the hub was lost: {_one_line(error)}"
        return _one_line(error)


def _extent(
    response: httpx.Response, pinned: PinnedFile, held_bytes: int
) -> tuple[int, int | None]:
    """Where the body starts in the file, and the size of the whole file if announced."""
    status = response.status_code
    if status == 416 and held_bytes:
        raise _Corrupt(f"a part of {held_bytes:,} bytes that the hub cannot go on from")
    if status in (408, 429) or status >= 500:
        raise _Interrupted(f"the hub answered {status} for {pinned.name}")
    if status not in (200, 206):
        raise _Refused(f"the hub answered {status} for {pinned.name}")
    start_byte = 0
    total = response.headers.get("content-length", "*")
    if status == 206:
        content_range = response.headers.get("content-range", "")
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is None or int(match[1]) != held_bytes:
            raise _Corrupt(f"the range {content_range!r} instead of what follows {held_bytes:,}")
        start_byte, total = held_bytes, match[2]
    total_bytes = int(total) if total.isdecimal() else pinned.size_bytes
    if total_bytes is not None and (
        total_bytes > pinned.max_bytes or pinned.size_bytes not in (None, total_bytes)
    ):
        raise _Corrupt(f"{total_bytes:,} bytes announced")
    return start_byte, total_bytes


def hub_client(timeouts: Timeouts, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """A client that honours the proxy variables and never leaves https for http."""

    def refuse_downgrade(response: httpx.Response) -> None:
        if response.has_redirect_location and response.url.scheme == "https":
            target = response.url.join(response.headers["location"])
            if target.scheme != "https":
                raise _Refused(f"the hub redirected from https to {target.scheme}")

    return httpx.Client(
        transport=transport,
        trust_env=True,
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        timeout=httpx.Timeout(timeouts.read_s, connect=timeouts.connect_s),
        # A compressed body could be neither resumed nor hashed as it comes.
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [refuse_downgrade]},
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the system frees even if this process is killed."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process is fetching the model; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _progress(pinned: PinnedFile, held_bytes: int, total_bytes: int | None) -> "tqdm[NoReturn]":
    on_terminal = sys.stderr.isatty()
    if not on_terminal:
        size = "" if total_bytes is None else f" of {total_bytes:,}"
        _say(f"fetching {pinned.name} from byte {held_bytes:,}{size}")
    return tqdm(
        desc=pinned.name,
        initial=held_bytes,
        total=total_bytes,
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        disable=not on_terminal,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _hash_into(digest: "hashlib._Hash", path: Path) -> int:
    """Feed a file, if there is one, to `digest`; its length in bytes."""
    length_bytes = 0
    if path.is_file():
        with path.open("rb") as content:
            while block := content.read(_HASH_BLOCK_BYTES):
                digest.update(block)
                length_bytes += len(block)
    return length_bytes


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    _hash_into(digest, path)
    return digest.hexdigest()


def _is_right(path: Path, pinned: PinnedFile) -> bool:
    # A file that cannot be read is as wrong as one with other bytes.
    try:
        return path.is_file() and _sha256_of(path) == pinned.sha256
    except OSError:
        return False


def _found(path: Path) -> str:
    try:
        if not path.exists():
            return "nothing"
        return f"{path.stat().st_size:,} bytes, sha256 {_sha256_of(path)}"
    except OSError as error:
        return _one_line(error)


def _sync(path: Path) -> None:
    """Have the system write a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the choice as one JSON object on stdout; the exit status is 1 on refusal."""
    parser = argparse.ArgumentParser(
        prog="python -m aurea.models.choice", description="Find, fetch and check a model."
    )
    parser.add_argument("model", help="auto, commonaccent, embedded or a folder")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--embedded", type=Path, default=DEFAULT_EMBEDDED)
    parser.add_argument("--hub-url", default=HUB_URL)
    options = parser.parse_args(arguments)
    try:
        choice = choose_model(
            options.model, cache=options.cache, embedded=options.embedded, hub_url=options.hub_url
        )
    except ModelUnavailable as unavailable:
        _say(str(unavailable))
        return 1
    except KeyboardInterrupt:
        _say("interrupted; the next start goes on from here")
        return 130
    if choice.notice:
        _say(choice.notice)
    print(json.dumps(asdict(choice), default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
