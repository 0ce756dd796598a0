"""Files of weights, read as plain tensors: nothing in them is run."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from accent.errors import ModelFolderError


def read_state(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """The finite tensors of a checkpoint, by name, on the CPU. Raises `ModelFolderError`.

    If `mapped`, they stay in the file, and processes that read the same one share its memory;
    files of before torch 1.6 cannot be mapped and are copied.
    """
    try:
        state = torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            mmap=(mapped and zipfile.is_zipfile(path)) or None,
        )
    except Exception as error:
        raise ModelFolderError(
            f"{path.name}: not a checkpoint of plain tensors ({type(error).__name__}). "
            "Nothing in it was run."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(item, Tensor) for item in state.values()):
        raise ModelFolderError(f"{path.name}: not a state dict.")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise ModelFolderError(f"{path.name}: {name} has values that are not finite.")
    return state


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are; extremes tell without a second tensor as large as the first."""
    return not tensor.numel() or bool(torch.isfinite(torch.stack(tensor.aminmax())).all())


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Raises `ModelFolderError` if a file of a model is not there."""
    for name in names:
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder} has no {name}: a model is {', '.join(names)}.")
