"""What the values of an archive's settings may be: the type of each and its range.

TorchServe's are declared here. The core's are those of its own dataclasses, so that a setting
which is new there needs no second declaration; the unit in its name bounds it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, Final, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from aurea.archive.settings import CORE_SECTION, core_settings

_STRICT: Final = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)
_MAX_SHOWN_CHARS: Final = 60


class TorchServeValues(BaseModel):
    """The entries that TorchServe reads, and its workers with it."""

    model_config = _STRICT

    batchSize: int = Field(2, ge=1, le=256)
    """A worker holds all clips of a batch decoded at once."""
    maxBatchDelay: int = Field(1, ge=0, le=1_000)
    """Milliseconds that each lone clip waits, those that prove a version included."""
    responseTimeout: int = Field(120, ge=1, le=600)
    """Seconds for which a worker that hangs is left alone."""
    startupTimeout: int = Field(120, ge=1, le=600)
    """Seconds for which a worker that does not come up holds `register` and a start."""
    maxRetryTimeoutInSec: int = Field(30, ge=1, le=600)
    """Seconds for which a worker that died may be missed."""


# Ranges of the core's settings that their units alone would leave too wide.
_CORE_RANGES: Final[Mapping[str, Any]] = {
    # An hour at 16 kHz is 230 MB of samples in a worker, for one clip.
    "max_audio_s": Field(gt=0, le=3_600),
    # The service takes clips of people's speech: beyond a minute all of these would be refused.
    "min_audio_s": Field(ge=0, le=60),
    "min_speech_s": Field(ge=0, le=60),
    "max_channels": Field(ge=1, le=64),
    # What the decoders give.
    "min_sample_rate_hz": Field(ge=1_000, le=384_000),
    "max_sample_rate_hz": Field(ge=1_000, le=768_000),
    # 0 is full scale: above it every clip would be silence. 24 bits reach down to -144.
    "silence_dbfs": Field(ge=-200, le=0),
    # A clip that takes longer keeps its worker from all others.
    "max_decode_s": Field(gt=0, le=120),
    # Each thread has a stack of its own, each window its own activations.
    "threads_per_worker": Field(ge=1, le=1_024),
    "windows_per_pass": Field(ge=1, le=1_024),
}
_UNIT_RANGES: Final[Mapping[str, Any]] = {
    "_s": Field(ge=0, le=3_600),
    "_share": Field(ge=0, le=1),
    "_probability": Field(ge=0, le=1),
}


@cache
def core_values() -> type[BaseModel]:
    """The document of the section that the core reads. Imports the core, and torch with it."""
    from accent.settings import WorkerSettings

    known: dict[str, Any] = {}
    for name, kind in get_type_hints(WorkerSettings).items():
        part = kind if hasattr(kind, "__dataclass_fields__") else None
        hints = get_type_hints(part) if part else {name: kind}
        names = [each.name for each in fields(part)] if part else [name]
        known |= {each: (_bounded(each, hints[each]), None) for each in names}
    return create_model("CoreValues", __config__=_STRICT, **known)


def values_out_of_range(settings: Mapping[str, Any]) -> list[str]:
    """The values that are of another type or range than can be served, each with what is taken.

    As `key=value (what is taken)`. Sections and lists where there should be a value are left
    out: they are strange as keys. Raises `UnreadableSettings` where the core's section is none.
    """
    core = core_settings(settings)
    return [
        *_faults(TorchServeValues, settings, ""),
        *(_faults(core_values(), core, f"{CORE_SECTION}.") if core else []),
    ]


def _bounded(name: str, kind: Any) -> Any:
    numbers = {kind, *get_args(kind)} & {int, float}
    if not numbers:
        return kind
    suffix = next((each for each in _UNIT_RANGES if name.endswith(each)), None)
    bounds = _CORE_RANGES.get(name) or (_UNIT_RANGES[suffix] if suffix else Field())
    number: Any = Annotated[numbers.pop(), bounds, Field(allow_inf_nan=False)]
    return number | None if type(None) in get_args(kind) else number


def _faults(document: type[BaseModel], values: Mapping[str, Any], place: str) -> Iterator[str]:
    plain = {key: value for key, value in values.items() if not isinstance(value, (Mapping, list))}
    try:
        document.model_validate(plain)
    except ValidationError as error:
        for key in dict.fromkeys(str(fault["loc"][0]) for fault in error.errors()):
            shown = f"{plain[key]!r}"[:_MAX_SHOWN_CHARS]
            yield f"{place}{key}={shown} ({_taken(document, key)})"


def _taken(document: type[BaseModel], key: str) -> str:
    """What a key takes, in words: `1 to 256`, `above 0, at most 120`, `true or false`."""
    field = document.model_fields[key]
    kind: Any = Annotated[field.annotation, field]
    schema = TypeAdapter(kind).json_schema()
    options = schema.get("anyOf", [schema])
    words = [_in_words(each) for each in options]
    return f"{' or '.join(words)} is taken"


def _in_words(schema: Mapping[str, Any]) -> str:
    match schema.get("type"):
        case "null":
            return "null"
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            noun = "a whole number" if kind == "integer" else "a number"
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is not None and high is not None:
                return f"{noun} from {low} to {high}"
            if (above := schema.get("exclusiveMinimum")) is not None:
                return f"{noun} above {above}, at most {high}"
            return noun
    names = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
    return ", ".join(map(str, names)) or "a text"
