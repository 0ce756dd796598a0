"""The calibration in a model's folder, and the record of what it rests on."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from accent.ecapa.specification import NetworkSpec, read_spec
from accent.errors import ModelFolderError
from accent.kinds import kind_of
from accent.layout import PROBE, WAV2VEC2
from accent.model import Calibration
from accent.probe.loading import read_probe_spec
from accent.wav2vec2.specification import Wav2Vec2Spec
from accent.wav2vec2.specification import read_spec as read_wav2vec2_spec

from aurea.files import whole_file
from aurea.lab.calibration.fitting import CalibrationResult

_Spec = TypeVar("_Spec", NetworkSpec, Wav2Vec2Spec)


def write_calibration(model_folder: Path, calibration: Calibration) -> Path:
    """Set the calibration in the file of `model_folder` that has it, and nothing else.

    The file is written whole or not at all. Returns its path.

    Raises `ModelFolderError` if the file would say anything else than before.
    """
    layout = kind_of(model_folder).layout
    path = model_folder / layout.settings
    if layout == PROBE:
        return _into_probe(path, calibration)
    if layout == WAV2VEC2:
        return _into_hyperparams(path, calibration, read_wav2vec2_spec)
    return _into_hyperparams(path, calibration, read_spec)


def _into_hyperparams(path: Path, calibration: Calibration, read: Callable[[Path], _Spec]) -> Path:
    before = read(path)
    text = path.read_bytes().decode()
    # A model without a bias gets no entry that says so: its file stays as it was.
    if calibration.us_bias or re.search(r"(?m)^us_bias:", text):
        text = _with_entry(text, "us_bias", f"{calibration.us_bias:g}")
    text = _with_entry(text, "softmax_scale", f"{calibration.scale:g}")
    expected = replace(
        before,
        softmax_scale=float(f"{calibration.scale:g}"),
        us_bias=float(f"{calibration.us_bias:g}"),
    )
    with whole_file(path) as part:
        part.write_bytes(text.encode())
        if read(part) != expected:
            raise ModelFolderError(f"{path}: its calibration could not be set by itself.")
    return path


def _with_entry(text: str, name: str, value: str) -> str:
    """HyperPyYAML with a plain entry at its top, where it stood or added."""
    entry = f"{name}: {value}"
    text, found = re.subn(rf"(?m)^{name}:[^\r\n]*", entry, text, count=1)
    if found:
        return text
    line_end = "\r\n" if "\r\n" in text else "\n"
    start = re.match(r"(?:%[^\n]*\n)*---[^\n]*\n", text)
    place = start.end() if start else 0
    return f"{text[:place]}{entry}{line_end}{text[place:]}"


def _into_probe(path: Path, calibration: Calibration) -> Path:
    spec = replace(read_probe_spec(path), scale=calibration.scale, us_bias=calibration.us_bias)
    with whole_file(path) as part:
        part.write_text(json.dumps(asdict(spec), indent=2) + "\n", encoding="utf-8")
        read_probe_spec(part)
    return path


def calibration_document(
    result: CalibrationResult, model_folder: Path, sources: Sequence[str], seed: int
) -> dict[str, Any]:
    """What calibration.json says; the weights' hash tells which model the calibration is of."""
    layout = kind_of(model_folder).layout
    digest = hashlib.sha256()
    for name in layout.files:
        if name != layout.settings:
            with (model_folder / name).open("rb") as file:
                for block in iter(partial(file.read, 1 << 20), b""):
                    digest.update(block)
    return {
        "softmax_scale": result.after.calibration.scale,
        "us_bias": result.after.calibration.us_bias,
        "weights_sha256": digest.hexdigest(),
        "data": [Path(source).name for source in sources],
        "seed": seed,
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        **json.loads(json.dumps(asdict(result)), parse_float=lambda text: round(float(text), 6)),
    }
