"""The answers that a run has got so far, so that a run that was killed goes on from there."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from aurea.files import write_whole
from aurea.lab.corpus import Clip
from aurea.lab.evaluation.clip_results import UNREADABLE, ClipResult

RESULTS_FILE: Final = "results.jsonl"

_NO_CLIP: Final = Clip(Path(), "", "", "", "")


class AnswerLog:
    """A file with a line of JSON for each answer, and its answers by their key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.answers = _read(path)
        """Clips are yet to be filled in: the log does not know their accents of today."""
        self._size_bytes = path.stat().st_size if path.exists() else 0

    def add(self, key: str, result: ClipResult) -> None:
        """Write an answer down at once.

        A fault of the server and a file that cannot be read are none: either may be mended
        without a trace in the key.
        """
        if result.server_fault or result.refusal == UNREADABLE:
            return
        entry: dict[str, Any] = asdict(result)
        del entry["server_fault"]
        path = entry.pop("clip")["path"]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "path": str(path), **entry}) + "\n")

    def discard_added(self) -> None:
        """Forget what was added since the log was opened."""
        if self._path.exists():
            with self._path.open("r+b") as file:
                file.truncate(self._size_bytes)


def answer_key(stands_for: str, clip: Clip) -> str:
    """The key of a clip's answer by what `stands_for` names, as long as the file is the same.

    A file is taken for the same while its path, size and time of change in nanoseconds are.
    """
    text = "\0".join([stands_for, str(clip.path.absolute()), file_state(clip.path)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_state(path: Path) -> str:
    """Size and time of change, in nanoseconds, by which a file is taken for the same."""
    try:
        status = path.stat()
    except OSError:
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}"


def _read(path: Path) -> dict[str, ClipResult]:
    if not path.exists():
        return {}
    # A kill can leave half a line, and only at the end.
    whole, _, rest = path.read_text(encoding="utf-8").rpartition("\n")
    if rest:
        write_whole(path, f"{whole}\n" if whole else "")
    answers: dict[str, ClipResult] = {}
    for line in whole.splitlines():
        entry = json.loads(line)
        evidence = entry.pop("evidence")
        key = entry.pop("key")
        del entry["path"]
        answers[key] = ClipResult(
            _NO_CLIP, **entry, evidence=None if evidence is None else (*evidence,)
        )
    return answers
