"""`make chaos`: the real service beside faults, hostile clients and overload, in figures."""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import uvloop
from pydantic import Field

from aurea.command_line import CommandLine, read
from aurea.processes import end_as_ctrl_c_does
from chaos.deaths import DEATHS
from chaos.disk import DISK
from chaos.hostile import HOSTILE
from chaos.overload import OVERLOAD
from chaos.place import Place, Result, Row
from chaos.report import table, write_docs, write_soak
from chaos.soak import soak

ROWS: Final[tuple[Row, ...]] = (*HOSTILE, *DEATHS, *OVERLOAD, *DISK)


class ChaosSettings(CommandLine):
    """Trouble a service of its own, and say what became of honest clients."""

    model: str = "embedded"
    """What it serves, as `make serve` takes it."""

    rows: list[str] = Field(default=[])
    """Parts of the names of the rows to try; all if none is named."""

    soak: float = Field(default=0.0, ge=0)
    """Seconds at 80 % of the capacity instead of the rows."""

    write: bool = False
    """Whether to write docs/chaos.md, the part of the rows or that of the soak."""


def chaos(place: Place, rows: Sequence[Row]) -> list[Result]:
    """Try rows one after the other, each on a service at ease, and print each."""
    results = []
    for row in rows:
        started_s = time.monotonic()
        try:
            place.settle()
            result = row(place)
        # One row that fails by itself must not keep the others from being tried.
        except Exception as error:
            result = Result(name_of(row), "", f"{type(error).__name__}: {error!s:.300}", False)
            place.restart()
        results.append(result)
        took_s = time.monotonic() - started_s
        print(f"{table([result], 'plain').splitlines()[-1]}  ({took_s:.0f} s)", flush=True)
    return results


def name_of(row: Row) -> str:
    """A row's own name and what it is tried with."""
    if isinstance(row, partial):
        return " ".join(
            [row.func.__name__, *(f"{name}={row.keywords[name]}" for name in row.keywords)]
        )
    return row.__name__


def main() -> None:
    """Read the command line; end with status 1 where a row has failed."""
    settings = read(ChaosSettings)
    end_as_ctrl_c_does()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    chosen = [
        row
        for row in ROWS
        if not settings.rows or any(each in name_of(row) for each in settings.rows)
    ]
    if not chosen:
        sys.exit(f"--rows: there are {', '.join(map(name_of, ROWS))}.")
    place = Place(settings.model, dict(os.environ))
    try:
        results = soak(place, settings.soak) if settings.soak else chaos(place, chosen)
        print(f"\n{table(results)}")
        if settings.write and settings.soak:
            write_soak(results, place.calm(), settings.soak)
        elif settings.write:
            write_docs(results, place.calm())
    except KeyboardInterrupt:
        sys.exit("Broken off.")
    finally:
        place.close()
    sys.exit(1 if any(each.passed is False for each in results) else 0)
