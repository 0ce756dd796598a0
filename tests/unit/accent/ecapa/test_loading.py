"""A model folder becomes a model, or is refused with the file that is wrong."""

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accent.ecapa.loading import EcapaModel, load_model
from accent.ecapa.specification import read_spec
from accent.errors import ModelFolderError
from accent.layout import (
    CLASSIFIER_FILE,
    ECAPA,
    EMBEDDING_FILE,
    HYPERPARAMS_FILE,
    LABELS_FILE,
)

from tests.models import REAL_HEAD, write_full_width_stand_in, write_stand_in


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """A model folder of the test's own, to spoil."""
    return Path(shutil.copytree(small_folder, tmp_path / "model"))


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new, 1))


# What is taken


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL_HEAD.is_dir(), reason="the pretrained model's head is not beside this checkout"
)
def test_the_full_width_network_takes_the_real_head(tmp_path: Path) -> None:
    model = load_model(write_full_width_stand_in(tmp_path / "model"))
    head = torch.load(REAL_HEAD / CLASSIFIER_FILE, map_location="cpu", weights_only=True)
    assert torch.equal(model.network.classifier.weight, head["weight"])
    assert model.us_index == 1


def test_a_model_is_loaded_in_evaluation_mode_and_frozen(small_model: EcapaModel) -> None:
    assert not any(module.training for module in small_model.network.modules())
    assert not any(weight.requires_grad for weight in small_model.network.parameters())
    assert small_model.labels == ("england", "us", "canada")
    assert small_model.us_index == 1


@pytest.mark.parametrize(
    ("labels", "channels", "embedding_size", "softmax_scale"),
    [
        (("us", "other"), (32, 32, 32, 32, 96), 24, 12.5),
        ((*(f"l{index}" for index in range(19)), "us"), (64, 64, 64, 64, 192), 48, None),
        (("a", "us"), (128, 64, 64, 64, 96), 16, 0.5),
    ],
)
def test_models_of_other_widths_labels_and_scales_load_and_run(
    labels: tuple[str, ...],
    channels: tuple[int, ...],
    embedding_size: int,
    softmax_scale: float | None,
    tmp_path: Path,
) -> None:
    folder = write_stand_in(
        tmp_path / "model",
        labels=labels,
        channels=channels,
        embedding_size=embedding_size,
        softmax_scale=softmax_scale,
    )
    model = load_model(folder)
    assert model.spec.softmax_scale == (softmax_scale or 30.0)
    assert model.labels == labels
    assert model.us_index == labels.index("us")
    cosines = model.network(torch.randn(2, 16_000))
    assert cosines.shape == (2, len(labels))
    assert cosines.abs().max() <= 1 + 1e-5


# Nothing in a folder is run


class Malicious:
    """A pickle that runs a command where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self._mark}",)


@pytest.mark.parametrize("name", [EMBEDDING_FILE, CLASSIFIER_FILE])
@pytest.mark.parametrize("wrapped", [True, False], ids=["torch file", "bare pickle"])
def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(
    name: str, wrapped: bool, folder: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    state = {"weight": Malicious(mark)}
    if wrapped:
        torch.save(state, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(ModelFolderError, match=rf"{name}: not a checkpoint of plain tensors"):
        load_model(folder)
    assert not mark.exists()

    torch.load(folder / name, weights_only=False) if wrapped else pickle.loads(  # noqa: S301
        (folder / name).read_bytes()
    )
    assert mark.exists(), "else this test could not fail"


# What is refused


@pytest.mark.parametrize("name", ECAPA.files)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"has no {name}"):
        load_model(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="nowhere has no"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [EMBEDDING_FILE, CLASSIFIER_FILE])
@pytest.mark.parametrize("content", [b"", b"text", bytes(1_000), b"PK\x03\x04" + bytes(100)])
def test_a_checkpoint_that_is_none_is_named(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFolderError, match=name):
        load_model(folder)


@pytest.mark.parametrize("name", [EMBEDDING_FILE, CLASSIFIER_FILE])
def test_a_truncated_checkpoint_is_named(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFolderError, match=name):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [EMBEDDING_FILE, CLASSIFIER_FILE])
def test_a_weight_that_is_not_finite_is_named(name: str, value: float, folder: Path) -> None:
    state = torch.load(folder / name, weights_only=True)
    key = next(key for key in state if key.endswith("weight"))
    state[key].view(-1)[-1] = value
    torch.save(state, folder / name)
    with pytest.raises(ModelFolderError, match=f"{name}: {re.escape(key)} has values"):
        load_model(folder)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "list", "numbers"])
@pytest.mark.parametrize("name", [EMBEDDING_FILE, CLASSIFIER_FILE])
def test_weights_that_do_not_fit_are_named(name: str, change: str, folder: Path) -> None:
    state: Any = dict(torch.load(folder / name, weights_only=True))
    key = next(iter(state))
    match change:
        case "missing":
            del state[key]
        case "extra":
            state["other.weight"] = torch.zeros(1)
        case "shape":
            state[key] = torch.zeros(7, 7)
        case "list":
            state = list(state.values())
        case "numbers":
            state = dict.fromkeys(state, 1.0)
    torch.save(state, folder / name)
    with pytest.raises(ModelFolderError, match=name):
        load_model(folder)


def test_as_many_labels_as_outputs_are_needed(folder: Path) -> None:
    (folder / LABELS_FILE).write_text("'a' => 0\n'us' => 1\n")
    with pytest.raises(ModelFolderError, match="has 2 labels, the model has 3 outputs"):
        load_model(folder)


@pytest.mark.parametrize("other", ["US", "u s", "usa", "america"])
def test_a_model_without_the_label_us_is_refused(other: str, folder: Path) -> None:
    (folder / LABELS_FILE).write_text(f"'england' => 0\n'{other}' => 1\n'canada' => 2\n")
    with pytest.raises(ModelFolderError, match=f"no label 'us'.*{other}"):
        load_model(folder)


def test_widths_that_are_absurd_together_are_refused_before_memory_is_spent(
    folder: Path,
) -> None:
    path = folder / HYPERPARAMS_FILE
    rewrite(path, "[64, 64, 64, 64, 192]", str([8192] * 16))
    rewrite(path, "[5, 3, 3, 3, 1]", str([15] * 16))
    rewrite(path, "[1, 2, 3, 4, 1]", str([1] * 16))
    read_spec(path)
    with pytest.raises(ModelFolderError, match="parameters; at most 200,000,000"):
        load_model(folder)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (HYPERPARAMS_FILE, "n_mels: 80", "n_mels: 4000"),
        (LABELS_FILE, "'us' => 1", "'us' => 7"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_while_loading(
    file: str, old: str, new: str, folder: Path
) -> None:
    rewrite(folder / file, old, new)
    with pytest.raises(ModelFolderError, match=re.escape(file)):
        load_model(folder)
