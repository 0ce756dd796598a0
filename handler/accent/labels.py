"""The labels of a model, in SpeechBrain's file of them, and its other small texts."""

import re
from pathlib import Path
from typing import Final

from accent.errors import ModelFolderError
from accent.layout import US_LABEL

_MAX_TEXT_FILE_BYTES: Final = 1 << 20


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of a SpeechBrain CategoricalEncoder file, in index order.

    Raises `ModelFolderError` unless the indices are exactly 0 to n - 1.
    """
    text = read_text(path).split("\n=", 1)[0]
    by_index: dict[int, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"('[^'\\]{1,64}'|\"[^\"\\]{1,64}\") => (\d{1,6})", line)
        if match is None or int(match[2]) in by_index:
            raise ModelFolderError(f"{path.name}: cannot read the line {line[:80]!r}.")
        by_index[int(match[2])] = match[1][1:-1]
    labels = tuple(by_index.get(index, "") for index in range(len(by_index)))
    if not labels or "" in labels or len(set(labels)) != len(labels):
        raise ModelFolderError(f"{path.name}: needs indices 0 to n - 1 and labels that differ.")
    return labels


def labels_of(path: Path, outputs: int) -> tuple[str, ...]:
    """The labels in `path` of a model with so many outputs.

    Raises `ModelFolderError` if there are more or fewer, or if none is `us`.
    """
    labels = read_labels(path)
    if len(labels) != outputs:
        raise ModelFolderError(
            f"{path.name} has {len(labels)} labels, the model has {outputs} outputs."
        )
    if US_LABEL not in labels:
        raise ModelFolderError(
            f"{path.name} has no label '{US_LABEL}' (it has {', '.join(labels)}): "
            "a US confidence could not be told."
        )
    return labels


def read_text(path: Path, max_bytes: int = _MAX_TEXT_FILE_BYTES) -> str:
    """A small text file of a model. Raises `ModelFolderError`."""
    try:
        if path.stat().st_size > max_bytes:
            raise ModelFolderError(f"{path.name}: larger than {max_bytes} bytes.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFolderError(f"{path.name}: cannot be read: {error}") from None
