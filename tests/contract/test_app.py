"""The routes beside the upload, and the description of all of them."""

import json
from collections.abc import Callable

import pytest
from fastapi.openapi.models import OpenAPI

from proxy.problems import TABLE
from tests.contract.proxy_process import CLASSIFY, Proxy, eventually
from tests.contract.standin import MODEL, VERSION, StandIn


def test_the_process_says_that_it_lives_whatever_torchserve_does(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(torchserve_socket=standin.socket_path.with_name("nobody"))
    assert proxy.get("/healthz").json() == {"status": "alive"}


def test_ready_tells_which_model_answers(proxy: Proxy, standin: StandIn) -> None:
    standin.workers = ["READY", "LOADING", "READY"]
    ready = {
        "status": "ready",
        "model": MODEL,
        "version": VERSION,
        "workers": 2,
        "versions": [{"version": VERSION, "workers": 2}],
        "canary": None,
    }
    eventually(lambda: proxy.get("/readyz").json() == ready)


@pytest.mark.parametrize("workers", [[], ["LOADING"], ["UNLOADING", "STOPPED"]])
def test_no_ready_worker_means_not_ready(
    proxy: Proxy, standin: StandIn, workers: list[str]
) -> None:
    standin.workers = workers
    eventually(lambda: proxy.get("/readyz").status_code == 503)
    assert proxy.get("/readyz").json()["code"] == "model_unavailable"


def test_readiness_follows_the_worker(proxy: Proxy, standin: StandIn) -> None:
    eventually(lambda: proxy.get("/readyz").status_code == 200)
    standin.workers = []
    eventually(lambda: proxy.get("/readyz").status_code == 503)
    standin.workers = ["READY"]
    eventually(lambda: proxy.get("/readyz").status_code == 200)


def test_readiness_asks_torchserve_no_more_often_than_needed(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start()
    for _ in range(30):
        proxy.client.get("/readyz")
    assert 1 <= standin.describes < 15


def test_a_model_that_is_not_registered_is_not_ready_and_has_no_versions(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.describe_status = 404
    eventually(lambda: proxy.get("/readyz").status_code == 503)
    eventually(lambda: proxy.get("/").json()["versions"] == [])


def test_the_front_page_tells_what_is_served(start: Callable[..., Proxy], standin: StandIn) -> None:
    standin.versions = [VERSION, "1.0"]
    proxy = start(model_notice="A small model.", max_upload_bytes=1_000_000)
    response = proxy.get("/")
    assert response.headers["x-model"] == f"{MODEL}/{VERSION}"
    about = response.json()
    assert about["service"]
    assert about["model"] == {"name": MODEL, "version": VERSION, "notice": "A small model."}
    assert about["versions"] == ["1.0", VERSION]
    limits = about["limits"]
    assert limits["max_upload_bytes"] == 1_000_000
    assert (limits["max_audio_s"], limits["min_audio_s"]) == (300.0, 0.5)
    assert any("M4A" in name for name in limits["formats"])
    for link in about["links"].values():
        assert proxy.get(link).status_code == 200


def test_the_description_is_valid_openapi(proxy: Proxy) -> None:
    described = OpenAPI.model_validate(proxy.description)
    assert described.openapi.startswith("3.1")
    assert set(proxy.description["paths"]) == {CLASSIFY, "/healthz", "/readyz", "/"}
    components = proxy.description.get("components", {}).get("schemas", {})
    text = json.dumps(proxy.description)
    for reference in text.split('"#/components/schemas/')[1:]:
        assert reference.partition('"')[0] in components
    assert "HTTPValidationError" not in text


def test_the_description_tells_the_upload_and_every_answer_to_it(proxy: Proxy) -> None:
    operation = proxy.description["paths"][CLASSIFY]["post"]
    assert list(operation["requestBody"]["content"]) == ["multipart/form-data"]
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["file"]
    assert schema["properties"]["file"]["format"] == "binary"
    told = {
        (int(status), code)
        for status, answer in operation["responses"].items()
        if status != "200"
        for code in answer["content"]["application/problem+json"]["schema"]["properties"]["code"][
            "enum"
        ]
    }
    elsewhere = {"not_found", "method_not_allowed"}
    assert told == {(row.status, code) for code, row in TABLE.items() if code not in elsewhere}
    for status, answer in operation["responses"].items():
        wanted = {"X-Model", "X-Request-ID"} | ({"Retry-After"} if status == "503" else set())
        assert set(answer["headers"]) == wanted


def test_the_examples_in_the_description_fit_their_schemas(proxy: Proxy) -> None:
    answers = proxy.description["paths"][CLASSIFY]["post"]["responses"]
    for status, answer in answers.items():
        for content in answer["content"].values():
            for code, example in content.get("examples", {}).items():
                assert example["value"]["code"] == code
                assert str(example["value"]["status"]) == status
                assert set(example["value"]) == set(content["schema"]["required"]) | {"type"}


def test_the_documentation_page_is_there(proxy: Proxy) -> None:
    response = proxy.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in response.text
