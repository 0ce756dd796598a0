"""The small files of a model and of an archive: read, or refused by name, and nothing else."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Final

from accent.ecapa.specification import read_spec
from accent.errors import ModelFolderError
from accent.labels import read_labels
from accent.layout import HYPERPARAMS_FILE, LABELS_FILE, PROBE_FILE
from accent.probe.loading import read_probe_spec

from aurea.archive.layout import CONFIG_FILE
from aurea.archive.setting_values import faulty_values
from aurea.archive.settings import (
    UnreadableSettings,
    core_settings,
    parse_settings,
    strange_settings,
)
from aurea.paths import HANDLER
from fuzz.target import Broken, Check, Target
from tests.models import HYPERPARAMS

_LONGEST_MESSAGE: Final = 2_000
YAML_WORDS: Final = (
    *(b"!new:", b"!name:", b"!ref <x>", b"!!python/name:os.system", b"!!int ", b"!!set {a}"),
    *(b"&a ", b"*a", b"<<: ", b"? ", b"- ", b": ", b"{", b"}", b"[", b"]", b"|\n ", b">-\n "),
    *(b"\n", b"\t", b"#", b"%YAML 1.1\n", b"---\n", b"...\n", b"'", b'"', b"\\x", b"\xc3\xa9"),
    *(b"0x" + b"f" * 6_000, b"0b" + b"1" * 20_000, b"1" * 5_000, b"1:" * 900 + b"1", b"0o7"),
    *(b".inf", b".nan", b"-1", b"1e999", b"true", b"null", b"2001-01-01", b"[" * 400, b"{" * 400),
)
_JSON_WORDS: Final = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"NaN", b"-Infinity"),
    *(b"1e999", b"1" * 5_000, b"-0", b"\\ud800", b"\\u0000", b"[" * 3_000, b'{"a":' * 400),
)
_LABEL_WORDS: Final = (
    *(b" => ", b"'us'", b"'", b'"', b"\n", b"\r", b"\x0b", b"\xc2\x85", b"\n=", b"0", b"1"),
    *(b"999999", b"-1", b"\xd9\xa1", b"\\", b"\xe2\x80\xa8", b"'" + b"a" * 70 + b"'"),
)


@cache
def _hyperparams() -> Sequence[bytes]:
    shapes = dict(n_labels=3, embedding_size=48, channels=[64, 64, 64, 64, 192])
    return [
        HYPERPARAMS.format(scale=scale, **shapes).encode()
        for scale in ("", "softmax_scale: 17.25\nus_bias: -1\n")
    ]


@cache
def _labels() -> Sequence[bytes]:
    return [
        b"'a' => 0\n'us' => 1\n================\n'starting_index' => 0\n",
        b"'us' => 1\n'a' => 0\n'b c' => 2\n\"o'brien\" => 3\n==\n'starting_index' => 0\n",
    ]


@cache
def _probe() -> Sequence[bytes]:
    numbers = dict(frame_size=256, hidden_size=64, level_rms=0.05, scale=1.5, us_bias=-0.5)
    return [json.dumps({"encoder_sha256": "0123456789abcdef" * 4, **numbers}).encode()]


@cache
def _settings() -> Sequence[bytes]:
    return [(HANDLER / CONFIG_FILE).read_bytes()]


@contextmanager
def _file(name: str, read: Callable[[Path], object]) -> Iterator[Check]:
    """Tries inputs as the file `name` of a model folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name

        def check(data: bytes) -> bool:
            path.write_bytes(data)
            try:
                read(path)
            except ModelFolderError as error:
                if name not in str(error) or len(str(error)) > _LONGEST_MESSAGE:
                    raise Broken(f"refused with {str(error)[:200]!r}") from error
                return False
            return True

        yield check


@contextmanager
def _settings_read() -> Iterator[Check]:
    def check(data: bytes) -> bool:
        try:
            settings = parse_settings(data.decode(errors="replace"))
            strange = strange_settings(settings)
            faulty = faulty_values(settings, core_settings(settings))
        except UnreadableSettings:
            return False
        return not strange and not faulty

    yield check


DOCUMENTS: Final = (
    Target(
        "hyperparams",
        0.06,
        _hyperparams,
        partial(_file, HYPERPARAMS_FILE, read_spec),
        YAML_WORDS,
        b": ",
    ),
    Target("labels", 0.05, _labels, partial(_file, LABELS_FILE, read_labels), _LABEL_WORDS, b"=> "),
    Target("probe", 0.05, _probe, partial(_file, PROBE_FILE, read_probe_spec), _JSON_WORDS, b": "),
    Target("settings", 0.06, _settings, _settings_read, YAML_WORDS, b": "),
)
