"""`make fuzz`: wrong inputs by the thousand, the same ones for the same seed."""

import json
import sys
import traceback
from pathlib import Path

from pydantic import Field
from tabulate import tabulate

from aurea.command_line import CommandLine, read
from aurea.paths import ROOT
from aurea.processes import end_as_ctrl_c_does
from fuzz.guided import available, run_guided
from fuzz.run import Outcome, run_target
from fuzz.targets import TARGETS


class FuzzSettings(CommandLine):
    """Try wrong inputs on all that takes bytes of strangers."""

    seed: int = 0
    """What the inputs are drawn by: the same seed, the same inputs."""

    count: int = Field(default=100_000, gt=0)
    """Inputs in all; each target gets its share."""

    jobs: int = Field(default=2, gt=0)
    """Processes at once."""

    targets: list[str] = Field(default=[])
    """The targets to try, all if none is named."""

    hang_s: float = Field(default=30.0, gt=0)
    """Seconds after which an input counts as hung."""

    guided_s: int = Field(default=0, ge=0)
    """Seconds a target of inputs led by coverage, beside the others; needs atheris."""

    out: Path = ROOT / "build" / "fuzz"
    """Folder of the inputs that broke a promise."""

    replay: Path | None = None
    """A file of that folder to try again, alone."""

    quiet: bool = False
    """Whether to show no progress bar."""


def fuzz(settings: FuzzSettings) -> list[Path]:
    """Try all inputs, print a table, and return the files of those that broke a promise."""
    chosen = [TARGETS[name] for name in settings.targets] or list(TARGETS.values())
    shares = sum(target.share for target in chosen)
    outcomes = [
        run_target(
            target,
            settings.seed,
            max(1, round(settings.count * target.share / shares)),
            jobs=settings.jobs,
            out=settings.out,
            hang_s=settings.hang_s,
            quiet=settings.quiet,
        )
        for target in chosen
    ]
    faults = [path for outcome in outcomes for path in outcome.faults]
    print(f"\nseed {settings.seed}\n{_table(outcomes)}")
    if settings.guided_s and not available():
        print("atheris is not installed, so no inputs were led by coverage: pip install atheris")
    elif settings.guided_s:
        for target in chosen:
            faults += run_guided(target, settings.seed, settings.guided_s, settings.out)
            print(f"{target.name}: {settings.guided_s} s led by coverage")
    for path in faults:
        told = json.loads(path.with_suffix(".json").read_text())
        last = told["what"].strip().splitlines()[-1]
        print(f"FAULT {path} (seed {told['seed']}, input {told['index']}): {last:.200}")
    return faults


def replay(path: Path) -> bool:
    """Try a kept input again, here; whether it gets on. Raises what it raises."""
    target = TARGETS[path.name.split(".")[0]]
    with target.opened() as check:
        return check(path.read_bytes())


def main() -> None:
    """Read the command line; end with status 1 where a promise was broken."""
    settings = read(FuzzSettings)
    end_as_ctrl_c_does()
    unknown = sorted({*settings.targets} - {*TARGETS})
    if unknown:
        sys.exit(f"--targets: there is no {', '.join(unknown)}; there are {', '.join(TARGETS)}.")
    if settings.replay is None:
        try:
            sys.exit(1 if fuzz(settings) else 0)
        except KeyboardInterrupt:
            sys.exit("Broken off.")
    try:
        print("It got on." if replay(settings.replay) else "It was refused.")
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _table(outcomes: list[Outcome]) -> str:
    rows = [
        (each.target, each.tried, each.got_on, round(each.duration_s, 1), len(each.faults))
        for each in outcomes
    ]
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    heads = ("target", "inputs", "got on", "seconds", "faults")
    return tabulate([*rows, ("all", *totals)], heads, intfmt=",")
