"""An encoder with a probe becomes a model, or is refused with the file that is wrong."""

import json
import math
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from accent.errors import ModelFolderError
from accent.layout import ENCODER_FILE, LABELS_FILE, PROBE, PROBE_FILE, PROBE_WEIGHTS_FILE
from accent.model import Calibration
from accent.probe.loading import ProbeModel, describe_probe, load_probe, read_probe_spec

from tests.models import PROBE_SPEC


@pytest.fixture
def folder(probe_folder: Path, tmp_path: Path) -> Path:
    """A model folder of the test's own, to spoil."""
    return Path(shutil.copytree(probe_folder, tmp_path / "model"))


def spec_file(folder: Path, **changes: Any) -> Path:
    path = folder / PROBE_FILE
    path.write_text(json.dumps(asdict(PROBE_SPEC) | changes))
    return path


def test_a_probe_is_read_with_its_weights_and_its_encoder(
    probe_folder: Path, probe_model: ProbeModel
) -> None:
    assert probe_model.spec == PROBE_SPEC
    assert probe_model.labels == ("us", "native", "learner")
    assert probe_model.us_index == 0
    assert probe_model.calibration == Calibration(1.0, 0.0)
    assert probe_model.encoder == probe_folder / ENCODER_FILE
    saved = torch.load(probe_folder / PROBE_WEIGHTS_FILE, weights_only=True)
    for name, weight in saved.items():
        assert torch.equal(getattr(probe_model.weights, name), weight)


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": 0.001, "us_bias": -20},
        {"scale": 1000, "us_bias": 20.0},
        {"level_rms": 0.0001},
        {"level_rms": 1},
    ],
)
def test_values_at_the_ends_of_their_ranges_are_taken(
    changes: dict[str, float], tmp_path: Path
) -> None:
    spec = read_probe_spec(spec_file(tmp_path, **changes))
    assert asdict(spec) == asdict(PROBE_SPEC) | changes


REFUSED: dict[str, list[Any]] = {
    "encoder_sha256": ["", "a" * 63, "A" * 64, "g" * 64, 7, None],
    "frame_size": [7, 4097, 288.0, "288", True, None, -288],
    "hidden_size": [0, 4097, 64.0, "64", True, None, -64],
    "level_rms": [0, 0.00009, 1.01, -0.05, "0.05", True, None, math.nan, math.inf],
    "scale": [0, 0.0009, 1000.1, -1, "1", True, None, [1], 10**400, math.nan, math.inf],
    "us_bias": [20.01, -20.01, "0", False, None, {}, -(10**400), math.nan, -math.inf],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_a_value_that_cannot_be_served_is_refused_by_name(
    name: str, value: Any, tmp_path: Path
) -> None:
    path = spec_file(tmp_path, **{name: value})
    with pytest.raises(ModelFolderError, match=rf"{re.escape(PROBE_FILE)}: {name} must be"):
        read_probe_spec(path)


@pytest.mark.parametrize("name", asdict(PROBE_SPEC))
def test_an_entry_that_is_missing_is_refused(name: str, tmp_path: Path) -> None:
    path = spec_file(tmp_path)
    document = json.loads(path.read_text())
    del document[name]
    path.write_text(json.dumps(document))
    with pytest.raises(ModelFolderError, match=f"its entries must be .*{name}"):
        read_probe_spec(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"scale": ' + "1" * 5_000 + "}", "not readable as JSON"),
        ("[]", "not an object"),
        ("null", "not an object"),
        ("{}", "its entries must be"),
        (json.dumps(asdict(PROBE_SPEC) | {"more": 1}), "its entries must be"),
    ],
)
def test_what_is_not_the_document_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / PROBE_FILE
    path.write_text(text)
    with pytest.raises(ModelFolderError, match=f"{re.escape(PROBE_FILE)}: {reason}"):
        read_probe_spec(path)


@pytest.mark.parametrize("name", PROBE.files)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"has no {re.escape(name)}"):
        load_probe(folder)


def test_another_encoder_than_the_probe_was_trained_on_is_refused(folder: Path) -> None:
    spec_file(folder, encoder_sha256="0" * 64)
    with pytest.raises(ModelFolderError, match=f"sha256 is {PROBE_SPEC.encoder_sha256}.*says 000"):
        load_probe(folder)
    spec_file(folder)
    content = (folder / ENCODER_FILE).read_bytes()
    (folder / ENCODER_FILE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelFolderError, match=f"{ENCODER_FILE} is not the encoder"):
        load_probe(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["hidden", "hidden_bias", "output", "output_bias"])
def test_a_weight_that_is_not_finite_is_named(name: str, value: float, folder: Path) -> None:
    state = torch.load(folder / PROBE_WEIGHTS_FILE, weights_only=True)
    state[name].view(-1)[-1] = value
    torch.save(state, folder / PROBE_WEIGHTS_FILE)
    with pytest.raises(ModelFolderError, match=rf"{PROBE_WEIGHTS_FILE}: {name} has values"):
        load_probe(folder)


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("hidden", torch.zeros(288, 64)),
        ("hidden", torch.zeros(64, 287)),
        ("hidden_bias", torch.zeros(1)),
        ("hidden_bias", torch.zeros(64, 1)),
        ("output", torch.zeros(3, 63)),
        ("output", torch.zeros(192)),
        ("output", torch.tensor(1.0)),
        ("output_bias", torch.zeros(2)),
        ("output_bias", torch.zeros(3, dtype=torch.float64)),
        ("hidden", torch.zeros(64, 288, dtype=torch.bfloat16)),
        ("hidden_bias", torch.zeros(64, dtype=torch.int32)),
        ("output", None),
        ("hidden_bias", None),
        ("more", torch.zeros(1)),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    name: str, weight: torch.Tensor | None, folder: Path
) -> None:
    state = torch.load(folder / PROBE_WEIGHTS_FILE, weights_only=True)
    state[name] = weight
    kept = {name: each for name, each in state.items() if each is not None}
    torch.save(kept, folder / PROBE_WEIGHTS_FILE)
    for read in (describe_probe, load_probe):
        with pytest.raises(ModelFolderError, match=f"{PROBE_WEIGHTS_FILE}: does not fit"):
            read(folder)


@pytest.mark.parametrize("content", [b"", b"text", bytes(1_000), b"PK\x03\x04" + bytes(100)])
def test_a_checkpoint_that_is_none_is_named(content: bytes, folder: Path) -> None:
    (folder / PROBE_WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ModelFolderError, match=f"{PROBE_WEIGHTS_FILE}: not a checkpoint"):
        load_probe(folder)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("'us' => 0\n'native' => 1\n", "has 2 labels, the model has 3 outputs"),
        ("'US' => 0\n'native' => 1\n'learner' => 2\n", "no label 'us'"),
    ],
)
def test_labels_must_be_as_many_as_the_outputs_and_one_of_them_us(
    labels: str, reason: str, folder: Path
) -> None:
    (folder / LABELS_FILE).write_text(labels)
    with pytest.raises(ModelFolderError, match=reason):
        load_probe(folder)
