"""Ending and dying: in order, completely, and with a word about why."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.archives import configured, registered_alone
from tests.e2e.conftest import Serve, start_first
from tests.e2e.services import Remains, RunningService, assert_said_in_order, make


class Senders:
    """Clients that send a clip over and over until nobody listens any more."""

    def __init__(self, service: RunningService, clip: bytes, count: int) -> None:
        self.answered: list[int] = []
        self.broken: list[str] = []
        self._url = f"{service.url}/classify-us-accent"
        self._clip = clip
        self._threads = [
            threading.Thread(target=self._send, args=(index % 2,)) for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, kept_connections: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=kept_connections)
        with httpx.Client(limits=limits, timeout=60, trust_env=False) as client:
            while True:
                try:
                    response = client.post(self._url, files={"file": ("clip", self._clip)})
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    self.broken.append(repr(error))
                    return
                self.answered.append(response.status_code)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)


def test_sigterm_after_a_start_that_packaged_answers_all_it_accepted_and_it_starts_again(
    first_start: RunningService, serve: Serve, clip: bytes
) -> None:
    assert "==> Archive " in first_start.output
    remains = Remains(first_start)
    # The public one, the proxy's metrics, and those that lead to TorchServe.
    assert len(remains.ports) >= 4
    assert (first_start.run_dir / "torchserve" / "key_file.json").exists()
    senders = Senders(first_start, clip, 6)
    deadline = time.monotonic() + 60
    while len(senders.answered) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = time.monotonic()
    first_start.supervisor().send_signal(signal.SIGTERM)
    assert first_start.process.wait(20) == 0, first_start.output
    assert time.monotonic() - started < 10
    senders.join()
    assert not senders.broken
    assert set(senders.answered) == {200}
    assert_said_in_order(first_start)
    remains.assert_gone()

    again = serve(first_start.run_dir, port=str(first_start.port))
    assert "==> Archive " not in again.output
    assert again.ready_after_s < first_start.ready_after_s
    assert again.classify(clip).status_code == 200
    # Ctrl-C in a terminal reaches the whole group.
    remains = Remains(again)
    os.killpg(again.process.pid, signal.SIGINT)
    assert again.process.wait(20) == 0, again.output
    assert_said_in_order(again)
    remains.assert_gone()


@pytest.mark.long
@pytest.mark.parametrize("how", ["SIGINT", "SIGHUP", "make stop"])
def test_every_way_to_end_a_first_start_ends_all_of_it_in_order(
    tmp_path_factory: pytest.TempPathFactory, how: str
) -> None:
    service = start_first(tmp_path_factory.mktemp("first"))
    try:
        remains = Remains(service)
        if how == "make stop":
            stopped = make("stop", f"RUN_DIR={service.run_dir}")
            assert (stopped.returncode, stopped.stdout.strip()) == (0, "Stopped.")
        else:
            service.supervisor().send_signal(signal.Signals[how])
        assert service.process.wait(20) == 0, service.output
        assert_said_in_order(service)
        remains.assert_gone()
    finally:
        service.close()


def test_killed_outright_it_takes_its_parts_along_and_the_next_start_works(serve: Serve) -> None:
    service = serve()
    remains = Remains(service)
    service.supervisor().kill()
    service.process.wait(20)
    remains.assert_gone(files=False, timeout_s=15)
    again = serve(service.run_dir, through_make=True)
    (worker,) = again.workers()
    # One worker has all cores to itself: threads times workers are as many as there are.
    assert worker.environ()["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    # A signal to make itself ends what make has started.
    remains = Remains(again)
    again.process.terminate()
    again.process.wait(20)
    remains.assert_gone()
    assert_said_in_order(again)


@pytest.mark.long
def test_a_proxy_that_dies_ends_the_service_with_a_message_even_behind_a_frozen_torchserve(
    serve: Serve,
) -> None:
    service = serve(max_restarts="0")
    remains = Remains(service)
    service.java().suspend()
    # Long enough for the supervisor to ask TorchServe something in vain.
    time.sleep(2.5)
    died = time.monotonic()
    service.proxy().kill()
    service.await_output("Stopping TorchServe", timeout_s=2)
    assert time.monotonic() - died < 2
    assert service.process.wait(20) not in (0, None)
    assert "The proxy ended by itself" in service.output
    remains.assert_gone()


@pytest.fixture(scope="module")
def lossy(
    serve: Serve, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """A service whose TorchServe loses clips with its worker, and is not started again itself.

    TorchServe takes a clip from its queue, waits so many milliseconds for a second one, and
    forgets the first if the worker dies meanwhile.
    """
    folder = tmp_path_factory.mktemp("lossy")
    draft = configured(archive, folder / "draft.mar", "2.0", batchSize=2, maxBatchDelay=4000)
    registered_alone(draft, folder / "run", "2.0")
    service = serve(folder / "run", environment={"AUREA_ASK_AGAIN_AFTER_S": "3"}, max_restarts="0")
    yield service
    service.close()


def test_a_clip_that_torchserve_loses_with_its_worker_is_scored_all_the_same(
    lossy: RunningService, clip: bytes
) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lossy.classify, clip)
        time.sleep(1.5)
        lossy.workers()[0].kill()
        assert answer.result().status_code == 200
    assert answer.result().headers["x-model"] == "embedded-ecapa/2.0"
    assert "put to TorchServe once more" in lossy.log("proxy.log")


def test_a_torchserve_that_dies_too_often_ends_all_of_it_with_a_message(
    lossy: RunningService,
) -> None:
    # The last test of this service, which ends with it.
    remains = Remains(lossy)
    lossy.java().kill()
    assert lossy.process.wait(20) not in (0, None)
    assert "TorchServe ended by itself" in lossy.output
    remains.assert_gone()


def answers(service: RunningService) -> bool:
    """Whether the public port says that it is ready, asked over a connection of its own."""
    try:
        return httpx.get(f"{service.url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_part_that_dies_is_started_again_and_clients_are_told_to_wait(
    serve: Serve, clip: bytes
) -> None:
    service = serve(max_restarts="2")
    before = service.classify(clip).json()
    service.proxy().kill()
    died = time.monotonic()
    while not answers(service):
        assert time.monotonic() - died < 20
        time.sleep(0.05)
    # Three seconds, which make chaos measures; beside other tests a start tells how busy it is.
    assert time.monotonic() - died < max(3, service.ready_after_s / 2)
    assert service.classify(clip).json() == before

    service.java().kill()
    died = time.monotonic()
    refused: list[httpx.Response] = []
    while (answer := service.classify(clip)).status_code != 200:
        refused.append(answer)
        assert time.monotonic() - died < 30
        time.sleep(0.2)
    assert time.monotonic() - died < 15
    assert answer.json() == before
    assert refused
    assert {each.status_code for each in refused} == {503}
    assert all(int(each.headers["retry-after"]) > 0 for each in refused)
    assert "The proxy ended by itself" in service.output
    assert "TorchServe ended by itself" in service.output
    # Its worker answers a moment before the supervisor has seen it do so.
    service.await_output("answers again")

    remains = Remains(service)
    service.supervisor().send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0, service.output
    remains.assert_gone()


@pytest.mark.long
def test_a_proxy_that_dies_too_often_ends_all_of_it_with_a_message(serve: Serve) -> None:
    service = serve(max_restarts="0")
    remains = Remains(service)
    service.proxy().kill()
    assert service.process.wait(20) not in (0, None)
    assert "The proxy ended by itself" in service.output
    remains.assert_gone()


@pytest.mark.long
def test_a_torchserve_that_stays_frozen_ends_the_service_with_a_message(serve: Serve) -> None:
    service = serve(lost_workers_s="8")
    remains = Remains(service)
    frozen = time.monotonic()
    service.java().suspend()
    assert service.process.wait(60) not in (0, None)
    assert 8 <= time.monotonic() - frozen < 40
    assert "No worker has been READY for 8 s: TorchServe does not answer" in service.output
    remains.assert_gone()


@pytest.mark.long
def test_a_torchserve_that_was_frozen_for_a_while_goes_on_serving(
    serve: Serve, clip: bytes
) -> None:
    service = serve(lost_workers_s="20")
    java: psutil.Process = service.java()
    java.suspend()
    time.sleep(10)
    java.resume()
    service.await_ready()
    assert service.classify(clip).status_code == 200
    time.sleep(15)
    assert service.process.poll() is None
    service.close()
