"""Every knob is described, and a wrong one is refused at the start."""

import pytest
from pydantic import ValidationError

from proxy.settings import Settings


def test_every_setting_has_a_sentence_of_its_own() -> None:
    for name, setting in Settings.model_fields.items():
        assert setting.description, name


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUREA_MAX_UPLOAD_BYTES", "123")
    monkeypatch.setenv("AUREA_CORS_ORIGINS", '["https://a.example"]')
    settings = Settings()
    assert settings.max_upload_bytes == 123
    assert settings.cors_origins == ["https://a.example"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUREA_PORT", "99999"),
        ("AUREA_MAX_UPLOAD_BYTES", "0"),
        ("AUREA_DEADLINE_S", "-1"),
        ("AUREA_MIN_UPLOAD_BYTES_PER_S", "0"),
        ("AUREA_MIN_UPLOAD_BYTES_PER_S", "inf"),
        ("AUREA_UPLOAD_GRACE_S", "0"),
        ("AUREA_UPLOAD_GRACE_S", "nan"),
        ("AUREA_MODEL_NAME", "../other"),
        ("AUREA_METRICS_PORT", "65536"),
        ("AUREA_TLS_CERTIFICATE", "certificate.pem"),
        ("AUREA_TLS_KEY", "key.pem"),
        ("AUREA_TRUSTED_PROXIES", '["*"]'),
        ("AUREA_TRUSTED_PROXIES", '["proxy.example"]'),
        ("AUREA_LOG_ADDRESSES", "perhaps"),
        ("AUREA_MAX_JOBS", "-1"),
        ("AUREA_MAX_JOB_FILES", "0"),
        ("AUREA_MAX_JOB_BYTES", "128000001"),
        ("AUREA_MAX_JOBS_HELD_BYTES", "63999999"),
        ("AUREA_JOB_S", "inf"),
        ("AUREA_JOB_KEPT_S", "nan"),
        ("AUREA_JOB_SILENCE_S", "0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()
