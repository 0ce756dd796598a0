"""The softmax scale in a model's folder, and the record of what it rests on."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from accent.errors import ModelFolderError
from accent.layout import CLASSIFIER_FILE, EMBEDDING_FILE, HYPERPARAMS_FILE, LABELS_FILE
from accent.specification import read_spec

from aurea.files import whole_file
from aurea.lab.calibration.fitting import CalibrationResult


def write_scale(model_folder: Path, softmax_scale: float) -> None:
    """Set the scale in `model_folder`'s hyperparams.yaml, whole or not at all, and only that.

    The entry is added at the top where there is none.

    Raises `ModelFolderError` if the file would say anything else than before.
    """
    path = model_folder / HYPERPARAMS_FILE
    before = read_spec(path)
    text = path.read_bytes().decode()
    entry = f"softmax_scale: {softmax_scale:g}"
    text, found = re.subn(r"(?m)^softmax_scale:[^\r\n]*", entry, text, count=1)
    if not found:
        line_end = "\r\n" if "\r\n" in text else "\n"
        start = re.match(r"(?:%[^\n]*\n)*---[^\n]*\n", text)
        place = start.end() if start else 0
        text = f"{text[:place]}{entry}{line_end}{text[place:]}"
    with whole_file(path) as part:
        part.write_bytes(text.encode())
        if read_spec(part) != replace(before, softmax_scale=float(f"{softmax_scale:g}")):
            raise ModelFolderError(f"{path}: the entry softmax_scale could not be set by itself.")


def calibration_document(
    result: CalibrationResult, model_folder: Path, sources: Sequence[str], seed: int
) -> dict[str, Any]:
    """What calibration.json says; the weights' hash tells which model the scale belongs to."""
    digest = hashlib.sha256()
    for name in (EMBEDDING_FILE, CLASSIFIER_FILE, LABELS_FILE):
        digest.update((model_folder / name).read_bytes())
    return {
        "softmax_scale": result.after.softmax_scale,
        "weights_sha256": digest.hexdigest(),
        "data": [Path(source).name for source in sources],
        "seed": seed,
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        **json.loads(json.dumps(asdict(result)), parse_float=lambda text: round(float(text), 6)),
    }
