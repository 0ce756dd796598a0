"""Values of settings that would stall or starve a server, each kind of them."""

from dataclasses import fields
from typing import Any

import pytest
import yaml
from accent.limits import AudioLimits
from accent.selection import EngineSettings
from accent.settings import WorkerSettings
from accent.speech import SpeechLimits

from aurea.archive.ranges import core_values, values_out_of_range
from aurea.archive.settings import CORE_SECTION, OUR_SETTINGS_FILE, UnreadableSettings

TORCHSERVE = {
    "batchSize": (1, 256),
    "maxBatchDelay": (0, 1_000),
    "responseTimeout": (1, 600),
    "startupTimeout": (1, 600),
    "maxRetryTimeoutInSec": (1, 600),
}
CORE = {
    "max_audio_s": (0.1, 3_600),
    "min_audio_s": (0, 60),
    "max_channels": (1, 64),
    "min_sample_rate_hz": (1_000, 384_000),
    "max_sample_rate_hz": (1_000, 768_000),
    "silence_dbfs": (-200, 0),
    "speech_probability": (0, 1),
    "min_speech_s": (0, 60),
    "max_decode_s": (0.1, 120),
    "threads_per_worker": (1, 1_024),
    "windows_per_pass": (1, 1_024),
}
PLACES = [(key, ends, False) for key, ends in TORCHSERVE.items()] + [
    (key, ends, True) for key, ends in CORE.items()
]


def found(key: str, value: Any, *, in_core: bool) -> list[str]:
    settings = yaml.safe_load(OUR_SETTINGS_FILE.read_bytes())
    (settings[CORE_SECTION] if in_core else settings)[key] = value
    return values_out_of_range(settings)


def test_the_shipped_settings_are_in_range() -> None:
    assert values_out_of_range(yaml.safe_load(OUR_SETTINGS_FILE.read_bytes())) == []


@pytest.mark.parametrize(("key", "ends", "in_core"), PLACES)
def test_the_ends_of_a_range_are_taken_and_what_lies_beyond_is_named(
    key: str, ends: tuple[float, float], in_core: bool
) -> None:
    low, high = ends
    assert found(key, low, in_core=in_core) == found(key, high, in_core=in_core) == []
    for value in (low - 1, high + 1, 10**12):
        (fault,) = found(key, value, in_core=in_core)
        assert fault.startswith(f"{'accent.' * in_core}{key}={value!r} (a")
        assert f"{high}" in fault


@pytest.mark.parametrize("value", ["2", True, float("nan"), float("inf"), "auto", b"2"])
@pytest.mark.parametrize(("key", "_", "in_core"), PLACES)
def test_a_value_of_another_type_is_named(key: str, _: Any, in_core: bool, value: Any) -> None:
    (fault,) = found(key, value, in_core=in_core)
    assert f"{key}=" in fault


@pytest.mark.parametrize(
    ("key", "value", "taken"),
    [
        ("hear_whole_clip", "yes please", "true or false"),
        ("engine", "tensorrt", "auto"),
        ("precision", "int4", "auto"),
        ("engine", 1, "openvino"),
    ],
)
def test_what_is_taken_instead_is_said(key: str, value: Any, taken: str) -> None:
    (fault,) = found(key, value, in_core=True)
    assert taken in fault


def test_every_setting_of_the_core_is_typed_without_a_second_declaration() -> None:
    parts = {"audio": AudioLimits, "speech": SpeechLimits, "engine": EngineSettings}
    known = {each.name for part in parts.values() for each in fields(part)}
    known |= {each.name for each in fields(WorkerSettings)} - set(parts)
    assert set(core_values().model_fields) == known


@pytest.mark.parametrize("settings", [{}, {"accent": None}, {"other": 7, "accent": {"x": 1}}])
def test_what_is_left_out_or_unknown_has_no_range(settings: dict[str, Any]) -> None:
    assert values_out_of_range(settings) == []


def test_a_core_section_that_is_none_is_refused() -> None:
    with pytest.raises(UnreadableSettings, match="accent"):
        values_out_of_range({"accent": 5})
