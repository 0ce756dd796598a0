"""`make bench`: starts all that it compares, puts the same load on each in turn, and reports."""

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from accent.cores import available_cores

from aurea.command_line import read
from aurea.paths import ROOT
from bench.clips import make_clips
from bench.contestants import BENCH_PYTHON, Place, build_archive, unpack
from bench.docs import write_docs
from bench.gpu import GPU_ENGINE, gpu_here, gpu_report
from bench.page import PAGE, page_report
from bench.preparing import (
    choose_folder,
    complete_archive,
    computed_by_speechbrain,
    prepare_archives,
    say,
)
from bench.processes import RivalFailed, adopt_orphans, end_all
from bench.profiling import PROFILE, profile_report
from bench.report import print_report, write_reports
from bench.results import Measured
from bench.run import Run
from bench.settings import BenchSettings


def bench(settings: BenchSettings) -> Measured:
    """Run the bench and write its reports into `settings.out`."""
    if not BENCH_PYTHON.is_file():
        raise SystemExit("The bench's environment is missing: make setup-bench")
    kept = settings.kept
    kept.mkdir(parents=True, exist_ok=True)
    model, what = choose_folder(settings)
    say(f"Model: {what}")
    clips = make_clips(kept / "clips")
    if settings.quick:
        archive = every = model
    else:
        say("Archive and graphs (a minute or two, where they are not there already)")
        archive = unpack(build_archive(model), kept / "archive")
        every = complete_archive(archive, kept / "engines")
    # Sockets have short names, and a checkout may lie deep.
    scratch = Path(tempfile.mkdtemp(prefix="bench-"))
    measured = Measured([clip.duration_s for clip in clips])
    place = Place(
        model,
        archive,
        every,
        kept / "clips",
        scratch,
        available_cores(),
        computed_by_speechbrain(model),
    )
    run = Run(settings, place, measured)
    try:
        run.run()
    except RivalFailed as error:
        # What was measured until then is worth telling.
        measured.failures["the bench itself"] = str(error)
    finally:
        end_all()
        logs = kept / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir()
        for log in scratch.glob("*.log"):
            shutil.copy(log, logs)
        shutil.rmtree(scratch, ignore_errors=True)
    elapsed_s = time.monotonic() - run.began
    print_report(measured)
    for path in write_reports(measured, settings.out, what, elapsed_s):
        say(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    return measured


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def main() -> None:
    """Read the command line and run the bench."""
    settings = read(BenchSettings)
    if settings.quick:
        settings = settings.shortened()
    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        if settings.prepare:
            prepare_archives(settings)
            return
        if settings.only == [GPU_ENGINE]:
            model, what = choose_folder(settings)
            say(f"Model: {what}")
            print(gpu_report(model, gpu_here()))
            return
        for name, report in ((PROFILE, profile_report), (PAGE, page_report)):
            if settings.only == [name]:
                model, what = choose_folder(settings)
                say(f"Model: {what}")
                folder = settings.kept / "clips"
                print(report(model, make_clips(folder), folder))
                return
        measured = bench(settings)
        if "the bench itself" in measured.failures:
            sys.exit("\nThe bench broke off; see above.")
        if beaten := measured.beaten_limits():
            # Every ratio to the limit is wrong then, the goals' included.
            sys.exit("\nThe bench's limit is wrong: " + "; ".join(beaten) + ".")
    except KeyboardInterrupt:
        sys.exit("\nStopped; nothing is left running.")
    except RivalFailed as error:
        sys.exit(f"\nThe archive could not be built: {error}")
    finally:
        end_all()
    if settings.write_readme:
        write_docs(settings.out)


if __name__ == "__main__":
    main()
