"""`make classify`: many clips to a service that runs, and a file of what it said."""

import ssl
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg
from tqdm import tqdm

from aurea.client.clips import Clip, NoSuchFile, find_clips, place_of
from aurea.client.outcome import Outcome
from aurea.client.results import (
    SUFFIXES,
    NotResults,
    ResultsWriter,
    read_results,
    results_in,
    results_to,
)
from aurea.client.service import Patience, Service, ServiceGone, WrongService
from aurea.command_line import CommandLine, read
from aurea.tables import number, text_table

ALL_SCORED: Final = 0
SOME_NOT_SCORED: Final = 1
NOTHING_TO_DO: Final = 2
_INTERRUPTED: Final = 130


class ClassifySettings(CommandLine):
    """Score many clips with a service that runs. Run it again to go on where it ended.

    Ends with 0 if every clip is scored, 1 if some are not, 2 if there was nothing to do.
    """

    files: CliPositionalArg[list[str]]
    """Files, folders (all audio in them and below) and globs, with ** for any depth."""

    url: str = "http://127.0.0.1:8000"
    """Address of the service."""

    out: Path | None = None
    """File of results, .csv or .jsonl; clips scored there and unchanged are not sent again.
    Without it, CSV goes to the standard output."""

    jobs: int = Field(default=4, ge=1, le=256)
    """Clips at a time."""

    details: bool = False
    """Ask for bands, accents and advice too; .jsonl holds the whole answers."""

    api_key: str = ""
    """Key that the service asks for. Other users of this machine can see it: see api-key-file."""

    api_key_file: Path | None = None
    """File whose first line is the key."""

    ca_file: Path | None = None
    """Certificates (PEM) to trust instead of the usual ones, for an https address."""

    max_wait_s: float = Field(default=300.0, ge=0)
    """Seconds that a clip waits in all for a service that is busy."""

    connection_tries: int = Field(default=7, ge=1, le=20)
    """Requests without any answer, ever further apart, after which a clip has failed."""

    timeout_s: float = Field(default=90.0, gt=0)
    """Seconds to wait for an answer."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("begins with neither http:// nor https://")
        return url

    @field_validator("out")
    @classmethod
    def _is_of_a_known_kind(cls, out: Path | None) -> Path | None:
        if out is not None and out.suffix.lower() not in SUFFIXES:
            raise ValueError("ends neither in .csv nor in .jsonl")
        return out


class _Usage(Exception):
    """What was told cannot be done; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m aurea.client`: the exit status."""
    settings = read(ClassifySettings, arguments)
    try:
        return _run(settings)
    except (_Usage, NoSuchFile, NotResults, WrongService) as error:
        _say(str(error))
        return NOTHING_TO_DO
    except ServiceGone as error:
        _say(f"{error}\nRun the same again to go on from here.")
        return SOME_NOT_SCORED
    except KeyboardInterrupt:
        _say("Broken off. Run the same again to go on from here.")
        return _INTERRUPTED
    except OSError as error:
        _say(f"The results cannot be read or written: {error}")
        return NOTHING_TO_DO


def _run(settings: ClassifySettings) -> int:
    clips = find_clips(settings.files, besides=settings.out)
    if not clips:
        raise _Usage("There is no audio file in what was named.")
    earlier = [] if settings.out is None else read_results(settings.out)
    latest = {place_of(each.path): each for each in earlier}
    settled = [
        outcome
        for clip in clips
        if (outcome := latest.get(clip.place)) and outcome.settles(clip, details=settings.details)
    ]
    places = {place_of(each.path) for each in settled}
    waiting = [clip for clip in clips if clip.place not in places]
    outcomes = list(settled)
    if waiting:
        again = {clip.place for clip in waiting}
        kept = [each for place, each in latest.items() if place not in again]
        with _client(settings) as client, _writer(settings.out, kept) as writer:
            for outcome in _outcomes(settings, client, waiting, len(clips)):
                writer.add(outcome)
                outcomes.append(outcome.model_copy(update={"document": None}))
    _say(_summary(outcomes, len(settled)))
    return ALL_SCORED if all(each.status == "scored" for each in outcomes) else SOME_NOT_SCORED


def _client(settings: ClassifySettings) -> httpx.Client:
    try:
        key = settings.api_key
        if settings.api_key_file is not None:
            key = settings.api_key_file.read_text().partition("\n")[0].strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("a key has printable ASCII characters only")
        ca_file = settings.ca_file
        trusted = True if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
        return httpx.Client(
            base_url=settings.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=settings.timeout_s,
            limits=httpx.Limits(max_connections=settings.jobs),
            verify=trusted,
        )
    except (OSError, ValueError, httpx.InvalidURL) as error:
        raise _Usage(f"{settings.url} cannot be asked: {error}") from None


@contextmanager
def _writer(out: Path | None, kept: Sequence[Outcome]) -> Iterator[ResultsWriter]:
    if out is None:
        yield results_to(sys.stdout)
        return
    with results_in(out, kept) as writer:
        yield writer


def _outcomes(
    settings: ClassifySettings, client: httpx.Client, clips: Sequence[Clip], total: int
) -> Iterator[Outcome]:
    """What became of each clip, as it comes; those without a score are named at once."""
    ended = threading.Event()
    service = Service(
        client,
        details=settings.details,
        patience=Patience(settings.max_wait_s, settings.connection_tries),
        wait=lambda wait_s: _wait(ended, wait_s),
    )
    with (
        ThreadPoolExecutor(settings.jobs) as executor,
        tqdm(
            desc="classify", unit="clip", initial=total - len(clips), total=total, disable=None
        ) as bar,
    ):
        try:
            for future in as_completed([executor.submit(service.classify, each) for each in clips]):
                outcome = future.result()
                if outcome.status != "scored":
                    bar.write(_named(outcome), file=sys.stderr)
                bar.update()
                yield outcome
        finally:
            ended.set()
            executor.shutdown(wait=False, cancel_futures=True)


class _Ended(Exception):
    """The run ended while a clip waited."""


def _wait(ended: threading.Event, wait_s: float) -> None:
    if ended.wait(wait_s):
        raise _Ended


def _named(outcome: Outcome) -> str:
    return f"{outcome.status}: {outcome.path}: {outcome.code}: {outcome.detail}"


def _summary(outcomes: Sequence[Outcome], earlier: int) -> str:
    """Clips by what became of them, and the scores of each version that answered."""
    counts = Counter(
        each.status if each.status == "scored" else f"{each.status}: {each.code}"
        for each in outcomes
    )
    rows = [(name, str(count)) for name, count in sorted(counts.items(), key=lambda row: row[0])]
    if earlier:
        rows.append(("(scored by an earlier run)", str(earlier)))
    tables = [text_table(("clips", str(len(outcomes))), rows)]
    scores: dict[str, list[float]] = {}
    for each in outcomes:
        if each.us_confidence is not None:
            model = f"{each.model}/{each.version}" if each.model else "unnamed model"
            scores.setdefault(model, []).append(each.us_confidence)
    if scores:
        lines = [
            (
                model,
                str(len(of)),
                number(statistics.median(of), 1),
                number(min(of), 1),
                number(max(of), 1),
            )
            for model, of in sorted(scores.items())
        ]
        tables.append(text_table(("model", "clips", "median", "lowest", "highest"), lines))
    return "\n\n".join(tables)


def _say(text: str) -> None:
    print(text.encode(errors="replace").decode(), file=sys.stderr)
