"""The documents of an archive: their format on disk, and what may be left out of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from aurea.archive.documents import (
    EnginesDocument,
    Manifest,
    Provenance,
    ReferenceClip,
    ReferenceDocument,
    write_document,
)

ENTRY = {
    "engine": "openvino",
    "precision": "int8",
    "graph": "accent-int8.xml",
    "size_bytes": 1234,
    "within_bounds": True,
    "deviation_points": {"p50": 0.0764, "p99": 0.9, "max": 1.0},
    "top_accent_agreement": 0.9938,
    "milliseconds_for_5_s": 7.0,
}
ENGINES = {
    "engines": [ENTRY],
    "not_packed": [ENTRY | {"graph": None, "size_bytes": 0, "within_bounds": False}],
    "bounds_points": {"p99": 1.0, "max": 3.0},
    "auto": {"neither": "openvino fp32", "a GPU": "torch fp16, measured at its start"},
    "measured": {
        "clips": 160,
        "speech": "synthesised",
        "softmax_scale": 30.0,
        "us_bias": -0.5,
        "processor": "Prozessor für alles",
        "instructions_for": ["fp32", "int8"],
        "openvino": "2026.0",
        "torch": "2.9",
    },
}
REFERENCE = {
    "clips": [
        {"file": "reference/a.ogg", "us_confidence": {"fp32": 85.5}, "top_accent": "us"},
    ],
    "tolerance_points": {"fp32": 0.2, "int8": 1.0},
}
PROVENANCE = {"inputs_sha256": "ab" * 32, "handler_sha256": {"accent/__init__.py": "cd" * 32}}
MANIFEST = {
    "createdOn": "01/01/2026",
    "runtime": "python",
    "model": {"modelName": "small", "handler": "accent_handler.py", "modelVersion": "1.0"},
    "archiverVersion": "0.12.0",
}


@pytest.mark.parametrize(
    ("kind", "content"),
    [(EnginesDocument, ENGINES), (ReferenceDocument, REFERENCE), (Provenance, PROVENANCE)],
)
def test_a_document_is_written_as_it_was_read(
    kind: type[BaseModel], content: dict[str, Any], tmp_path: Path
) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_document(kind.model_validate_json(text), tmp_path / "document.json")
    assert (tmp_path / "document.json").read_text(encoding="utf-8") == text


def test_engines_alone_make_a_document() -> None:
    # Early archives, and folders that the bench completes, say no more.
    bare = {"engine": "openvino", "precision": "bf16", "graph": "a.xml", "within_bounds": False}
    document = EnginesDocument.model_validate({"engines": [bare]})
    assert document.engines[0].deviation_points is None
    assert document.not_packed == []


@pytest.mark.parametrize("change", [{"engine": "onnx"}, {"precision": "fp16"}, {"graph": 1}])
def test_an_engine_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EnginesDocument.model_validate({"engines": [ENTRY | change]})


def test_a_reference_clip_lies_in_its_folder_whether_or_not_that_is_said() -> None:
    for file in ("a.ogg", "reference/a.ogg"):
        clip = ReferenceClip(file=file, us_confidence={"fp32": 1.0}, top_accent="us")
        assert clip.member == "reference/a.ogg"


def test_a_manifest_that_torchserve_would_read_is_read() -> None:
    model = Manifest.model_validate(MANIFEST).model
    assert (model.model_name, model.model_version) == ("small", "1.0")
    assert model.requirements_file is None
    named = MANIFEST["model"] | {"requirementsFile": "more.txt", "extensions": ""}  # type: ignore[operator]
    model = Manifest.model_validate(MANIFEST | {"model": named}).model
    assert (model.requirements_file, model.extensions) == ("more.txt", None)


@pytest.mark.parametrize("model", [1, {}, {"modelName": "small"}, {"modelVersion": "1.0"}])
def test_a_manifest_without_a_name_or_a_version_is_refused(model: Any) -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate(MANIFEST | {"model": model})
