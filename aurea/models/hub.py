"""Fetches a pinned file from the model hub or a mirror of it.

huggingface_hub does the transfer: redirects, ranges, going on after an interruption. Its
`hf_hub_download` does not fit: it throws away what a killed download had, has no bound for what
it writes, and wants headers that a plain mirror does not send. So its `http_get` writes into a
part file that stays for the next start, and the hash decides.
"""

import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NoReturn
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, hf_hub_url, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._http import default_client_factory
from tqdm import tqdm

from aurea.models.pinned import COMMONACCENT, PinnedFile, Source, description, one_line, say

_MAX_REDIRECTS: Final = 5
_ATTEMPTS_WITHOUT_PROGRESS: Final = 3
# A compressed body could be neither resumed nor hashed as it comes.
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "aureavoice-inference"}
_RETRIED_BY_THE_LIBRARY: Final = (
    httpx2.ConnectError,
    httpx2.TimeoutException,
    httpx2.RemoteProtocolError,
)


@dataclass(frozen=True)
class Timeouts:
    """How long the hub is waited for, in seconds.

    `probe_s` is all that `auto` gives an absent hub, from name lookup to first byte.
    `read_s` is the longest silence within a download.
    """

    connect_s: float = 3.0
    read_s: float = 15.0
    probe_s: float = 4.0


class HubError(Exception):
    """The file could not be had. The message says why, in one line."""


class WrongBytes(Exception):
    """The bytes cannot be those of the pinned file `name`. The message says what was found."""

    name = ""


def url_of(pinned: PinnedFile, hub_url: str, source: Source = COMMONACCENT) -> str:
    """Where the hub at `hub_url` has a file; raises `HubError` if that is no address."""
    parts = urlsplit(hub_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HubError(f"{hub_url!r} is no address of a model hub: it starts with https://")
    return hf_hub_url(
        source.repository, pinned.name, revision=source.revision, endpoint=hub_url.rstrip("/")
    )


def size_of(url: str, timeouts: Timeouts) -> int:
    """The bytes of a file on the hub. Raises `HubError` if the hub does not say.

    A file whose hash is not known is complete when it has so many.
    """
    try:
        with (
            hub_client(timeouts) as client,
            client.stream("GET", url, headers=_HEADERS | {"Range": "bytes=0-0"}) as response,
        ):
            size = response.headers.get("content-range", "").rpartition("/")[2]
            if response.status_code == 200:
                size = response.headers.get("content-length", "")
    except (httpx2.HTTPError, OSError, ValueError, ImportError) as error:
        raise HubError(_reason(error, timeouts)) from error
    if response.status_code not in (200, 206):
        raise HubError(f"the hub answered {response.status_code} for {url.rpartition('/')[2]}")
    if not size.isdecimal():
        raise HubError(f"the hub does not say how large {url.rpartition('/')[2]} is")
    return int(size)


def probe(url: str, timeouts: Timeouts) -> None:
    """Raise `HubError` unless the hub sends a first byte within `probe_s`.

    Any answer counts, even an error: the download then says what is wrong.
    """
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            headers = _HEADERS | {"Range": "bytes=0-0"}
            with (
                hub_client(timeouts) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                next(response.iter_raw(), b"")
        except _ServerError:
            answers.put("")
        except (httpx2.HTTPError, HubError, OSError, ValueError, ImportError) as error:
            answers.put(_reason(error, timeouts))
        else:
            answers.put("")

    # A thread, because neither a name lookup nor a chain of redirects heeds a timeout as
    # a whole; a daemon, because it may outlive its use.
    threading.Thread(target=ask, name="hub-probe", daemon=True).start()
    try:
        failure = answers.get(timeout=timeouts.probe_s)
    except queue.Empty:
        failure = f"hub did not answer within {timeouts.probe_s:g} s"
    if failure:
        raise HubError(failure)


def download(url: str, pinned: PinnedFile, part: Path, timeouts: Timeouts) -> None:
    """Have `part` hold the pinned file, without fetching again what it holds already.

    Wrong bytes are fetched anew once. Raises `WrongBytes`, `HubError` or, for the disk's
    part, `OSError`; all but the first leave in `part` what has come so far.
    """
    for is_last in (False, True):
        try:
            with _library(timeouts):
                _complete(url, pinned, part, timeouts)
            return
        except WrongBytes as wrong:
            part.unlink(missing_ok=True)
            wrong.name = pinned.name
            if is_last:
                raise
            say(f"{pinned.name}: wrong bytes ({wrong}); starting again")


def _complete(url: str, pinned: PinnedFile, part: Path, timeouts: Timeouts) -> None:
    """Fetch what `part` lacks, as long as each attempt brings something."""
    attempts = 0
    while not (part.exists() and pinned.is_at(part)):
        held_bytes = part.stat().st_size if part.exists() else 0
        if held_bytes > pinned.max_bytes or held_bytes == pinned.size_bytes:
            raise WrongBytes(description(part))
        try:
            _transfer(url, pinned, part, held_bytes, timeouts)
        except _Interrupted as interrupted:
            attempts = 0 if part.stat().st_size > held_bytes else attempts + 1
            if attempts == _ATTEMPTS_WITHOUT_PROGRESS:
                raise HubError(str(interrupted)) from interrupted
            say(f"{pinned.name}: {interrupted}; trying again")
        else:
            if not pinned.is_at(part):
                raise WrongBytes(description(part))


def _transfer(
    url: str, pinned: PinnedFile, part: Path, held_bytes: int, timeouts: Timeouts
) -> None:
    """One call of the library, which goes on by itself after some kinds of interruption."""
    try:
        with part.open("ab") as file:
            http_get(
                url,
                _Bounded(file, pinned.max_bytes),  # type: ignore[arg-type]
                resume_size=held_bytes,
                headers=_HEADERS,
                expected_size=pinned.size_bytes,
                displayed_filename=pinned.name,
                tqdm_class=_progress,  # type: ignore[arg-type]
            )
    except RecursionError as error:  # the library goes on by calling itself
        raise _Interrupted("interrupted hundreds of times") from error
    except _RETRIED_BY_THE_LIBRARY as error:
        raise HubError(_reason(error, timeouts)) from error
    except httpx2.TransportError as error:
        raise _Interrupted(_reason(error, timeouts)) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 416 and held_bytes:
            raise WrongBytes(
                f"a part of {held_bytes:,} bytes that the hub cannot go on from"
            ) from error
        raise HubError(f"the hub answered {status} for {pinned.name}") from error
    except httpx2.HTTPError as error:
        raise HubError(_reason(error, timeouts)) from error
    except OSError as error:
        if error.errno is None:  # the library's word for a body that ended early
            got_bytes = part.stat().st_size
            raise _Interrupted(f"the hub ended it after {got_bytes:,} bytes") from error
        raise


@contextmanager
def _library(timeouts: Timeouts) -> Iterator[None]:
    """huggingface_hub with this module's client, writing what comes as it comes.

    By default it gathers blocks of 10 MiB and drops what it has of one when the connection
    breaks: over a line that breaks more often, nothing would ever arrive.
    """
    block_bytes = constants.DOWNLOAD_CHUNK_SIZE
    constants.DOWNLOAD_CHUNK_SIZE = None  # type: ignore[assignment]
    set_client_factory(lambda: hub_client(timeouts))
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
        constants.DOWNLOAD_CHUNK_SIZE = block_bytes


def hub_client(timeouts: Timeouts, transport: httpx2.BaseTransport | None = None) -> httpx2.Client:
    """A client that honours the proxy variables and never leaves https for http.

    It knows no token. What may pass when asked again counts as a broken connection.
    """
    limits = httpx2.Timeout(timeouts.read_s, connect=timeouts.connect_s)

    def set_timeouts(request: httpx2.Request) -> None:
        # The library names its own for every request.
        request.extensions["timeout"] = limits.as_dict()

    def check(response: httpx2.Response) -> None:
        status = response.status_code
        if status in (408, 429) or status >= 500:
            name = response.request.url.path.rpartition("/")[2]
            raise _ServerError(f"the hub answered {status} for {name}")
        if response.has_redirect_location and response.url.scheme == "https":
            target = response.url.join(response.headers["location"])
            if target.scheme != "https":
                raise HubError(f"the hub redirected from https to {target.scheme}")

    return httpx2.Client(
        transport=transport,
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        event_hooks={"request": [set_timeouts], "response": [check]},
    )


class _Interrupted(Exception):
    """The download stopped early; what has come so far is worth keeping."""


class _ServerError(httpx2.RemoteProtocolError):
    """An answer that asking again may change. The library retries errors of this kind."""


class _Bounded:
    """A file that takes no more than `max_bytes`: the disk is not the hub's to fill."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self.seek, self.tell, self.truncate = file.seek, file.tell, file.truncate

    def write(self, block: bytes) -> int:
        if self.tell() + len(block) > self._max_bytes:
            raise WrongBytes(f"more than {self._max_bytes:,} bytes")
        return self._file.write(block)


def _progress(desc: str, total: int | None, initial: int, **_options: object) -> "tqdm[NoReturn]":
    """A bar on a terminal, a line in a log."""
    on_terminal = sys.stderr.isatty()
    if not on_terminal:
        size = "" if total is None else f" of {total:,}"
        say(f"fetching {desc} from byte {initial:,}{size}")
    return tqdm(
        desc=desc,
        total=total,
        initial=initial,
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        disable=not on_terminal,
    )


def _reason(error: Exception, timeouts: Timeouts) -> str:
    if isinstance(error, httpx2.ConnectTimeout):
        return f"hub did not answer within {timeouts.connect_s:g} s"
    if isinstance(error, httpx2.ReadTimeout):
        return f"hub sent nothing for {timeouts.read_s:g} s"
    if isinstance(error, httpx2.ConnectError):
        return f"hub did not answer: {one_line(error)}"
    if isinstance(error, httpx2.TransportError) and not isinstance(error, _ServerError):
        return f"connection to the hub was lost: {one_line(error)}"
    return one_line(error)
