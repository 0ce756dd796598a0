"""`POST /v1/accent`: every field, both languages, and the refusals of the small answer."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from proxy.answer.bands import BANDS, band_of, certainty_of
from proxy.answer.language import LANGUAGES, preferred
from proxy.answer.words import FOLDER, words
from proxy.keys import line_for, new_key
from proxy.limits.rate_limit import Limits
from proxy.problems import TABLE, TITLES
from tests.contract.proxy_process import CLASSIFY, Proxy, contract
from tests.contract.schemas import assert_fits
from tests.contract.standin import MODEL, SCORE, VERSION, StandIn, document

ACCENT = "/v1/accent"


def ask(
    proxy: Proxy,
    clip: bytes = b"clip",
    path: str = ACCENT,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    return proxy.client.post(path, files={"file": ("a.wav", clip, "audio/wav")}, headers=headers)


def schema() -> dict[str, Any]:
    described = contract()
    answer = described["paths"][ACCENT]["post"]["responses"]["200"]["content"]["application/json"]
    return {**answer["schema"], "components": described["components"]}


def test_the_answer_says_everything_about_a_clip(proxy: Proxy) -> None:
    response = ask(proxy)
    assert response.status_code == 200
    assert response.headers["content-language"] == "en"
    assert "accept-language" in response.headers["vary"].lower()
    assert response.headers["x-model"] == f"{MODEL}/{VERSION}"
    answer = response.json()
    assert_fits(answer, schema())
    assert answer == {
        "schema_version": "1.0",
        "us_confidence": SCORE,
        "band": {"id": "very_close", **words("en").bands["very_close"].model_dump()},
        "accents": [
            {"label": "us", "name": "US English", "score": 0.855},
            {"label": "southatlandtic", "name": "South Atlantic", "score": 0.1},
            {"label": "elsewhere", "name": "Elsewhere", "score": 0.045},
        ],
        "certainty": {"id": "clear", "message": words("en").certainty["clear"]},
        "audio": {
            "duration_s": 5.0,
            "speech_s": 4.1,
            "scored_s": 4.4,
            "sample_rate_hz": 48_000,
            "channels": 2,
            "codec": "opus",
            "peak_dbfs": -3.1,
            "level_dbfs": -21.0,
            "advice": [{"id": "noisy", "message": words("en").advice["noisy"]}],
        },
        "model": {
            "name": MODEL,
            "version": VERSION,
            "kind": "ecapa",
            "labels": ["us", "southatlandtic", "elsewhere"],
            "scale": 30.0,
            "worth": "Good.",
            "notice": "",
        },
    }


def test_the_timeline_comes_with_a_range_and_only_where_it_is_asked_for(proxy: Proxy) -> None:
    answer = ask(proxy, path=f"{ACCENT}?timeline=true").json()
    assert_fits(answer, schema())
    assert answer["range"] == {"low": 71.2, "high": 93.0}
    assert [each["start_s"] for each in answer["timeline"]] == [0.0, 1.5, 2.0]
    assert answer["timeline"][2]["accent"] == {"label": "us", "name": "US English", "score": 0.8}
    without = ask(proxy, path=f"{ACCENT}?timeline=false").json()
    assert not {"timeline", "range"} & set(without)
    assert without["us_confidence"] == answer["us_confidence"]


def test_one_window_has_no_range(proxy: Proxy, standin: StandIn) -> None:
    async def short(_: Any) -> Any:
        answer = document(detail="timeline")
        return {**answer, "timeline": answer["timeline"][:1]}

    standin.default_behaviour = short
    answer = ask(proxy, path=f"{ACCENT}?timeline=true").json()
    assert len(answer["timeline"]) == 1
    assert "range" not in answer


def test_words_are_in_the_language_asked_for_and_ids_never_change(proxy: Proxy) -> None:
    english, indonesian = (
        ask(proxy, path=f"{ACCENT}?timeline=true", headers={"Accept-Language": language})
        for language in ("en-GB", "id-ID,en;q=0.5")
    )
    assert indonesian.headers["content-language"] == "id"
    one, other = english.json(), indonesian.json()
    assert other["model"]["worth"] == "Baik."
    assert other["accents"][0]["name"] == "Inggris Amerika"
    assert without_words(one) == without_words(other)


def without_words(document: Any) -> Any:
    told = ("label_text", "meaning", "message", "name", "worth")
    if isinstance(document, list):
        return [without_words(each) for each in document]
    if not isinstance(document, dict):
        return document
    kept = {key: without_words(each) for key, each in document.items() if key not in told}
    if "meaning" in document:
        kept.pop("label")
    return kept


@pytest.mark.parametrize("send", ["form", "audio/webm", "application/octet-stream", "video/mp4"])
def test_a_clip_comes_as_a_form_or_bare(send: str, proxy: Proxy, standin: StandIn) -> None:
    if send == "form":
        response = ask(proxy, b"bare")
    else:
        response = proxy.client.post(ACCENT, content=b"bare", headers={"Content-Type": send})
    assert response.status_code == 200
    assert standin.predictions[-1].body == b"bare"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"files": {"other": ("a.wav", b"x")}}, "missing_file"),
        ({"files": {"file": ("a.wav", b"")}}, "empty_file"),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, "malformed_request"),
    ],
)
def test_refusals_are_those_of_the_small_answer_in_the_language_asked_for(
    request_: dict[str, Any], code: str, language: str, proxy: Proxy
) -> None:
    headers = {**request_.get("headers", {}), "Accept-Language": language}
    request_ = {key: value for key, value in request_.items() if key != "headers"}
    small = proxy.client.post(CLASSIFY, **request_, headers=headers)
    whole = proxy.client.post(ACCENT, **request_, headers=headers)
    assert whole.status_code == small.status_code
    assert whole.headers["content-type"] == "application/problem+json"
    one, other = small.json(), whole.json()
    assert one["code"] == other["code"] == code
    if language == "en":
        assert (one["title"], one["detail"]) == (other["title"], other["detail"])
    else:
        assert other["detail"] == words("id").problems[code]
        assert other["title"] == words("id").titles[whole.status_code]
        assert whole.headers["content-language"] == "id"


def test_a_model_that_refuses_is_told_with_its_code(proxy: Proxy, standin: StandIn) -> None:
    async def silent(_: Any) -> Any:
        model = {"name": MODEL, "version": VERSION}
        return JSONResponse({"code": "no_speech", "detail": "Silent.", "model": model}, 422)

    standin.default_behaviour = silent
    assert ask(proxy).json()["detail"] == "Silent."
    told = ask(proxy, headers={"Accept-Language": "id"}).json()
    assert (told["code"], told["status"]) == ("no_speech", 422)
    assert told["detail"] == words("id").problems["no_speech"]


@pytest.mark.parametrize(
    "change",
    [
        {"accents": []},
        {"accents": [{"label": "us", "score": 2}]},
        {"us_confidence": 101},
        {"audio": {"duration_s": 1}},
        {"model": {"name": MODEL, "version": VERSION}},
        {"timeline": [{"start_s": -1}]},
    ],
)
def test_a_document_that_is_not_whole_is_an_internal_fault(
    change: dict[str, Any], proxy: Proxy, standin: StandIn
) -> None:
    async def broken(_: Any) -> Any:
        return {**document(detail="timeline"), **change}

    standin.default_behaviour = broken
    response = ask(proxy, path=f"{ACCENT}?timeline=true")
    assert (response.status_code, response.json()["code"]) == (500, "internal")


def test_nothing_of_a_query_but_what_is_known_reaches_torchserve(
    proxy: Proxy, standin: StandIn
) -> None:
    ask(
        proxy,
        path=f"{ACCENT}?timeline=true&evil=1%0d%0aX:y&recording=2",
        headers={"X-Aurea-Detail": "evil"},
    )
    told = standin.predictions[-1].request
    assert told.headers.getlist("x-aurea-detail") == ["timeline"]
    assert not told.query_params
    ask(proxy, path=f"{CLASSIFY}?timeline=true", headers={"X-Aurea-Detail": "timeline"})
    assert "x-aurea-detail" not in standin.predictions[-1].request.headers


def test_keys_are_asked_for_and_charged(start: Callable[..., Proxy], tmp_path: Path) -> None:
    key = new_key()
    keys = tmp_path / "keys"
    keys.write_text(line_for("app", key, Limits(audio_s_per_min=6)))
    proxy = start(keys_file=keys)
    assert ask(proxy).status_code == 401
    codes = [ask(proxy, headers={"X-API-Key": key}).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert "security" in proxy.description["paths"][ACCENT]["post"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    language=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    accept=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)
def test_no_header_breaks_the_answer(language: str, accept: str, proxy: Proxy) -> None:
    response = ask(proxy, headers={"Accept-Language": language.strip(), "Accept": accept.strip()})
    assert response.status_code == 200
    assert response.headers["content-language"] in LANGUAGES
    assert_fits(response.json(), schema())


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("id", "id"),
        ("id-ID", "id"),
        ("in", "id"),
        ("ID", "id"),
        ("en, id;q=0.9", "en"),
        ("en;q=0.3, id;q=0.9", "id"),
        ("fr, id;q=0.2", "id"),
        ("fr", "en"),
        ("*", "en"),
        ("en;q=0, *", "id"),
        ("id;q=0", "en"),
        ("id;q=nan", "en"),
        ("id;q=2", "en"),
        (";;;,,id;q=0.1", "id"),
        ("en;q=0.5,id;q=0.5", "en"),
        ("id;q=0.5,en;q=0.5", "id"),
    ],
)
def test_the_language_is_the_one_that_is_liked_best(header: str, language: str) -> None:
    assert preferred(header) == language


def test_every_word_is_there_in_every_language() -> None:
    by_language = {path.stem: words(path.stem) for path in FOLDER.glob("*.json")}
    assert set(by_language) == set(LANGUAGES)
    english, indonesian = by_language["en"], by_language["id"]
    for group in ("bands", "certainty", "advice", "accents"):
        assert set(getattr(english, group)) == set(getattr(indonesian, group)), group
    assert set(english.bands) == {name for _, name in BANDS}
    assert set(indonesian.problems) == set(TABLE)
    assert set(indonesian.titles) == set(TITLES)
    for told in by_language.values():
        for sentence in json.loads(told.model_dump_json()).values():
            assert sentence or sentence == {}


@pytest.mark.parametrize(
    ("us_confidence", "band"),
    [
        (0, "far"),
        (14.9, "far"),
        (15, "noticeable"),
        (39.9, "noticeable"),
        (40, "between"),
        (64.9, "between"),
        (65, "close"),
        (84.9, "close"),
        (85, "very_close"),
        (100, "very_close"),
    ],
)
def test_a_band_begins_with_its_threshold(us_confidence: float, band: str) -> None:
    assert band_of(us_confidence) == band


@pytest.mark.parametrize(
    ("posterior", "certainty"),
    [
        ([1.0, 0.0, 0.0], "clear"),
        ([0.61, 0.2, 0.19], "clear"),
        ([0.55, 0.44, 0.01], "mixed"),
        ([0.34, 0.33, 0.33], "far"),
        ([1 / 16] * 16, "far"),
        ([1.0], "clear"),
    ],
)
def test_what_fits_nothing_is_far_from_all(posterior: list[float], certainty: str) -> None:
    assert certainty_of(posterior) == certainty
