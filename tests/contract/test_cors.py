"""What browsers may send from pages of other origins, and how they are refused."""

from collections.abc import Iterator

import httpx
import pytest

from tests.contract.job_requests import ended
from tests.contract.proxy_process import CLASSIFY, Proxy
from tests.contract.standin import StandIn

ORIGIN = "https://app.example"
STRANGER = "https://elsewhere.example"


@pytest.fixture(scope="module")
def browsers(shared_standin: StandIn) -> Iterator[Proxy]:
    """A proxy that takes calls from one origin, with the headers that are the default."""
    proxy = Proxy(shared_standin, cors_origins=f'["{ORIGIN}"]')
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def open_to_all(shared_standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(shared_standin, cors_origins='["*"]', cors_headers='["*"]')
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def with_own_headers(shared_standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(shared_standin, cors_origins=f'["{ORIGIN}"]', cors_headers='["X-Learner"]')
    yield proxy
    proxy.close()


def preflight(
    proxy: Proxy,
    headers: str | None = None,
    *,
    origin: str = ORIGIN,
    method: str = "POST",
    path: str = CLASSIFY,
    **more: str,
) -> httpx.Response:
    fields = {"Origin": origin, "Access-Control-Request-Method": method, **more}
    if headers is not None:
        fields["Access-Control-Request-Headers"] = headers
    return proxy.check(proxy.client.options(path, headers=fields))


ASKED = ["Authorization", "authorization", "X-Request-ID", "Content-Type"]
ASKED += ["authorization,content-type,x-request-id", "Authorization, Content-Type"]


@pytest.mark.parametrize("asked", [None, *ASKED])
@pytest.mark.parametrize("path", [CLASSIFY, f"{CLASSIFY}/", "/healthz"])
def test_the_headers_of_ordinary_calls_are_allowed(
    browsers: Proxy, asked: str | None, path: str
) -> None:
    response = preflight(browsers, asked, path=path)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    allowed = response.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "content-type", "x-request-id"} <= set(allowed)


@pytest.mark.parametrize(
    ("asked", "status"),
    [("X-Learner", 200), ("x-request-id, x-learner", 200), ("Authorization", 400)],
)
def test_which_other_headers_are_allowed_is_configured(
    with_own_headers: Proxy, asked: str, status: int
) -> None:
    assert preflight(with_own_headers, asked).status_code == status


@pytest.mark.parametrize("asked", [*ASKED, "X-Anything, X-Other"])
def test_all_can_be_allowed(open_to_all: Proxy, asked: str) -> None:
    response = preflight(open_to_all, asked, origin=STRANGER)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["access-control-allow-headers"] == asked


@pytest.mark.parametrize(
    ("request_of", "faults"),
    [
        ({"headers": "X-Other"}, "headers"),
        ({"headers": "Authorization, X-Other"}, "headers"),
        ({"origin": STRANGER}, "origin"),
        ({"origin": "null"}, "origin"),
        ({"origin": ORIGIN + "/"}, "origin"),
        ({"method": "DELETE"}, "method"),
        ({"method": "PUT", "origin": STRANGER, "headers": "X-Other"}, "origin, method, headers"),
        ({"Access-Control-Request-Private-Network": "true"}, "private-network"),
    ],
)
@pytest.mark.parametrize("path", [CLASSIFY, "/nowhere"])
def test_a_preflight_that_is_refused_says_so_as_a_problem(
    browsers: Proxy, request_of: dict[str, str], faults: str, path: str
) -> None:
    request_id = f"refused-{abs(hash((path, *request_of.items())))}"
    response = preflight(browsers, path=path, **request_of, **{"X-Request-ID": request_id})
    assert (response.status_code, response.json()["code"]) == (400, "preflight_refused")
    assert f": {faults}." in response.json()["detail"]
    assert response.headers["x-request-id"] == request_id
    allowed = response.headers.get("access-control-allow-origin")
    assert allowed == (None if "origin" in faults else ORIGIN)
    assert "Origin" in response.headers["vary"]
    line = browsers.await_event(request_id)
    assert (line["method"], line["status"], line["code"]) == ("OPTIONS", 400, "preflight_refused")


@pytest.mark.parametrize("asked", [None, "last-event-id", "Authorization, X-Request-ID"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_job_can_be_read_from_its_last_event_and_deleted(
    browsers: Proxy, method: str, asked: str | None
) -> None:
    response = preflight(browsers, asked, method=method, path="/v1/jobs/none")
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(
    ("path", "request_of"),
    [
        ("/v1/jobs", {"method": "DELETE"}),
        ("/v1/jobs/none", {"method": "PUT"}),
        ("/v1/jobs/none", {"method": "DELETE", "origin": STRANGER}),
        ("/v1/jobs/none", {"headers": "X-Other"}),
    ],
)
def test_nothing_else_of_jobs_is_allowed(
    browsers: Proxy, path: str, request_of: dict[str, str]
) -> None:
    response = preflight(browsers, path=path, **request_of)
    assert (response.status_code, response.json()["code"]) == (400, "preflight_refused")


@pytest.mark.usefixtures("standin")
def test_a_page_learns_the_address_of_its_job(browsers: Proxy) -> None:
    response = browsers.client.post("/v1/jobs", files={"file": b"RIFF"}, headers={"Origin": ORIGIN})
    assert response.status_code == 202
    assert "Location" in response.headers["access-control-expose-headers"]
    ended(browsers, response.headers["location"])


def test_without_configured_origins_a_preflight_is_a_plain_question(proxy: Proxy) -> None:
    response = preflight(proxy, "Authorization")
    assert (response.status_code, response.headers["allow"]) == (204, "OPTIONS, POST")
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("content_type", ["audio/wav", "video/webm", None])
def test_the_calls_themselves_can_be_read_by_the_page(
    browsers: Proxy, standin: StandIn, content_type: str | None
) -> None:
    headers = {"Origin": ORIGIN, "Authorization": "Bearer of-a-gateway"}
    if content_type:
        headers["Content-Type"] = content_type
    response = browsers.post(content=b"RIFF", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert len(standin.predictions) == 1
    headers["Content-Encoding"] = "gzip"
    response = browsers.post(content=b"RIFF", headers=headers)
    assert response.json()["code"] == "unsupported_encoding"
    assert response.headers["access-control-allow-origin"] == ORIGIN
