"""The labels of a model are read as SpeechBrain reads them, or refused by name."""

import re
from pathlib import Path

import pytest
from accent.errors import ModelFolderError
from accent.labels import labels_of, read_labels
from accent.layout import LABELS_FILE
from speechbrain.dataio.encoder import CategoricalEncoder

from tests.models import REAL_HEAD

needs_real_head = pytest.mark.skipif(
    not REAL_HEAD.is_dir(), reason="the pretrained model's head is not beside this checkout"
)


@needs_real_head
def test_the_pretrained_labels_are_in_index_order() -> None:
    labels = read_labels(REAL_HEAD / LABELS_FILE)
    assert len(labels) == 16
    assert labels[:4] == ("england", "us", "canada", "australia")
    assert labels[10] == "southatlandtic"
    assert labels[15] == "singapore"


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
def test_a_malformed_label_file_is_named(labels: str, tmp_path: Path) -> None:
    path = tmp_path / LABELS_FILE
    path.write_text(labels)
    with pytest.raises(ModelFolderError, match=re.escape(LABELS_FILE)):
        read_labels(path)


def test_a_label_file_that_is_not_text_or_huge_is_named(tmp_path: Path) -> None:
    path = tmp_path / LABELS_FILE
    for content in (b"\xff\xfe\x00", b"'us' => 0\n" * 200_000):
        path.write_bytes(content)
        with pytest.raises(ModelFolderError, match=re.escape(LABELS_FILE)):
            read_labels(path)


def test_a_model_has_as_many_labels_as_outputs_and_us_among_them(tmp_path: Path) -> None:
    path = tmp_path / LABELS_FILE
    path.write_text("'us' => 0\n'native' => 1\n")
    assert labels_of(path, 2) == ("us", "native")
    with pytest.raises(ModelFolderError, match="has 2 labels, the model has 3 outputs"):
        labels_of(path, 3)
    path.write_text("'US' => 0\n'native' => 1\n")
    with pytest.raises(ModelFolderError, match=r"no label 'us' \(it has US, native\)"):
        labels_of(path, 2)
