"""Inputs led by the coverage of Python's code, where atheris is installed; one process a target."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Final

from fuzz.target import Target, digest_of
from fuzz.trials import write_fault

_ROOMS: Final = ("accent", "aurea", "proxy")
_MARGIN_S: Final = 60
_SHOWN_CHARS: Final = 6_000


def available() -> bool:
    """Whether coverage can lead here."""
    return importlib.util.find_spec("atheris") is not None


def run_guided(target: Target, seed: int, duration_s: int, out: Path) -> list[Path]:
    """Try inputs for so many seconds; the files of those that break a promise or end the process.

    Raises `RuntimeError` where the run itself fails.
    """
    corpus, found = out / "corpus" / target.name, out / "found" / target.name
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for data in target.sound():
        (corpus / digest_of(data)).write_bytes(data)
    command = [sys.executable, "-m", "fuzz.guided", target.name]
    command += [f"-max_total_time={duration_s}", f"-seed={seed + 1}", f"-artifact_prefix={found}/"]
    command += ["-timeout=30", "-rss_limit_mb=4096", "-max_len=200000", str(corpus)]
    before = set(found.iterdir())
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=duration_s + _MARGIN_S, check=False
    )
    what = ended.stderr[-_SHOWN_CHARS:]
    new = sorted(set(found.iterdir()) - before)
    if ended.returncode != 0 and not new:
        raise RuntimeError(f"The run led by coverage failed by itself:\n{what}")
    return [write_fault(out, target, seed, 0, path.read_bytes(), what) for path in new]


def _fuzz(name: str, options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=list(_ROOMS)):
        from fuzz.targets import TARGETS
    with TARGETS[name].opened() as check:

        def try_one(data: bytes) -> None:
            check(data)

        atheris.Setup([sys.argv[0], *options], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    _fuzz(sys.argv[1], sys.argv[2:])
