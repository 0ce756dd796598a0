import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accent.errors import ModelFolderError
from accent.layout import (
    CLASSIFIER_FILE,
    EMBEDDING_FILE,
    HYPERPARAMS_FILE,
    LABELS_FILE,
    MODEL_FILES,
)
from accent.loading import AccentModel, load_model
from accent.specification import read_labels, read_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.dataio.encoder import CategoricalEncoder

from tests.models import HYPERPARAMS, REAL_HEAD, write_stand_in

PLAIN = HYPERPARAMS.format(n_labels=3, embedding_size=48, channels=[64, 64, 64, 64, 192], scale="")
needs_real_head = pytest.mark.skipif(
    not REAL_HEAD.is_dir(), reason="the pretrained model's head is not beside this checkout"
)


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """A model folder of the test's own, to spoil."""
    return Path(shutil.copytree(small_folder, tmp_path / "model"))


def spec_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / HYPERPARAMS_FILE
    path.write_text(text)
    return path


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new, 1))


# What is taken


@needs_real_head
def test_the_pretrained_hyperparameters_are_read_as_its_authors_wrote_them() -> None:
    spec = read_spec(REAL_HEAD / HYPERPARAMS_FILE)
    assert spec.channels == (1024, 1024, 1024, 1024, 3072)
    assert spec.kernel_sizes == (5, 3, 3, 3, 1)
    assert spec.dilations == (1, 2, 3, 4, 1)
    assert (spec.n_mels, spec.embedding_size, spec.n_labels) == (80, 192, 16)
    assert (spec.attention_channels, spec.se_channels, spec.res2net_scale) == (128, 128, 8)
    assert (spec.activation, spec.std_norm) == ("torch.nn.LeakyReLU", False)
    assert spec.softmax_scale == 30.0


@needs_real_head
def test_the_pretrained_labels_are_in_index_order() -> None:
    labels = read_labels(REAL_HEAD / LABELS_FILE)
    assert len(labels) == 16
    assert labels[:4] == ("england", "us", "canada", "australia")
    assert labels[10] == "southatlandtic"
    assert labels[15] == "singapore"


def test_the_full_width_network_takes_the_real_head(full_width_folder: Path) -> None:
    model = load_model(full_width_folder)
    head = torch.load(REAL_HEAD / CLASSIFIER_FILE, map_location="cpu", weights_only=True)
    assert torch.equal(model.network.classifier.weight, head["weight"])
    assert model.us_index == 1


@pytest.mark.parametrize(
    "text",
    [
        "'a' => 0\n'us' => 1\n================\n'starting_index' => 0\n",
        "'us' => 1\n'a' => 0\n'b c' => 2\n================\n'starting_index' => 0\n",
        "\"o'brien\" => 0\n'us' => 1\n================\n'starting_index' => 0\n",
    ],
)
def test_labels_are_read_as_speechbrain_reads_them(text: str, tmp_path: Path) -> None:
    path = tmp_path / LABELS_FILE
    path.write_text(text)
    assert read_labels(path) == labels_by_speechbrain(path)


@needs_real_head
def test_the_real_labels_are_read_as_speechbrain_reads_them() -> None:
    path = REAL_HEAD / LABELS_FILE
    assert read_labels(path) == labels_by_speechbrain(path)


def labels_by_speechbrain(path: Path) -> tuple[str, ...]:
    encoder = CategoricalEncoder()
    encoder.load(str(path))
    return tuple(encoder.ind2lab[index] for index in range(len(encoder.ind2lab)))


def test_a_model_is_loaded_in_evaluation_mode_and_frozen(small_model: AccentModel) -> None:
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


CONSTRUCTORS = (
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:os.system ['touch {mark}']",
    "!!python/name:os.system",
    "!!python/module:antigravity",
    "!apply:os.system ['touch {mark}']",
    "!apply:subprocess.check_call [[touch, {mark}]]",
    "!new:subprocess.Popen [[touch, {mark}]]",
    "!new:subprocess.Popen\n    args: [touch, {mark}]",
    "!applyref:os.system ['touch {mark}']",
    "!name:os.system\n    command: touch {mark}",
    "!include:{mark}",
    "!ref <n_mels.__class__>",
    "!ref open('{mark}', 'w')",
    "!tuple (__import__('pathlib').Path('{mark}').touch(), 1)",
)
PLACES: tuple[Callable[[str], str], ...] = (
    lambda value: PLAIN + f"extra: {value}\n",
    lambda value: f"first: {value}\n" + PLAIN,
    lambda value: PLAIN.replace("n_mels: 80", f"n_mels: {value}", 1),
    lambda value: PLAIN.replace("!name:torch.nn.LeakyReLU", value),
    lambda value: PLAIN.replace("[64, 64, 64, 64, 192]", value),
    lambda value: re.sub(
        r"compute_features: !new(.|\n)*?n_mels: !ref <n_mels>",
        lambda _: f"compute_features: {value}",
        PLAIN,
    ),
    lambda value: (
        PLAIN + "deep:\n    - {a: 1}\n    - b:\n        c: " + value.split("\n")[0] + "\n"
    ),
    lambda value: value,
)


@pytest.mark.parametrize("place", range(len(PLACES)))
@pytest.mark.parametrize("constructor", CONSTRUCTORS)
def test_no_constructor_in_the_hyperparameters_runs(
    constructor: str, place: int, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    text = PLACES[place](constructor.format(mark=mark))
    assert text != PLAIN
    try:
        spec = read_spec(spec_file(tmp_path, text))
    except ModelFolderError as error:
        assert HYPERPARAMS_FILE in str(error)
    else:
        assert spec == read_spec(spec_file(tmp_path, PLAIN)), "what was ignored changed nothing"
    assert not mark.exists()


def test_hyperpyyaml_itself_would_have_run_it(tmp_path: Path) -> None:
    from hyperpyyaml import load_hyperpyyaml

    mark = tmp_path / "ran"
    load_hyperpyyaml(f"x: !apply:os.system ['touch {mark}']")
    assert mark.exists(), "else the test above could not fail"


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


@pytest.mark.parametrize("name", MODEL_FILES)
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


@pytest.mark.parametrize(
    "labels",
    [
        "",
        "================\n'starting_index' => 0\n",
        "'us' => 0\n'us' => 1\n'a' => 2\n",
        "'us' => 0\n'a' => 0\n'b' => 1\n",
        "'us' => 1\n'a' => 2\n'b' => 3\n",
        "'us' => 0\n'a' => 2\n'b' => 3\n",
        "'us' => zero\n",
        "us => 0\n",
        "'us' => -1\n",
        "'us' = 0\n",
        "__import__('os') => 0\n",
        "'us' + 'a' => 0\n",
        "'u\\x73' => 0\n",
        "\x00\x01",
    ],
)
def test_a_malformed_label_file_is_named(labels: str, folder: Path) -> None:
    (folder / LABELS_FILE).write_text(labels)
    with pytest.raises(ModelFolderError, match=re.escape(LABELS_FILE)):
        load_model(folder)


def test_a_label_file_that_is_not_text_or_huge_is_named(folder: Path) -> None:
    for content in (b"\xff\xfe\x00", b"'us' => 0\n" * 200_000):
        (folder / LABELS_FILE).write_bytes(content)
        with pytest.raises(ModelFolderError, match=re.escape(LABELS_FILE)):
            load_model(folder)


def test_as_many_labels_as_outputs_are_needed(folder: Path) -> None:
    (folder / LABELS_FILE).write_text("'a' => 0\n'us' => 1\n")
    with pytest.raises(ModelFolderError, match=f"has 2 labels, {HYPERPARAMS_FILE} says 3"):
        load_model(folder)


@pytest.mark.parametrize("other", ["US", "u s", "usa", "america"])
def test_a_model_without_the_label_us_is_refused(other: str, folder: Path) -> None:
    (folder / LABELS_FILE).write_text(f"'england' => 0\n'{other}' => 1\n'canada' => 2\n")
    with pytest.raises(ModelFolderError, match=f"no label 'us'.*{other}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("old", "new", "entry"),
    [
        ("n_mels: 80", "n_mels: 4000", "n_mels"),
        ("n_mels: 80", "n_mels: 80.0", "n_mels"),
        ("n_mels: 80", "n_mels: true", "n_mels"),
        ("n_mels: 80", "n_mels: '80'", "n_mels"),
        ("n_mels: !ref <n_mels>", "n_mels: !ref <nothing>", "compute_features.n_mels"),
        ("n_mels: !ref <n_mels>", "n_mels: !ref <n_mels> * 2", "compute_features.n_mels"),
        ("n_mels: !ref <n_mels>", "n_mels: 40", "embedding_model.input_size"),
        ("n_mels: !ref <n_mels>", "n_mels: 80\n    sample_rate: 8000", "sample_rate"),
        ("n_mels: !ref <n_mels>", "n_mels: 80\n    n_fft: 512", "n_fft"),
        ("norm_type: sentence", "norm_type: global", "norm_type"),
        ("std_norm: False", "std_norm: 3", "std_norm"),
        ("torch.nn.LeakyReLU", "torch.nn.Tanh", "activation"),
        ("torch.nn.LeakyReLU", "os.system", "activation"),
        ("[64, 64, 64, 64, 192]", "[64, 64]", "channels"),
        ("[64, 64, 64, 64, 192]", "[64, 64, 64, 192]", "channels"),
        ("[64, 64, 64, 64, 192]", "[64, 64, 32, 64, 192]", "channels"),
        ("[64, 64, 64, 64, 192]", "[64, 60, 60, 60, 192]", "channels"),
        ("[64, 64, 64, 64, 192]", "[64, 64, 64, 64, 1000000]", "channels"),
        ("[64, 64, 64, 64, 192]", "[64, 64, 64, 64, -8]", "channels"),
        ("[64, 64, 64, 64, 192]", "64", "channels"),
        ("[64, 64, 64, 64, 192]", "[64, 64, 64, 64, '192']", "channels"),
        ("[5, 3, 3, 3, 1]", "[4, 3, 3, 3, 1]", "kernel_sizes"),
        ("[5, 3, 3, 3, 1]", "[5, 3, 3, 3, 99]", "kernel_sizes"),
        ("[1, 2, 3, 4, 1]", "[1, 2, 3, 4, 0]", "dilations"),
        ("attention_channels: 64", "attention_channels: 1000000000", "attention_channels"),
        ("attention_channels: 64", "unheard_of: 64", "unheard_of"),
        ("out_neurons: !ref <n_languages>", "out_neurons: 1", "out_neurons"),
        ("emb_dim: 48", "emb_dim: 99999999999999999999999", "lin_neurons"),
        ("ECAPA_TDNN.Classifier", "ECAPA_TDNN.Other", "classifier"),
        ("features.Fbank", "features.MFCC", "compute_features"),
        ("mean_var_norm: !new", "other_norm: !new", "mean_var_norm"),
        ("pretrained_path: .", "softmax_scale: 0", "softmax_scale"),
        ("pretrained_path: .", "softmax_scale: -30", "softmax_scale"),
        ("pretrained_path: .", "softmax_scale: .nan", "softmax_scale"),
        ("pretrained_path: .", "softmax_scale: .inf", "softmax_scale"),
        ("pretrained_path: .", "softmax_scale: 1.0e+9", "softmax_scale"),
        ("pretrained_path: .", "softmax_scale: yes", "softmax_scale"),
        ("pretrained_path: .", "softmax_scale: thirty", "softmax_scale"),
    ],
)
def test_a_value_that_cannot_be_served_is_refused_by_name(
    old: str, new: str, entry: str, folder: Path
) -> None:
    rewrite(folder / HYPERPARAMS_FILE, old, new)
    with pytest.raises(ModelFolderError, match=rf"{HYPERPARAMS_FILE}: .*{re.escape(entry)}"):
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


def test_the_softmax_scale_is_read(folder: Path) -> None:
    rewrite(folder / HYPERPARAMS_FILE, "pretrained_path: .", "softmax_scale: 17.25")
    assert load_model(folder).spec.softmax_scale == 17.25


def billion_laughs(line: str) -> str:
    levels = "".join(
        f"a{level}: &a{level} " + line.format(", ".join([f"*a{level - 1}"] * 9)) + "\n"
        for level in range(1, 40)
    )
    return "a0: &a0 {x: 1}\n" + levels


@pytest.mark.parametrize("line", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
@pytest.mark.parametrize("entry", ["channels: [64, 64, 64, 64, 192]", "norm_type: sentence"])
def test_an_alias_bomb_is_refused_at_once(line: str, entry: str, tmp_path: Path) -> None:
    name = entry.split(":")[0]
    text = billion_laughs(line) + PLAIN.replace(entry, f"{name}: *a39")
    with pytest.raises(ModelFolderError, match="aliases"):
        read_spec(spec_file(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- a\n- b",
        "a: [",
        "a: " + "[" * 50_000,
        "a: !!timestamp abc",
        "a: !!bool perhaps",
        "a: !!int ''",
        "a: " + "1" * 5_000,
        "\x00",
        "? [a]\n: b",
        "%YAML 9.9\n---\na: 1",
        "a: 1\n---\nb: 2",
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=HYPERPARAMS_FILE):
        read_spec(spec_file(tmp_path, text))


@given(
    position=st.integers(0, len(PLAIN)),
    removed=st.integers(0, 30),
    inserted=st.text("!<>&*[]{}:-'\"|?%@ \n0aé", max_size=6),
)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_a_mangled_yaml_is_read_or_refused_and_nothing_else(
    position: int, removed: int, inserted: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / HYPERPARAMS_FILE
    path.write_text(PLAIN[:position] + inserted + PLAIN[position + removed :])
    try:
        read_spec(path)
    except ModelFolderError as error:
        assert len(str(error)) < 2_000
