"""One process's part of a run: input after input, and a file for each that breaks a promise."""

import json
import os
import resource
import time
import traceback
from collections.abc import Iterable, MutableSequence
from pathlib import Path
from typing import Final

from fuzz.target import Broken, Target, digest_of

INDEX: Final = 0
"""Where in a process's notes the input is that it tries."""
STARTED_S: Final = 1
"""When it was given, on the monotonic clock; 0 between two."""
TRIED: Final = 2
GOT_ON: Final = 3
NOTES: Final = 4

_MOST_GROWTH_KIB: Final = 300_000
_MOST_FAULTS: Final = 50


def try_inputs(
    target: Target, seed: int, indices: Iterable[int], notes: MutableSequence[float], out: Path
) -> None:
    """Try inputs of a target. `notes` are shared with who watches, `out` takes the faults."""
    # What is started for it ends with it, however that ends.
    os.setsid()
    faults = 0
    with target.opened() as check:
        for index in indices:
            data = target.input(seed, index)
            notes[INDEX] = index
            notes[STARTED_S] = time.monotonic()
            before_kib = _peak_kib()
            try:
                notes[GOT_ON] += check(data)
                grown_kib = _peak_kib() - before_kib
                # The first inputs load what all of them need.
                if grown_kib > _MOST_GROWTH_KIB and notes[TRIED] > 0:
                    raise Broken(f"memory has grown by {grown_kib // 1024} MiB")
            except Exception as error:
                broken = error.data if isinstance(error, Broken) and error.data else data
                write_fault(out, target, seed, index, broken, traceback.format_exc())
                faults += 1
            notes[STARTED_S] = 0
            notes[TRIED] += 1
            if faults >= _MOST_FAULTS:
                return


def write_fault(out: Path, target: Target, seed: int, index: int, data: bytes, what: str) -> Path:
    """Keep an input that broke a promise, to be tried again, and what it did beside it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{target.name}.{digest_of(data)}.bin"
    path.write_bytes(data)
    told = {"target": target.name, "seed": seed, "index": index, "what": what}
    path.with_suffix(".json").write_text(json.dumps(told, indent=1))
    return path


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
