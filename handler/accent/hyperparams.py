"""`hyperparams.yaml` of a SpeechBrain model, read as data.

It is HyperPyYAML, a language that constructs whatever a file names; here nothing is constructed,
and a network is built from checked values only.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from accent.errors import ModelFolderError, shown
from accent.labels import read_text

# Those of models have two thousand. YAML can take minutes for a number of a megabyte.
_MAX_BYTES: Final = 1 << 16

TAG_KEY: Final = "!"
"""Where the tag of an entry lands, without its exclamation mark."""


def read_hyperparams(path: Path) -> "HyperparamsReader":
    """A reader of the file. Raises `ModelFolderError` where it is no mapping in YAML."""
    text = read_text(path, _MAX_BYTES)
    try:
        loaded = yaml.load(text, Loader=_PlainLoader)  # noqa: S506
    # PyYAML's constructors fail in many ways on a value that is not of its tag's kind.
    except Exception as error:
        reason = f"{type(error).__name__}: {error!s:.500}"
        raise ModelFolderError(f"{path.name}: not readable as YAML: {reason}") from None
    if not isinstance(loaded, dict):
        raise ModelFolderError(f"{path.name}: not a mapping.")
    return HyperparamsReader(path.name, loaded)


class HyperparamsReader:
    """Looks entries up in a plain-data HyperPyYAML tree and says what is wrong with them."""

    def __init__(self, file_name: str, tree: Mapping[str, Any]) -> None:
        self._file_name = file_name
        self._tree = tree

    def wrong(self, entry: str, expected: str) -> ModelFolderError:
        return ModelFolderError(
            f"{self._file_name}: {entry} is {shown(self.value(entry, 'absent'))}; "
            f"expected {expected}."
        )

    def expect_module(self, name: str, class_name: str | Sequence[str], entries: set[str]) -> None:
        """Raise `ModelFolderError` unless `name` is of that class, or of one of them."""
        node = self._tree.get(name)
        classes = [class_name] if isinstance(class_name, str) else list(class_name)
        tags = [f"new:{each}" for each in classes]
        if not isinstance(node, dict) or node.get(TAG_KEY) not in tags:
            expected = " or ".join(f"!{tag}" for tag in tags)
            raise ModelFolderError(f"{self._file_name}: {name} must be {expected}.")
        unknown = {str(key) for key in node} - entries - {TAG_KEY}
        if unknown:
            raise ModelFolderError(
                f"{self._file_name}: {name} has entries this server does not know: "
                f"{', '.join(sorted(unknown)):.500}."
            )

    def value(self, entry: str, default: Any) -> Any:
        node: Any = self._tree
        for key in entry.split("."):
            if not isinstance(node, dict) or key not in node:
                return default
            node = node[key]
        if isinstance(node, dict) and node.get(TAG_KEY) == "ref":
            name = str(node.get("value", ""))
            referred = self._tree.get(name[1:-1]) if re.fullmatch(r"<\w+>", name) else None
            if not isinstance(referred, (bool, int, float, str, list)):
                raise ModelFolderError(
                    f"{self._file_name}: {entry} refers to {shown(name)}, which is no plain value."
                )
            return referred
        return node

    def integer(self, entry: str, default: int | None, low: int, high: int) -> int:
        value = self.value(entry, default)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(entry, f"an integer from {low} to {high}")
        return value

    def integers(self, entry: str, default: Sequence[int], low: int, high: int) -> tuple[int, ...]:
        value = self.value(entry, list(default))
        if not isinstance(value, list) or not all(
            type(item) is int and low <= item <= high for item in value
        ):
            raise self.wrong(entry, f"a list of integers from {low} to {high}")
        return tuple(value)

    def positive(self, entry: str, default: float, high: float) -> float:
        if (value := self.number(entry, default, high)) <= 0:
            raise self.wrong(entry, f"a number above 0, at most {high:g}")
        return value

    def number(self, entry: str, default: float, high: float) -> float:
        value = self.value(entry, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(entry, "a number")
        if not abs(value) <= high:
            raise self.wrong(entry, f"a number from {-high:g} to {high:g}")
        return float(value)


class _PlainLoader(yaml.SafeLoader):
    """YAML in which a tag is data: it lands under the key "!" and constructs nothing.

    Aliases are refused: a few lines of them stand for more data than memory holds, and
    HyperPyYAML files refer by `!ref`.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken")
        return super().compose_node(parent, index)


def _tag_as_data(loader: _PlainLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode):
        entries = loader.construct_mapping(node, deep=True)
        return {TAG_KEY: suffix, **{str(key): value for key, value in entries.items()}}
    if isinstance(node, yaml.ScalarNode):
        return {TAG_KEY: suffix, "value": node.value}
    return {TAG_KEY: suffix}


_PlainLoader.add_multi_constructor("!", _tag_as_data)
