from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import yaml
from accent.settings import WorkerSettings

from aurea.archive.setting_values import core_values, faulty_values
from aurea.archive.settings import OUR_SETTINGS_FILE, core_settings

SHIPPED: dict[str, Any] = yaml.safe_load(OUR_SETTINGS_FILE.read_bytes())

ALLOWED = {
    "batchSize": (1, 16, 128),
    "maxBatchDelay": (0, 1, 100, 1_000),
    "responseTimeout": (10, 120, 600),
    "startupTimeout": (10, 120, 600),
    "maxRetryTimeoutInSec": (1, 30, 300, 600),
    "accent.max_audio_s": (0.5, 30, 300.0, 3_600),
    "accent.min_audio_s": (0, 0.5, 10),
    "accent.max_channels": (1, 8, 64),
    "accent.min_sample_rate_hz": (1, 8_000, 48_000),
    "accent.max_sample_rate_hz": (16_000, 192_000, 768_000),
    "accent.silence_dbfs": (-200, -70.0, 0),
    "accent.max_decode_s": (0.001, 20.0, 120),
    "accent.hang_after_s": (1, 20.0, 120),
    "accent.speech_probability": (0, 0.5, 1),
    "accent.min_speech_s": (0, 0.4, 60),
    "accent.min_speech_share": (0, 0.005, 1),
    "accent.trim_margin_s": (0, 0.3, 10),
    "accent.threads_per_worker": (None, 1, 256),
    "accent.windows_per_pass": (None, 1, 256),
    "accent.decoders": (None, 0, 16, 256),
    "accent.trim": (True, False),
    "accent.hear_whole_clip": (True, False),
    "accent.engine": ("auto", "torch", "openvino"),
    "accent.precision": ("auto", "fp32", "bf16", "int8", "fp16", "tf32"),
}
REFUSED: dict[str, tuple[object, ...]] = {
    "batchSize": (0, -1, 129, 1 << 20_000, 1.5, True, "2", None, {}, []),
    "maxBatchDelay": (-1, 1_001, 120_000, 600_000, "1", None),
    "responseTimeout": (0, 9, 601, 10**12, None),
    "startupTimeout": (0, 9, 601, "120"),
    "maxRetryTimeoutInSec": (0, 601, -30),
    "accent.max_audio_s": (0, -1, 3_601, float("inf"), float("nan"), "300", None, True),
    "accent.min_audio_s": (-0.1, 10.1, "0.5"),
    "accent.max_channels": (0, 65, 2.5),
    "accent.min_sample_rate_hz": (0, 48_001),
    "accent.max_sample_rate_hz": (15_999, 768_001),
    "accent.silence_dbfs": (0.1, -201, None),
    "accent.max_decode_s": (0, 121, float("inf"), -(1 << 20_000)),
    "accent.hang_after_s": (0, 121, float("inf")),
    "accent.speech_probability": (-0.1, 1.1),
    "accent.min_speech_s": (-1, 61),
    "accent.min_speech_share": (-0.1, 1.1),
    "accent.trim_margin_s": (-0.1, 11),
    "accent.threads_per_worker": (0, 257, "all"),
    "accent.windows_per_pass": (0, 257, 1.5),
    "accent.decoders": (-1, 257, "all"),
    "accent.trim": (1, "yes", None),
    "accent.hear_whole_clip": (0, "no"),
    "accent.engine": ("onnx", "", None, 1),
    "accent.precision": ("fp64", None),
}


def faults_of(key: str, value: object) -> dict[str, str]:
    settings = {**SHIPPED, "accent": dict(SHIPPED["accent"])}
    section, _, inner = key.rpartition(".")
    (settings[section] if section else settings)[inner] = value
    return faulty_values(settings, core_settings(settings))


def test_what_is_shipped_is_allowed() -> None:
    assert faulty_values(SHIPPED, core_settings(SHIPPED)) == {}


def test_settings_that_leave_everything_out_are_allowed() -> None:
    assert faulty_values({}, {}) == {}


@pytest.mark.parametrize("key", ALLOWED)
def test_a_value_within_its_range_is_allowed(key: str) -> None:
    assert [value for value in ALLOWED[key] if faults_of(key, value)] == []


@pytest.mark.parametrize("key", REFUSED)
def test_a_value_out_of_its_range_or_type_is_named_with_what_is_allowed(key: str) -> None:
    for value in REFUSED[key]:
        faults = faults_of(key, value)
        assert list(faults) == [key], value
        assert faults[key].startswith(f"{key} is ")
        assert "; allowed is " in faults[key]


def test_the_message_has_key_value_range_and_reason() -> None:
    assert faults_of("maxBatchDelay", 120_000) == {
        "maxBatchDelay": "maxBatchDelay is 120000; allowed is a whole number, 0 to 1,000 "
        "(every lone clip waits so many milliseconds)"
    }
    assert "null or a whole number, 1 to 256" in str(faults_of("accent.windows_per_pass", 0))
    assert "auto, torch, openvino" in str(faults_of("accent.engine", "onnx"))


def test_every_setting_that_is_shipped_is_vetted_in_this_table() -> None:
    shipped = {*SHIPPED, *(f"accent.{key}" for key in SHIPPED["accent"])} - {"accent"}
    assert shipped == set(ALLOWED) == set(REFUSED)


def test_the_core_declares_its_values_once() -> None:
    defaults = WorkerSettings()
    declared: set[str] = set()
    for each in fields(defaults):
        value = getattr(defaults, each.name)
        declared |= {inner.name for inner in fields(value)} if is_dataclass(value) else {each.name}
    assert set(core_values().model_fields) == declared
