"""What a model folder says of its network is read as data, or refused by name."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from accent.ecapa.specification import read_spec
from accent.errors import ModelFolderError
from accent.layout import HYPERPARAMS_FILE
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import HYPERPARAMS, REAL_HEAD

PLAIN = HYPERPARAMS.format(n_labels=3, embedding_size=48, channels=[64, 64, 64, 64, 192], scale="")
needs_real_head = pytest.mark.skipif(
    not REAL_HEAD.is_dir(), reason="the pretrained model's head is not beside this checkout"
)


def spec_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / HYPERPARAMS_FILE
    path.write_text(text)
    return path


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


def test_the_softmax_scale_is_read(tmp_path: Path) -> None:
    text = PLAIN.replace("pretrained_path: .", "softmax_scale: 17.25")
    assert read_spec(spec_file(tmp_path, text)).softmax_scale == 17.25
    assert read_spec(spec_file(tmp_path, PLAIN)).softmax_scale == 30.0


@pytest.mark.parametrize(
    ("entry", "bias"),
    [
        ("pretrained_path: .", 0.0),
        ("us_bias: -1.25", -1.25),
        ("us_bias: 3", 3.0),
        ("us_bias: 20", 20.0),
        ("us_bias: -20.0", -20.0),
        ("us_bias: 0", 0.0),
    ],
)
def test_the_us_bias_is_read_and_is_nothing_where_there_is_none(
    entry: str, bias: float, tmp_path: Path
) -> None:
    assert (
        read_spec(spec_file(tmp_path, PLAIN.replace("pretrained_path: .", entry))).us_bias == bias
    )


# Nothing in a file is run


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


# What is refused


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
        ("emb_dim: 48", "emb_dim: 0x" + "f" * 6_000, "lin_neurons"),
        ("[64, 64, 64, 64, 192]", "[0x" + "f" * 6_000 + "]", "channels"),
        ("n_mels: !ref <n_mels>", "n_mels: !ref <" + "n" * 6_000 + ">", "compute_features.n_mels"),
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
        ("pretrained_path: .", "softmax_scale: 1" + "0" * 400, "softmax_scale"),
        ("pretrained_path: .", "softmax_scale: 0b" + "1" * 20_000, "softmax_scale"),
        ("pretrained_path: .", "us_bias: 20.01", "us_bias"),
        ("pretrained_path: .", "us_bias: -20.01", "us_bias"),
        ("pretrained_path: .", "us_bias: .nan", "us_bias"),
        ("pretrained_path: .", "us_bias: -.inf", "us_bias"),
        ("pretrained_path: .", "us_bias: yes", "us_bias"),
        ("pretrained_path: .", "us_bias: '1'", "us_bias"),
        ("pretrained_path: .", "us_bias: [1]", "us_bias"),
        ("pretrained_path: .", "us_bias: -1" + "0" * 400, "us_bias"),
    ],
)
def test_a_value_that_cannot_be_served_is_refused_by_name(
    old: str, new: str, entry: str, tmp_path: Path
) -> None:
    assert old in PLAIN
    path = spec_file(tmp_path, PLAIN.replace(old, new, 1))
    with pytest.raises(ModelFolderError, match=rf"{HYPERPARAMS_FILE}: .*{re.escape(entry)}") as no:
        read_spec(path)
    assert len(str(no.value)) < 2_000


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
        pytest.param("a: " + "[" * 50_000, marks=pytest.mark.slow, id="deep"),
        "a: !!timestamp abc",
        "a: !!bool perhaps",
        "a: !!int ''",
        "a: " + "1" * 5_000,
        pytest.param("a: 1" + ":1" * 500_000, id="a number of a megabyte"),
        pytest.param("a: [" + "1," * 500_000 + "]", id="a list of a megabyte"),
        "\x00",
        "? [a]\n: b",
        "%YAML 9.9\n---\na: 1",
        "a: 1\n---\nb: 2",
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=HYPERPARAMS_FILE):
        read_spec(spec_file(tmp_path, text))


@pytest.mark.slow
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
