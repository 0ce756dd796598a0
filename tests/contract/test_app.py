"""The routes beside the upload."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.contract.proxy_process import CLASSIFY, Proxy, eventually
from tests.contract.routing_file import share, write
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
    standin.versions = [VERSION, "10.0", "1.0", "9.0"]
    proxy = start(model_notice="A small model.", max_upload_bytes=1_000_000)
    response = proxy.get("/")
    assert response.headers["x-model"] == f"{MODEL}/{VERSION}"
    about = response.json()
    assert about["service"]
    assert about["model"] == {"name": MODEL, "version": VERSION, "notice": "A small model."}
    assert about["versions"] == ["1.0", VERSION, "9.0", "10.0"]
    limits = about["limits"]
    assert limits["max_upload_bytes"] == 1_000_000
    assert (limits["max_audio_s"], limits["min_audio_s"]) == (300.0, 0.5)
    assert any("M4A" in name for name in limits["formats"])
    for link in about["links"].values():
        assert proxy.get(link).status_code == 200


def test_versions_are_told_by_their_numbers_whether_loaded_or_not(
    start: Callable[..., Proxy], standin: StandIn, tmp_path: Path
) -> None:
    standin.versions = [VERSION, "10.0", "9.1"]
    write(tmp_path / "routing.json", {"failed": ["11.0", "2.0"]})
    ready = start(routing_file=tmp_path / "routing.json").get("/readyz").json()
    assert [each["version"] for each in ready["versions"]] == [
        VERSION,
        "2.0",
        "9.1",
        "10.0",
        "11.0",
    ]


def shows_limits(limits: tuple[float, ...], proxy: Proxy) -> bool:
    """Whether front page and description both show these: shortest and longest clip in s."""
    min_audio_s, max_audio_s = limits
    shown = proxy.get("/").json()["limits"]
    form = proxy.description["paths"][CLASSIFY]["post"]["requestBody"]["content"]
    described = form["multipart/form-data"]["schema"]["properties"]["file"]["description"]
    return (shown["min_audio_s"], shown["max_audio_s"]) == limits and (
        f" {min_audio_s:g} to {max_audio_s:g} s, at most" in described
    )


def test_the_limits_shown_are_those_of_the_default_version_of_the_moment(
    start: Callable[..., Proxy], tmp_path: Path
) -> None:
    file = tmp_path / "routing.json"
    proxy = start(routing_file=file, min_audio_s=0.25, max_audio_s=77)
    assert shows_limits((0.25, 77), proxy)
    for routing, wanted in (
        ({"limits": {"min_audio_s": 0.5, "max_audio_s": 300.0}}, (0.5, 300)),
        ({"limits": {"min_audio_s": 0, "max_audio_s": 12.5}, **share(5)}, (0, 12.5)),
        (share(5), (0.25, 77)),
        ({"limits": {"min_audio_s": 1, "max_audio_s": 60}}, (1, 60)),
        ({"limits": None}, (0.25, 77)),
    ):
        write(file, routing)
        eventually(partial(shows_limits, wanted, proxy))
    lines = [each["message"] for each in proxy.lines if "routing is now" in each.get("message", "")]
    assert [("limits" in line) for line in lines] == [True, True, False, True, False]
