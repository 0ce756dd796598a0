"""`make models`: register, compare, promote, scale and retire model versions while they serve.

Every command waits until what it was asked for is true, can be repeated without harm, and
with --json says what it did in JSON. It finds the service by its run folder.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import ValidationError
from tqdm import tqdm

from aurea.archive.vetting import ArchiveRefused
from aurea.paths import ROOT
from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError, Unreachable
from aurea.versions.comparison import Comparison, VersionFigures, compare, samples, since
from aurea.versions.lifecycle import CommandRefused, Lifecycle, Outcome
from aurea.versions.registry import STATE_FOLDER, Registry, RegistryBusy

_SCRAPE_TIMEOUT_S: Final = 10.0
_MODEL_LOG: Final = "logs/model.log"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    try:
        outcome = _run(options)
    except (CommandRefused, ArchiveRefused, ManagementError, RegistryBusy) as error:
        if options.json:
            print(json.dumps({"error": str(error)}))
            sys.exit(1)
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Broken off.")
    if options.json:
        print(json.dumps(outcome.facts, ensure_ascii=False, indent=1))
    else:
        print("\n".join(outcome.sentences))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="models", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--run-dir", type=Path, default=ROOT / "run", help="of the service")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="say it in JSON")
    common.add_argument(
        "--timeout-s", type=float, default=180.0, help="longest wait for workers, in seconds"
    )

    def add(name: str, purpose: str, run: Callable[..., Outcome]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=purpose, parents=[common])
        command.set_defaults(run=run)
        return command

    add("list", "all versions and their workers", _list)
    command = add("show", "one version; the default where none is named", _show)
    command.add_argument("version", nargs="?")
    command = add("register", "bring a version up beside the others and prove it", _register)
    command.add_argument("archive", type=Path)
    command.add_argument("--workers", type=_count, help="as many as the default has, if not given")
    command.add_argument(
        "--trust", action="store_true", help="take code that is not ours, or no reference clips"
    )
    command.add_argument(
        "--allow-new-labels", action="store_true", help="take other accents than the default's"
    )
    command = add("scale", "give a version that many workers", _scale)
    command.add_argument("workers", type=int)
    command.add_argument("--version", help="the default where none is named")
    command = add("promote", "let a version answer", _promote)
    command.add_argument("version")
    command.add_argument(
        "--with-fewer-workers", action="store_true", help="even if it has fewer than the default"
    )
    add("rollback", "let the previous default answer again, at once", _rollback)
    command = add("retire", "take a version that is not the default away", _retire)
    command.add_argument("version")
    command = add("canary", "let a version answer a share of the requests", _canary)
    command.add_argument("version", help="a version, or off")
    command.add_argument("percent", type=float, nargs="?")
    command = add("compare", "put versions side by side by what was measured", _compare)
    command.add_argument("versions", nargs="*", help="all where none is named")
    command.add_argument(
        "--for-s", type=float, default=0.0, help="only of so many seconds from now on; 0: of all"
    )
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def _run(options: argparse.Namespace) -> Outcome:
    run_dir = options.run_dir.absolute()
    addresses = _addresses(run_dir)
    registry = Registry(run_dir / STATE_FOLDER / addresses.model_name, addresses.model_name)
    torchserve = TorchServe(addresses)
    progress = _Bars()
    try:
        lifecycle = Lifecycle(
            torchserve,
            registry,
            addresses,
            model_log=run_dir / _MODEL_LOG,
            timeout_s=options.timeout_s,
            progress=progress,
            on_wait=lambda: print("waiting for another command to end", file=sys.stderr),
        )
        outcome: Outcome = options.run(lifecycle, addresses, options)
        return outcome
    except Unreachable as error:
        raise CommandRefused(
            f"No service answers in {run_dir}: {error} To start it: make serve"
        ) from error
    finally:
        progress.close()
        torchserve.close()


def _addresses(run_dir: Path) -> Addresses:
    try:
        return Addresses.model_validate_json((run_dir / ADDRESSES_FILE).read_bytes())
    except (OSError, ValidationError):
        raise CommandRefused(
            f"No service runs in {run_dir}. Start it with make serve, or name its folder: "
            "make models RUN_DIR=..."
        ) from None


class _Bars:
    """Progress on standard error, where somebody watches."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or what != self._what:
            self.close()
            self._what = what
            self._bar = tqdm(total=total, desc=what, unit="", leave=False, disable=None)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _list(lifecycle: Lifecycle, _: Addresses, __: argparse.Namespace) -> Outcome:
    outcome = lifecycle.overview()
    rows = [("version", "role", "workers", "waiting", "archive")]
    for each in outcome.facts["versions"]:
        rows.append(
            (
                each["version"],
                each["role"] if not each["failed"] else "FAILED",
                f"{each['workers_ready']}/{each['workers_wanted']}",
                str(each["waiting"]),
                each["archive"] or "",
            )
        )
    outcome.sentences = [
        f"{outcome.facts['model']} at {outcome.facts['url']}",
        *_columns(rows),
        *(
            f"{each['version']} is not served: {each['failed']}"
            for each in outcome.facts["versions"]
            if each["failed"]
        ),
    ]
    return outcome


def _show(lifecycle: Lifecycle, _: Addresses, options: argparse.Namespace) -> Outcome:
    outcome = lifecycle.show(options.version)
    for name, value in outcome.facts.items():
        for index, each in enumerate(value if isinstance(value, list) else [value]):
            shown = (
                ", ".join(f"{key} {part}" for key, part in each.items())
                if isinstance(each, dict)
                else each
            )
            outcome.sentences.append(
                f"{'' if index else name:<15} {'' if shown is None else shown}"
            )
    return outcome


def _register(lifecycle: Lifecycle, _: Addresses, options: argparse.Namespace) -> Outcome:
    return lifecycle.register(
        options.archive,
        workers=options.workers,
        trust=options.trust,
        allow_new_labels=options.allow_new_labels,
    )


def _scale(lifecycle: Lifecycle, _: Addresses, options: argparse.Namespace) -> Outcome:
    return lifecycle.scale(options.workers, options.version)


def _promote(lifecycle: Lifecycle, _: Addresses, options: argparse.Namespace) -> Outcome:
    return lifecycle.promote(options.version, fewer_workers=options.with_fewer_workers)


def _rollback(lifecycle: Lifecycle, _: Addresses, __: argparse.Namespace) -> Outcome:
    return lifecycle.roll_back()


def _retire(lifecycle: Lifecycle, _: Addresses, options: argparse.Namespace) -> Outcome:
    return lifecycle.retire(options.version)


def _canary(lifecycle: Lifecycle, _: Addresses, options: argparse.Namespace) -> Outcome:
    if options.version == "off":
        return lifecycle.end_canary()
    if options.percent is None:
        raise CommandRefused("Say which share: canary VERSION PERCENT, or canary off.")
    return lifecycle.canary(options.version, options.percent)


def _compare(lifecycle: Lifecycle, addresses: Addresses, options: argparse.Namespace) -> Outcome:
    listed = lifecycle.overview().facts
    roles = {each["version"]: each["role"] for each in listed["versions"]}
    unknown = [each for each in options.versions if each not in roles]
    if unknown:
        raise CommandRefused(f"Not registered: {', '.join(unknown)}. There are {', '.join(roles)}.")
    versions = options.versions or list(roles)
    urls = (addresses.proxy_metrics_url, addresses.metrics_url)
    pages = [samples(_scrape(url)) for url in urls]
    if options.for_s > 0:
        _wait(options.for_s)
        pages = [
            since(earlier, samples(_scrape(url))) for url, earlier in zip(urls, pages, strict=True)
        ]
    comparison = compare(pages[0], pages[1], versions)
    facts = {
        "model": listed["model"],
        "seconds": options.for_s or None,
        "unanswered": comparison.unanswered,
        "versions": [{**asdict(each), "role": roles[each.version]} for each in comparison.versions],
    }
    return Outcome(facts, _side_by_side(comparison, roles))


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    with tqdm(total=round(seconds), desc="measuring", unit="s", leave=False, disable=None) as bar:
        while (left := end - time.monotonic()) > 0:
            bar.n = round(seconds - left)
            bar.refresh()
            time.sleep(min(1.0, left))


def _scrape(url: str) -> str:
    try:
        answer = httpx.get(url, timeout=_SCRAPE_TIMEOUT_S, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise CommandRefused(f"No metrics from {url}: {error}") from error
    return answer.text


def _side_by_side(comparison: Comparison, roles: dict[str, str]) -> list[str]:
    def row(title: str, cell: Callable[[VersionFigures], str]) -> tuple[str, ...]:
        return (title, *(cell(each) for each in comparison.versions))

    lines = _columns(
        [
            row("", lambda each: f"{each.version} {roles[each.version]}".strip()),
            row("share", lambda each: f"{each.share_percent:.1f} %"),
            row("requests", lambda each: str(each.requests)),
            row("refused (4xx)", lambda each: str(each.refused)),
            row("errors (5xx)", lambda each: str(each.errors)),
            row("latency p50", lambda each: _milliseconds(each.p50_s)),
            row("latency p95", lambda each: _milliseconds(each.p95_s)),
            row("latency p99", lambda each: _milliseconds(each.p99_s)),
            row("model time, mean", lambda each: _milliseconds(each.mean_model_s)),
            row("us_confidence, mean", lambda each: _points(each.mean_us_confidence)),
            row("us_confidence 0-100", lambda each: each.sparkline),
        ]
    )
    if comparison.unanswered:
        lines.append(f"{comparison.unanswered} requests failed before a version answered")
    return lines


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f} ms"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


if __name__ == "__main__":
    main()
