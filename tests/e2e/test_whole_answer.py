"""The whole answer of the running service, of every format."""

import pytest

from proxy.answer.document import WholeAnswer
from tests.clips import ENCODINGS, every_format, voice
from tests.e2e.services import RunningService

ACCENT = "/v1/accent"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return every_format(voice(6.0, seed=5, sample_rate_hz=48_000))


@pytest.mark.parametrize("name", [*ENCODINGS, "ogg-vorbis"])
def test_each_format_gets_an_answer_that_fits_the_schema(
    service: RunningService, files: dict[str, bytes], name: str
) -> None:
    small = service.classify(files[name]).json()
    upload = {"file": ("clip", files[name], "application/octet-stream")}
    plain = service.client.post(ACCENT, files=upload)
    asked = service.client.post(ACCENT, params={"timeline": "true"}, files=upload)
    for response in (plain, asked):
        assert response.status_code == 200, response.text
        answer = WholeAnswer.model_validate_json(response.content, strict=True)
        kept = answer.model_dump(mode="json", exclude_unset=True)
        assert kept == response.json(), "a field that the schema does not name"
        assert answer.us_confidence == small["us_confidence"]
        assert answer.model.name == "embedded-ecapa"
        assert answer.model.kind == "ecapa"
    assert "timeline" not in plain.json()
    timeline = asked.json()["timeline"]
    assert len(timeline) >= 3
    assert all(each["end_s"] - each["start_s"] >= 2.9 for each in timeline)
    assert asked.json()["range"]["low"] <= asked.json()["range"]["high"]
