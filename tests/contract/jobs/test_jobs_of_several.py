"""Jobs where several processes serve: whichever is asked, the answer is that of one."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from proxy.keys import line_for, new_key
from proxy.limits.rate_limit import Limits
from tests.contract.job_requests import (
    JOBS,
    all_events,
    create,
    created,
    delete,
    ended,
    events,
    read,
)
from tests.contract.proxy_process import Proxy, eventually
from tests.contract.scraping import scrape, value
from tests.contract.standin import StandIn, hang

pytestmark = pytest.mark.slow

PROCESSES: Final = 3
STREAM: Final = {"Accept": "text/event-stream"}
OFTEN: Final = 12
"""So many new connections come to more than one process."""


@pytest.fixture(scope="module")
def shared_several(shared_standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(shared_standin, processes=PROCESSES, job_silence_s=0.1, max_jobs_per_client=64)
    yield proxy
    proxy.close()


@pytest.fixture
def several(shared_several: Proxy, standin: StandIn) -> Proxy:  # noqa: ARG001
    """Three processes, shared by all tests that end none."""
    return shared_several


def created_anywhere(proxy: Proxy, *clips: bytes, **headers: str) -> str:
    with proxy.new_client() as client:
        return created(proxy, *clips, client=client, headers=headers)


def at_two_places(proxy: Proxy, *clips: bytes, **headers: str) -> tuple[str, str]:
    """The addresses of two jobs of these clips, kept by two processes."""
    found: dict[str, str] = {}

    def both() -> bool:
        address = created_anywhere(proxy, *clips, **headers)
        if found.setdefault(place_of(address), address) != address:
            assert delete(proxy, address, **headers).status_code == 204
        return len(found) == 2

    eventually(both)
    first, second = found.values()
    return first, second


def place_of(address: str) -> str:
    return address.rpartition("/")[2][0]


def keeper(proxy: Proxy, address: str) -> psutil.Process:
    """The process that keeps a job: the first letters of ids are those of the alphabet."""
    place = str(ord(place_of(address)) - ord("a"))
    for each in psutil.Process(proxy.pid).children():
        command = each.cmdline()
        if "proxy.processes.worker" in command and command[-7] == place:
            return each
    raise AssertionError(f"nobody keeps {address}")


def test_whichever_process_is_asked_it_tells_streams_and_deletes_a_job(several: Proxy) -> None:
    for address in at_two_places(several, b"one", b"two"):
        document = ended(several, address)
        assert document["counts"]["scored"] == 2
        for _ in range(OFTEN):
            response = read(several, address, **{"Accept-Language": "id"})
            assert response.headers["content-language"] == "id"
            assert {"accept", "accept-language"} <= set(
                response.headers["vary"].lower().replace(" ", "").split(",")
            )
            assert read(several, address).json() == document
            assert [each.id for each in all_events(several, address)] == [1, 2, 3]
            assert [each.id for each in all_events(several, address, last_event_id="2")] == [3]
            told = all_events(several, address, last_event_id="²")
            assert [each.id for each in told] == [1, 2, 3]
            after = {"Accept": "text/event-stream", "Last-Event-ID": "3"}
            assert read(several, address, **after).status_code == 204
        assert delete(several, address).status_code == 204
        for _ in range(OFTEN):
            for method in (read, delete):
                refused = method(several, address)
                assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("job_id", ["A" * 32, "-" * 32, "b", "é", "b?x", "a.."])
def test_an_id_that_no_process_keeps_is_not_found(several: Proxy, job_id: str) -> None:
    for _ in range(OFTEN):
        assert read(several, f"{JOBS}/{job_id}").json()["code"] == "job_not_found"


def test_there_are_as_many_jobs_and_bytes_as_one_process_would_have(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.default_behaviour = hang
    proxy = start(
        processes=PROCESSES,
        max_jobs_per_client=4,
        max_job_bytes=1_000_000,
        max_jobs_held_bytes=1_000_000,
    )

    def try_all(clip: bytes) -> list[str]:
        addresses = []
        for _ in range(OFTEN):
            with proxy.new_client() as client:
                response = create(proxy, clip, client=client)
            if response.status_code == 202:
                addresses.append(response.headers["location"])
            else:
                assert response.json()["code"] == "overloaded"
        return addresses

    small = try_all(b"x")
    assert len(small) == 4
    for address in small:
        assert delete(proxy, address).status_code == 204
    large = try_all(b"x" * 300_000)
    assert len(large) == 3
    # A result that is there takes less than its clip.
    standin.default_behaviour = None
    for address in large:
        delete(proxy, address)
    scored = created_anywhere(proxy, b"y" * 900_000)
    assert ended(proxy, scored)["counts"]["scored"] == 1
    assert ended(proxy, created_anywhere(proxy, b"z" * 900_000))["counts"]["scored"] == 1


def test_jobs_of_a_process_that_is_killed_are_gone_and_all_processes_say_so(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"slow"] = hang
    proxy = start(processes=PROCESSES, job_silence_s=0.05, max_jobs_per_client=3)
    lost, kept = at_two_places(proxy, b"slow")
    victim = keeper(proxy, lost)
    streams = []
    for client in [proxy.new_client() for _ in range(4)]:
        request = client.build_request("GET", lost, headers=STREAM)
        streams.append(client.send(request, stream=True))
    victim.kill()
    for stream in streams:
        told = []
        # It breaks where the reader's own process has died, and ends where that passed it on.
        with suppress(httpx.TransportError):
            told = [each for each in events(stream) if each.name]
        assert not told

    def is_gone() -> bool:
        """Who asks waits for the next process in its place, but not for ever."""
        status = read(proxy, lost).status_code
        assert status in (404, 503)
        return status == 404

    eventually(is_gone)
    for _ in range(OFTEN):
        refused = read(proxy, lost)
        assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")
        assert read(proxy, kept).json()["state"] == "running"
    # What it had of the number of jobs is free again.
    eventually(lambda: len([created_anywhere(proxy, b"fast") for _ in range(2)]) == 2)
    delete(proxy, kept)


def test_a_reader_that_leaves_leaves_nothing_open_between_processes(
    several: Proxy, standin: StandIn
) -> None:
    def passed_on() -> int:
        """Connections over which one process answers for another."""
        return sum(
            "jobs-" in each.laddr
            for process in psutil.Process(several.pid).children()
            for each in process.net_connections("unix")
        )

    standin.behaviours[b"slow"] = hang
    # Those that listen have the same name.
    idle = passed_on()
    for address in at_two_places(several, b"slow"):
        streams = []
        for client in [several.new_client() for _ in range(OFTEN)]:
            request = client.build_request("GET", address, headers=STREAM)
            streams.append((client, client.send(request, stream=True)))
        eventually(lambda: passed_on() > idle)
        for client, stream in streams:
            stream.close()
            client.close()
        eventually(lambda: passed_on() == idle)
        delete(several, address)


def test_a_drain_ends_the_jobs_of_all_and_each_process_says_so(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"slow"] = hang
    proxy = start(processes=PROCESSES, job_silence_s=0.05)
    addresses = at_two_places(proxy, b"slow")
    streams = []
    for address in [*addresses] * 3:
        client = proxy.new_client()
        request = client.build_request("GET", address, headers=STREAM)
        streams.append((client, client.send(request, stream=True)))
    proxy.terminate()
    for client, stream in streams:
        *_, last = [each for each in events(stream) if each.name]
        assert (last.name, last.data["state"]) == ("done", "interrupted")
        client.close()
    assert proxy.await_end() == 0
    assert "Traceback" not in proxy.log


def test_jobs_of_all_processes_are_told_in_sum(several: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"slow"] = hang

    def told(name: str) -> float:
        return value(scrape(several), f"aurea_proxy_jobs_{name}")

    eventually(lambda: told("running") == 0)
    kept = told("kept")
    addresses = at_two_places(several, b"slow", b"waits")
    eventually(lambda: (told("running"), told("kept")) == (2, kept))
    eventually(lambda: told("waiting_clips") in (2, 3))
    for address in addresses:
        delete(several, address)
    eventually(lambda: told("running") == told("waiting_clips") == 0)


def test_a_job_belongs_to_its_key_whichever_process_is_asked(
    start: Callable[..., Proxy], tmp_path: Path
) -> None:
    keys = {"ana": new_key(), "few": new_key()}
    limits = {"ana": Limits(), "few": Limits(requests_per_min=6)}
    (tmp_path / "keys").write_text(
        "\n".join(line_for(name, key, limits[name]) for name, key in keys.items())
    )
    proxy = start(processes=PROCESSES, keys_file=tmp_path / "keys")
    ana, few = ({"X-API-Key": keys[name]} for name in ("ana", "few"))
    for address in at_two_places(proxy, b"x", **ana):
        assert ended(proxy, address, **ana)["counts"]["scored"] == 1
        for _ in range(OFTEN):
            assert read(proxy, address, **few).json()["code"] == "job_not_found"
            assert read(proxy, address).status_code == 401
            assert read(proxy, address, **ana).status_code == 200
    # Reading costs nothing of what a key may do in a minute; each clip does.
    address = created_anywhere(proxy, b"a", b"b", **few)
    assert ended(proxy, address, **few)["counts"]["scored"] == 2
