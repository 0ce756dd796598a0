"""A folder with a wav2vec 2.0 model -> a model, or a refusal that names the file and why."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accent.engine import WindowScores
from accent.errors import ModelFolderError
from accent.layout import (
    HYPERPARAMS_FILE,
    WAV2VEC2,
    WAV2VEC2_FILE,
    WAV2VEC2_HEAD_FILE,
    WAV2VEC2_LABELS_FILE,
)
from accent.model import Calibration
from accent.wav2vec2.loading import Wav2Vec2Model, describe_model, load_model

from tests.clips import voice

State = dict[str, Any]
POSITIONS = "model.encoder.pos_conv_embed.conv"


@pytest.fixture
def folder(wav2vec2_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(wav2vec2_folder, tmp_path / "model")


def change(folder: Path, name: str, edit: Callable[[State], Any]) -> None:
    """Let `edit` change the tensors of a file, or give others."""
    state: State = dict(torch.load(folder / name, weights_only=True))
    torch.save(edit(state) or state, folder / name)


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def logits(model: Wav2Vec2Model) -> torch.Tensor:
    (score,) = model.reference_engine().score([voice(0.5).astype("float32")])
    assert isinstance(score, WindowScores), score
    return torch.from_numpy(score.evidence)


def test_a_model_is_loaded_in_evaluation_mode_and_frozen(wav2vec2_model: Wav2Vec2Model) -> None:
    assert not any(module.training for module in wav2vec2_model.network.modules())
    assert not any(weight.requires_grad for weight in wav2vec2_model.network.parameters())
    assert wav2vec2_model.labels == ("england", "us", "canada")
    assert wav2vec2_model.calibration == Calibration(1.0, 0.0)


def test_the_order_of_the_labels_is_that_of_their_file(folder: Path) -> None:
    (folder / WAV2VEC2_LABELS_FILE).write_text("'us' => 2\n'canada' => 0\n'wales' => 1\n")
    assert describe_model(folder).labels == ("canada", "wales", "us")
    assert load_model(folder).us_index == 2


def renamed(edit: Callable[[str], str]) -> Callable[[State], State]:
    return lambda state: {edit(name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "names",
    [
        renamed(lambda name: name.removeprefix("model.")),
        renamed(lambda name: f"model.wav2vec2.{name.removeprefix('model.')}"),
        renamed(
            lambda name: name.replace(
                "conv.weight_g", "conv.parametrizations.weight.original0"
            ).replace("conv.weight_v", "conv.parametrizations.weight.original1")
        ),
        lambda state: {key: each for key, each in state.items() if "masked" not in key},
    ],
    ids=["bare", "of another task", "after torch 2.1", "without a mask"],
)
def test_checkpoints_of_other_times_give_the_same_scores(
    names: Callable[[State], State], folder: Path, wav2vec2_model: Wav2Vec2Model
) -> None:
    change(folder, WAV2VEC2_FILE, names)
    assert torch.equal(logits(load_model(folder)), logits(wav2vec2_model))


def test_a_checkpoint_in_the_format_of_old_torch_is_copied(
    folder: Path, wav2vec2_model: Wav2Vec2Model
) -> None:
    state = torch.load(folder / WAV2VEC2_FILE, weights_only=True)
    torch.save(state, folder / WAV2VEC2_FILE, _use_new_zipfile_serialization=False)
    assert torch.equal(logits(load_model(folder)), logits(wav2vec2_model))


def test_weights_stay_in_their_file_and_are_not_copied(folder: Path) -> None:
    model = load_model(folder)
    path = str((folder / WAV2VEC2_FILE).resolve())
    spans = [
        tuple(int(edge, 16) for edge in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(path)
    ]
    outside = [
        name
        for name, weight in model.network.wav2vec2.named_parameters()
        if not any(start <= weight.data_ptr() < end for start, end in spans)
    ]
    assert outside == ["encoder.transformer.pos_conv_embed.conv.weight"]


# What is refused


@pytest.mark.parametrize("name", WAV2VEC2.files)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"has no {name}"):
        load_model(folder)


def less(name: str) -> Callable[[State], State]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def other(name: str, value: Any) -> Callable[[State], None]:
    return lambda state: state.update({name: value})


NORM = "model.encoder.layers.1.layer_norm.weight"


@pytest.mark.parametrize(
    ("file", "edit", "reason"),
    [
        (
            WAV2VEC2_FILE,
            lambda state: {k: v for k, v in state.items() if "layers.0.att" not in k},
            r"lacks encoder\.layers\.0\.attention\.\w+\.bias and 7 more",
        ),
        (WAV2VEC2_FILE, less(NORM), r"lacks encoder\.layers\.1\.layer_norm\.weight\."),
        (WAV2VEC2_FILE, less(f"{POSITIONS}.weight_g"), r"no wav2vec 2\.0: .*pos_conv_embed"),
        (WAV2VEC2_FILE, other(NORM, torch.ones(64)), r"is \(64,\); .*\(128,\)"),
        (WAV2VEC2_FILE, other(NORM, torch.ones(128, dtype=torch.int64)), "no weights"),
        (WAV2VEC2_FILE, other(NORM, torch.full((128,), float("nan"))), "not finite"),
        (WAV2VEC2_FILE, other("model.quantizer.codevectors", torch.ones(1)), "has, besides"),
        (WAV2VEC2_FILE, other(NORM.removeprefix("model."), torch.ones(128)), "under two names"),
        (WAV2VEC2_FILE, other(NORM, 1.0), "not a state dict"),
        (WAV2VEC2_FILE, lambda _: [torch.ones(3)], "not a state dict"),
        (WAV2VEC2_FILE, lambda _: {"weight": torch.ones(3)}, r"no wav2vec 2\.0"),
        (WAV2VEC2_HEAD_FILE, other("0.w.bias", torch.ones(3)), r"0\.w\.weight alone"),
        (WAV2VEC2_HEAD_FILE, lambda _: {"1.w.weight": torch.ones(3, 128)}, r"0\.w\.weight alone"),
        (WAV2VEC2_HEAD_FILE, lambda _: {"0.w.weight": torch.ones(4, 128)}, r"\(4, 128\).*\(3, 1"),
        (WAV2VEC2_HEAD_FILE, lambda _: [1.0], "not a state dict"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    file: str, edit: Callable[[State], Any], reason: str, folder: Path
) -> None:
    change(folder, file, edit)
    with pytest.raises(ModelFolderError, match=rf"{re.escape(file)}: .*{reason}"):
        load_model(folder)


class Malicious:
    """A pickle that makes a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("name", [WAV2VEC2_FILE, WAV2VEC2_HEAD_FILE])
def test_a_pickle_of_more_than_tensors_is_refused_and_not_run(
    name: str, folder: Path, tmp_path: Path
) -> None:
    torch.save({"0.w.weight": Malicious(tmp_path / "ran")}, folder / name)
    with pytest.raises(ModelFolderError, match=f"{name}: not a checkpoint of plain tensors"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()
    torch.load(folder / name, weights_only=False)
    assert (tmp_path / "ran").exists(), "else this test could not fail"


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_a_checkpoint_that_is_none_is_named(content: bytes, folder: Path) -> None:
    (folder / WAV2VEC2_FILE).write_bytes(content)
    with pytest.raises(ModelFolderError, match=WAV2VEC2_FILE):
        load_model(folder)


def test_code_beside_the_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "custom_interface.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("'a' => 0\n'us' => 1\n", "has 2 labels, the model has 3 outputs"),
        ("'a' => 0\n'b' => 1\n'usa' => 2\n", "no label 'us'"),
        ("'a' => 0\n'us' => 1\n'c' => 3\n", "indices 0 to n - 1"),
        ("us, a, c", "cannot read the line"),
    ],
)
def test_a_wrong_label_file_is_refused(labels: str, reason: str, folder: Path) -> None:
    (folder / WAV2VEC2_LABELS_FILE).write_text(labels)
    with pytest.raises(ModelFolderError, match=rf"label_encoder\.txt.*{reason}"):
        load_model(folder)


def test_another_width_than_the_description_s_is_refused(folder: Path) -> None:
    rewrite(folder / HYPERPARAMS_FILE, "encoder_dim: 128", "encoder_dim: 192")
    with pytest.raises(ModelFolderError, match=r"128 numbers a frame, hyperparams\.yaml says 192"):
        load_model(folder)
