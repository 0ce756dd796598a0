"""Where a run stands, on disk: a run that was killed goes on there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch.optim.swa_utils import AveragedModel

from aurea.files import whole_file, write_whole
from aurea.lab.training.distillation import Student

WORK_FOLDER: Final = ".train"
CHECKPOINT_FILE: Final = "checkpoint.pt"


class Stateful(Protocol):
    """What torch can save and bring back."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Progress:
    """How many steps are done, and the seconds spent on them by all runs together."""

    step: int = 0
    spent_s: float = 0.0


class Checkpoint:
    """The file in `out`/.train that holds a run of one `fingerprint`; the folder is there."""

    def __init__(
        self,
        out: Path,
        fingerprint: str,
        student: Student,
        average: AveragedModel,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._path = out / WORK_FOLDER / CHECKPOINT_FILE
        self._fingerprint = fingerprint
        self._parts: dict[str, Stateful] = {
            "student": student,
            "average": average,
            "optimizer": optimizer,
        }

    def load(self, device: torch.device) -> Progress:
        """Bring the parts to where a stopped run stood, and say how far that is.

        Raises `SystemExit` if it was of another recipe or other data.
        """
        if not self._path.exists():
            return Progress()
        state = torch.load(self._path, map_location=device, weights_only=True)
        if state["fingerprint"] != self._fingerprint:
            raise SystemExit(
                f"{self._path.parent} holds a stopped run with another recipe or other data: "
                "finish that one, or delete the folder."
            )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        return Progress(state["step"], state["spent_s"])

    def save(self, progress: Progress) -> None:
        """Keep the parts as they are, in place of what was kept before."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        save_whole({"fingerprint": self._fingerprint, **vars(progress), **parts}, self._path)


def save_whole(state: Mapping[str, Any], path: Path) -> None:
    """Write `state` as torch does, the file there whole or not at all."""
    # Of a path, torch would write the name into the file.
    with whole_file(path) as part, part.open("wb") as file:
        torch.save(state, file)


def cut_log(log: Path, last_step: int) -> None:
    """Drop what was logged after the checkpoint: those steps are about to be run again."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    # A kill can leave half a line, and only at the end.
    whole = [line for line in lines if line.endswith("}")]
    kept = [line for line in whole if json.loads(line)["step"] <= last_step]
    write_whole(log, "".join(line + "\n" for line in kept))
