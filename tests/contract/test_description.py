"""The description of all routes, as OpenAPI and as a page."""

import json

from fastapi.openapi.models import OpenAPI

from proxy.description import ACCENT, JOBS
from proxy.problems import TABLE
from tests.contract.proxy_process import CLASSIFY, Proxy
from tests.contract.schemas import assert_fits

OF_STATUS = {"401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "503": {"Retry-After"}}


def test_the_description_is_valid_openapi(proxy: Proxy) -> None:
    described = OpenAPI.model_validate(proxy.description)
    assert described.openapi.startswith("3.1")
    of_jobs = {JOBS, f"{JOBS}/{{job_id}}"}
    assert set(proxy.description["paths"]) == {
        *(CLASSIFY, ACCENT, "/healthz", "/readyz", "/"),
        *of_jobs,
    }
    components = proxy.description.get("components", {}).get("schemas", {})
    text = json.dumps(proxy.description)
    for reference in text.split('"#/components/schemas/')[1:]:
        assert reference.partition('"')[0] in components
    assert "HTTPValidationError" not in text


def test_the_description_tells_the_upload_and_every_answer_to_it(proxy: Proxy) -> None:
    operation = proxy.description["paths"][CLASSIFY]["post"]
    content = operation["requestBody"]["content"]
    assert {"multipart/form-data", "audio/*", "video/*", "application/octet-stream"} <= set(content)
    schema = content["multipart/form-data"]["schema"]
    assert schema["required"] == ["file"]
    clip = schema["properties"]["file"]
    assert clip["format"] == "binary"
    for named in ("A-law", "GSM", "AMR", "MP4, MOV, MKV, WebM", "at most 25000000 bytes"):
        assert named in clip["description"]
    assert all(each["schema"] in (schema, clip) for each in content.values())
    told = {
        (int(status), code)
        for status, answer in operation["responses"].items()
        if status != "200"
        for code in answer["content"]["application/problem+json"]["schema"]["properties"]["code"][
            "enum"
        ]
    }
    elsewhere = {
        *("not_found", "method_not_allowed", "preflight_refused"),
        *("job_not_found", "too_many_files"),
    }
    assert told == {(row.status, code) for code, row in TABLE.items() if code not in elsewhere}
    for status, answer in operation["responses"].items():
        assert set(answer["headers"]) == {"X-Model", "X-Request-ID"} | OF_STATUS.get(status, set())


def test_the_examples_in_the_description_fit_their_schemas(proxy: Proxy) -> None:
    answers = proxy.description["paths"][CLASSIFY]["post"]["responses"]
    for status, answer in answers.items():
        for content in answer["content"].values():
            for code, example in content.get("examples", {}).items():
                assert example["value"]["code"] == code
                assert str(example["value"]["status"]) == status
                assert set(example["value"]) == set(content["schema"]["required"]) | {"type"}


def test_the_examples_of_jobs_fit_their_schemas(proxy: Proxy) -> None:
    described = proxy.description
    examples = 0
    for path in (JOBS, f"{JOBS}/{{job_id}}"):
        for operation in described["paths"][path].values():
            for status, answer in operation["responses"].items():
                assert status != "422"
                content = answer.get("content", {}).get("application/json", {})
                if "example" in content:
                    schema = {**content["schema"], "components": described["components"]}
                    assert_fits(content["example"], schema)
                    examples += 1
    assert examples == 2


def test_the_documentation_page_is_there(proxy: Proxy) -> None:
    response = proxy.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in response.text
