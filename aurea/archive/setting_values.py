"""Which values the settings of an archive may have: types and ranges, each with its reason."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from accent.errors import shown
from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

_WORDS: Final = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_MAX_VALUE_CHARS: Final = 60


class ServerValues(BaseModel):
    """What TorchServe reads, in its own spelling; each description is a range's reason."""

    model_config = ConfigDict(extra="ignore", strict=True)

    batchSize: int = Field(
        default=1, ge=1, le=128, description="a worker holds a batch in memory whole"
    )
    maxBatchDelay: int = Field(
        default=100, ge=0, le=1_000, description="every lone clip waits so many milliseconds"
    )
    responseTimeout: int = Field(
        default=120, ge=10, le=600, description="seconds; less ends workers under long clips, "
        "more keeps those that hang",
    )  # fmt: skip
    startupTimeout: int = Field(
        default=120, ge=10, le=600, description="seconds in which a worker loads the model"
    )
    maxRetryTimeoutInSec: int = Field(
        default=300, ge=1, le=600, description="seconds that a worker which failed stays away"
    )


_CORE_RANGES: Final[Mapping[str, FieldInfo]] = {
    "max_audio_s": Field(gt=0, le=3_600, description="an hour takes 230 MB as a waveform"),
    "min_audio_s": Field(ge=0, le=10, description="more would refuse whole sentences"),
    "max_channels": Field(ge=1, le=64, description="every channel is decoded and held"),
    "min_sample_rate_hz": Field(ge=1, le=48_000, description="most recordings have 48,000 Hz"),
    "max_sample_rate_hz": Field(
        ge=16_000, le=768_000, description="the model's own rate, and the highest of recorders"
    ),
    "silence_dbfs": Field(ge=-200, le=0, description="0 dB is full scale"),
    "max_decode_s": Field(gt=0, le=120, description="a worker decodes one clip at a time"),
    "speech_probability": Field(ge=0, le=1, description="a probability"),
    "min_speech_s": Field(ge=0, le=60, description="seconds; more would refuse most recordings"),
    "min_speech_share": Field(ge=0, le=1, description="a share"),
    "trim_margin_s": Field(ge=0, le=10, description="seconds; a wider margin trims nothing"),
    "hang_after_s": Field(ge=1, le=120, description="a hung worker answers nobody meanwhile"),
    "threads_per_worker": Field(ge=1, le=256, description="more exceed any machine's cores"),
    "decoders": Field(ge=0, le=256, description="more exceed any machine's cores"),
    "windows_per_pass": Field(ge=1, le=256, description="the memory of a pass grows with it"),
}


def faulty_values(settings: Mapping[str, Any], core: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with values by their keys: a sentence with the value and what is allowed.

    `core` is the section of `settings` that the core reads; its keys are named `accent.key`.
    Keys that neither TorchServe nor the core knows are not looked at.
    """
    return _faults(ServerValues, settings, "") | _faults(core_values(), core, "accent.")


@cache
def core_values() -> type[BaseModel]:
    """The values that the core reads, of the types that its dataclasses declare.

    A field without a range here is checked for its type alone.
    """
    # Imported late: it brings torch, for which only who vets an archive should wait.
    from accent.settings import WorkerSettings

    declared: dict[str, Any] = {}
    for name, kind in get_type_hints(WorkerSettings).items():
        if is_dataclass(kind):
            hints = get_type_hints(kind)
            declared |= {each.name: hints[each.name] for each in fields(kind)}
        else:
            declared[name] = kind
    entries: dict[str, Any] = {
        # The default is never read: what is left out has the core's own.
        key: (Annotated[kind, _CORE_RANGES[key]] if key in _CORE_RANGES else kind, None)
        for key, kind in declared.items()
    }
    config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
    return create_model("CoreValues", __config__=config, **entries)


def _faults(kind: type[BaseModel], values: Mapping[str, Any], section: str) -> dict[str, str]:
    try:
        kind.model_validate(dict(values))
    except ValidationError as error:
        keys = dict.fromkeys(str(fault["loc"][0]) for fault in error.errors())
        return {
            f"{section}{key}": f"{section}{key} is {_shortened(values[key])}; allowed is "
            f"{_allowed(kind.model_fields[key])}"
            for key in keys
        }
    return {}


def _shortened(value: Any) -> str:
    # What is nested may be endless, by YAML's aliases.
    if isinstance(value, Mapping | list):
        return "a section" if isinstance(value, Mapping) else "a list"
    return shown(value, _MAX_VALUE_CHARS)


def _allowed(field: FieldInfo) -> str:
    text = _kinds(field.annotation)
    low, high = None, None
    for limit in field.metadata:
        if isinstance(limit, Ge):
            low = f"{limit.ge:,} to"
        elif isinstance(limit, Gt):
            low = f"above {limit.gt:,}, at most"
        elif isinstance(limit, Le):
            high = f"{limit.le:,}"
    if low and high:
        text = f"{text}, {low} {high}"
    return f"{text} ({field.description})" if field.description else text


def _kinds(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        inner = [each for each in get_args(annotation) if each is not NoneType]
        words = ", ".join(map(_kinds, inner))
        return f"null or {words}" if len(inner) < len(get_args(annotation)) else words
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    return _WORDS.get(annotation, str(annotation))
