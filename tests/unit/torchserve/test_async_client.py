"""The client of the proxy, against a stand-in TorchServe."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from starlette.responses import JSONResponse, Response

from aurea.torchserve.addresses import ALL_VERSIONS
from aurea.torchserve.answers import AnyScore, Fault, Model, Refusal, Score
from aurea.torchserve.async_client import AsyncTorchServe
from aurea.torchserve.errors import (
    ConnectionLost,
    KeyFileUnreadable,
    ManagementError,
    NoScore,
    NotConnected,
    NoToken,
    Unreachable,
)
from tests.contract.standin import (
    MODEL,
    SCORE,
    VERSION,
    CutOff,
    StandIn,
    answering,
    document,
    refusal,
    token_fault,
    worker_died,
)

T = TypeVar("T")
logger = logging.getLogger("tests.tokens")


@pytest.fixture(scope="module")
def shared_standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    standin = StandIn(tmp_path_factory.mktemp("torchserve"))
    yield standin
    standin.close()


@pytest.fixture
def standin(shared_standin: StandIn) -> StandIn:
    shared_standin.reset()
    return shared_standin


def ask(
    standin: StandIn,
    work: Callable[[AsyncTorchServe], Awaitable[T]],
    *,
    socket: Path | None = None,
    management_url: str | None = None,
) -> T:
    """What `work` returns with a client of the stand-in, or of other addresses."""

    async def run() -> T:
        client = AsyncTorchServe(
            MODEL,
            inference_url="http://torchserve",
            inference_socket=socket or standin.socket_path,
            management_url=management_url or standin.management_url,
            key_file=standin.key_file,
            max_connections=8,
            logger=logger,
        )
        try:
            return await work(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_a_clip_is_scored_by_the_version_asked_or_the_default(standin: StandIn) -> None:
    standin.versions = [VERSION, "2.0"]
    for asked, wanted in ((None, VERSION), ("2.0", "2.0")):
        score = ask(standin, lambda client, asked=asked: client.predict(b"clip", asked))  # type: ignore[misc]
        assert score == Score(us_confidence=SCORE, model=Model(name=MODEL, version=wanted))


def test_a_verdict_and_a_fault_are_told_apart(standin: StandIn) -> None:
    standin.behaviours = {
        b"silence": refusal(422, "no_speech", "None."),
        b"fatal": answering(worker_died()),
    }
    refused = ask(standin, lambda client: client.predict(b"silence"))
    assert refused == Refusal(422, "no_speech", "None.", None)
    broken = ask(standin, lambda client: client.predict(b"fatal"))
    assert broken == Fault(507, "InternalServerException", "Worker died.")


def test_a_success_that_is_no_score_is_told_without_its_values(standin: StandIn) -> None:
    standin.behaviours[b"clip"] = answering(JSONResponse(document("SECRET")))
    with pytest.raises(NoScore) as told:
        ask(standin, lambda client: client.predict(b"clip"))
    assert told.value.errors == 1
    assert "SECRET" not in f"{told.value!r} {told.value.__cause__!r}"


def test_nobody_there_and_a_broken_connection_are_told_apart(standin: StandIn) -> None:
    nobody = standin.socket_path.with_name("nobody")
    with pytest.raises(NotConnected):
        ask(standin, lambda client: client.predict(b"clip"), socket=nobody)
    standin.behaviours[b"clip"] = answering(CutOff())
    with pytest.raises(ConnectionLost):
        ask(standin, lambda client: client.predict(b"clip"))


def test_versions_are_described_one_or_all(standin: StandIn) -> None:
    standin.versions = [VERSION, "2.0"]
    standin.workers_of["2.0"] = ["LOADING"]
    (default,) = ask(standin, lambda client: client.describe())
    assert (default.version, default.ready) == (VERSION, 1)
    every = ask(standin, lambda client: client.describe(ALL_VERSIONS))
    assert [(each.version, each.ready) for each in every] == [(VERSION, 1), ("2.0", 0)]


def test_a_model_that_is_not_described_is_told_with_the_cause(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.describe_status = 404
    with pytest.raises(ManagementError) as told:
        ask(standin, lambda client: client.describe())
    assert type(told.value.__cause__).__name__ == "HTTPStatusError"
    monkeypatch.setattr(standin, "_description", lambda *_: Response(b"[]x"))
    with pytest.raises(ManagementError) as told:
        ask(standin, lambda client: client.describe())
    assert type(told.value.__cause__).__name__ == "ValidationError"


def test_a_description_is_waited_for_a_short_while_only(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aurea.torchserve.async_client._MANAGEMENT_TIMEOUT_S", 0.0)
    with pytest.raises(Unreachable, match="in time"):
        ask(standin, lambda client: client.describe())


def test_one_renewal_serves_all_that_wait_for_it(
    standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    async def many(client: AsyncTorchServe) -> list[AnyScore | Refusal | Fault]:
        return list(await asyncio.gather(*(client.predict(b"%d" % each) for each in range(8))))

    standin.keys["inference"] = "lost"
    with caplog.at_level("INFO", logger.name):
        answers = ask(standin, many)
    assert all(isinstance(each, Score) for each in answers)
    assert standin.renewals == ["inference"]
    assert caplog.messages == ["renewed TorchServe's inference token, status 200"]


def test_a_token_that_is_refused_for_ever_is_a_fault(standin: StandIn) -> None:
    standin.behaviours[b"clip"] = answering(token_fault())
    answer = ask(standin, lambda client: client.predict(b"clip"))
    assert isinstance(answer, Fault)
    assert answer.kind == "token"
    assert len(standin.predictions) == 3


def test_a_token_that_cannot_be_renewed_is_told(
    standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    standin.new_key("inference", life_s=-1)
    try:
        with pytest.raises(NoToken):
            ask(
                standin, lambda client: client.predict(b"clip"), management_url="http://127.0.0.9:1"
            )
    finally:
        standin.new_key("inference")
    assert caplog.messages[0].startswith("renewing TorchServe's inference token failed: ConnectE")


def test_a_token_that_does_not_change_is_told(
    standin: StandIn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standin, "new_key", lambda _: None)
    before = standin.keys["inference"]
    standin.keys["inference"] = "lost"
    try:
        with pytest.raises(NoToken, match="did not change"):
            ask(standin, lambda client: client.predict(b"clip"))
    finally:
        standin.keys["inference"] = before
    assert caplog.messages == ["TorchServe's inference token did not change on renewal"]


def test_a_key_file_that_is_not_there_is_told(
    standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    standin.key_file.unlink()
    try:
        with pytest.raises(KeyFileUnreadable):
            ask(standin, lambda client: client.predict(b"clip"))
    finally:
        standin.write_key_file()
    assert caplog.messages == ["TorchServe's key file cannot be read: FileNotFoundError"]


def test_a_caller_that_is_cancelled_while_it_renews_leaves_the_next_one_free(
    standin: StandIn,
) -> None:
    async def work(client: AsyncTorchServe) -> AnyScore | Refusal | Fault:
        first = asyncio.create_task(client.predict(b"one"))
        while not standin.renewals:
            await asyncio.sleep(0.01)
        first.cancel()
        return await client.predict(b"two")

    standin.keys["inference"] = "lost"
    assert isinstance(ask(standin, work), Score)
