"""How tests speak to `/v1/jobs`. Every document is checked against the description."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpx

from tests.contract.proxy_process import Proxy, contract, eventually
from tests.contract.schemas import assert_fits

JOBS: Final = "/v1/jobs"
JOB: Final = f"{JOBS}/{{job_id}}"

Files = Sequence[tuple[str, tuple[str, bytes]]]


def files(*clips: bytes) -> Files:
    """A form's files, named by their place."""
    return [("file", (f"{index}.wav", clip)) for index, clip in enumerate(clips)]


def create(
    proxy: Proxy,
    *clips: bytes,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    client: httpx.Client | None = None,
) -> httpx.Response:
    """The checked answer to a job of these clips."""
    response = (client or proxy.client).post(
        JOBS + query, files=list(files(*clips)), headers=headers
    )
    return check(proxy, "POST", JOBS, response)


def created(proxy: Proxy, *clips: bytes, **options: Any) -> str:
    """The address of a job of these clips."""
    response = create(proxy, *clips, **options)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == response.json()["address"]
    return str(response.json()["address"])


def read(proxy: Proxy, address: str, **headers: str) -> httpx.Response:
    return _ask(proxy, "GET", address, headers)


def delete(proxy: Proxy, address: str, **headers: str) -> httpx.Response:
    return _ask(proxy, "DELETE", address, headers)


def _ask(proxy: Proxy, method: str, address: str, headers: dict[str, str]) -> httpx.Response:
    # Of several processes, each new connection may come to any.
    with proxy.new_client() as client:
        return check(proxy, method, JOB, client.request(method, address, headers=headers))


def ended(proxy: Proxy, address: str, **headers: str) -> dict[str, Any]:
    """The document of a job once it has ended."""
    eventually(lambda: read(proxy, address, **headers).json()["state"] != "running")
    return dict(read(proxy, address, **headers).json())


def check(proxy: Proxy, method: str, route: str, response: httpx.Response) -> httpx.Response:
    """What holds for every answer, and its document against its schema."""
    described = contract()
    told = described["paths"][route][method.lower()]["responses"][str(response.status_code)]
    assert {name.lower() for name in told["headers"]} <= set(response.headers)
    kind = response.headers.get("content-type", "")
    if kind == "text/event-stream; charset=utf-8":
        return response
    if "content-language" not in response.headers or response.status_code < 400:
        # Titles are checked in English.
        proxy.check(response)
    if response.status_code != 204:
        schema = told["content"][kind]["schema"]
        assert_fits(response.json(), {**schema, "components": described["components"]})
    return response


class Event(NamedTuple):
    """One server-sent event. A comment has no name, and its text for data."""

    id: int
    name: str
    data: Any


def events(response: httpx.Response) -> Iterator[Event]:
    """The events of a stream as they come, comments included."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            yield Event(0, "", line)
        elif line:
            name, _, text = line.partition(": ")
            fields[name] = text
        elif fields:
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


def all_events(
    proxy: Proxy, address: str, *, last_event_id: str = "", **headers: str
) -> list[Event]:
    """All events but comments of a job, until its stream ends."""
    accepting = httpx.Headers({"Accept": "text/event-stream", **headers}, encoding="latin-1")
    if last_event_id:
        accepting["Last-Event-ID"] = last_event_id
    with proxy.new_client() as client, client.stream("GET", address, headers=accepting) as stream:
        assert stream.status_code == 200, stream.read()
        return [each for each in events(stream) if each.name]


def component(name: str) -> dict[str, Any]:
    """The schema of one document of the description."""
    described = contract()
    return {
        "$ref": f"#/components/schemas/{name}",
        "components": described["components"],
    }
