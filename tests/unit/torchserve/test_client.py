"""The client of commands against a small real server that keeps TorchServe's rules on tokens."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response

from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import (
    ConnectionLost,
    KeyFileUnreadable,
    ManagementError,
    NotConnected,
    NoToken,
    NotRegistered,
    Unreachable,
)
from tests.contract.standin import (
    MODEL,
    SCORE,
    StandIn,
    answering,
    document,
    fault,
    refusal,
    worker_died,
)
from tests.unit.torchserve.conftest import addresses
from tests.unit.torchserve.management_server import ManagementServer, version


def test_versions_are_read_with_their_workers(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version("1.0", ("READY", 11), ("UNLOADING", -1), pending=3), version("2.0"))
    versions = torchserve.versions()
    assert list(versions) == ["1.0", "2.0"]
    assert (versions["1.0"].ready, versions["1.0"].wanted) == (1, 2)
    assert versions["1.0"].archive == "small-1.0.mar"
    assert versions["1.0"].queue.pending == 3


def test_a_model_that_is_not_registered_has_no_versions(torchserve: TorchServe) -> None:
    assert torchserve.versions() == {}
    with pytest.raises(NotRegistered):
        torchserve.version("1.0")


def test_a_token_that_is_refused_is_replaced_by_a_newer_one_of_the_file(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version())
    assert torchserve.versions()
    server.renew()
    assert torchserve.versions()
    assert server.renewals == 0


def test_a_token_that_the_server_forgot_is_renewed_once(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version())
    server.key = "known to nobody"
    assert torchserve.versions()
    assert server.renewals == 1


def test_a_token_that_ran_out_is_renewed_before_it_is_refused(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version())
    server.write_keys(life_s=-1)
    assert torchserve.versions()
    assert (server.renewals, server.refusals) == (1, 0)


def test_half_a_key_file_is_read_again(server: ManagementServer, torchserve: TorchServe) -> None:
    server.describe(version())
    server.key_file.write_text('{"management": {"key"')
    whole = threading.Timer(0.08, server.write_keys)
    whole.start()
    try:
        assert torchserve.versions()
    finally:
        whole.join()


def test_a_key_file_that_stays_half_means_that_nobody_is_there(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.key_file.write_text('{"management": {"key"')
    with pytest.raises(KeyFileUnreadable, match=r"key_file\.json"):
        torchserve.versions()


def test_no_key_file_means_that_nobody_is_there(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.key_file.unlink()
    with pytest.raises(KeyFileUnreadable, match=r"key_file\.json: No such file"):
        torchserve.versions()


def test_no_server_means_that_nobody_is_there(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.close()
    with pytest.raises(Unreachable):
        torchserve.versions()


def test_what_torchserve_refuses_is_told_in_its_words(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.answers["DELETE", "/models/small/1.0"] = (
        403,
        {"code": 403, "type": "InvalidModelVersionException", "message": "Cannot remove default"},
    )
    with pytest.raises(ManagementError, match="403: Cannot remove default"):
        torchserve.unregister("1.0")


def test_each_step_is_asked_as_torchserve_understands_it(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    for step in (
        ("POST", "/models?url=small-2.0.mar&model_name=small&initial_workers=0"),
        ("PUT", "/models/small/2.0?min_worker=3&max_worker=3"),
        ("PUT", "/models/small/2.0/set-default"),
        ("DELETE", "/models/small/2.0"),
        (
            "POST",
            "/models?url=small-3.0.mar&model_name=small&initial_workers=0"
            "&batch_size=64&max_batch_delay=2",
        ),
    ):
        server.answers[step] = 200, {"status": "done"}
    torchserve.register("small-2.0.mar")
    torchserve.ask_workers("2.0", 3)
    torchserve.set_default("2.0")
    torchserve.unregister("2.0")
    torchserve.register("small-3.0.mar", batch_size=64, max_batch_delay=2)
    assert server.asked == [f"{method} {path}" for method, path in server.answers]


def test_no_description_is_told_as_what_was_answered(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.answers["GET", "/models/small"] = 200, {"message": "not a list"}
    with pytest.raises(ManagementError, match="200: not a list"):
        torchserve.default()


def test_a_server_that_takes_no_token_at_all_is_unreachable(
    server: ManagementServer, torchserve: TorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.describe(version())

    def renew(life_s: float = 3600) -> None:
        server.write_keys(life_s)
        server.key += "!"

    server.key = "!"
    monkeypatch.setattr(server, "renew", renew)
    with pytest.raises(NoToken, match="no management token: TorchServe answered 400: Token"):
        torchserve.versions()


def test_a_token_that_does_not_change_is_not_tried_again(
    server: ManagementServer, torchserve: TorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.describe(version())
    monkeypatch.setattr(server, "renew", lambda: None)
    server.key = "known to nobody"
    with pytest.raises(NoToken, match="did not change"):
        torchserve.versions()
    assert (server.refusals, server.renewals) == (1, 1)


@pytest.mark.parametrize("life_s", [3600, -1], ids=["while it answers", "while it renews"])
def test_a_server_that_is_frozen_is_given_up_after_the_time_told(
    server: ManagementServer, tmp_path: Path, life_s: float
) -> None:
    server.write_keys(life_s)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        client = TorchServe(
            addresses("small", url, tmp_path / "inference.sock", server.key_file), timeout_s=0.2
        )
        started_s = time.monotonic()
        with pytest.raises(ConnectionLost):
            client.versions()
        assert time.monotonic() - started_s < 60
        client.close()


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandIn]:
    standin = StandIn(tmp_path)
    yield standin
    standin.close()


@pytest.fixture
def scoring(standin: StandIn) -> Iterator[TorchServe]:
    client = TorchServe(
        addresses(MODEL, standin.management_url, standin.socket_path, standin.key_file)
    )
    yield client
    client.close()


def test_a_clip_is_scored_by_the_version_asked_or_the_default(
    standin: StandIn, scoring: TorchServe
) -> None:
    standin.versions = ["1.0", "2.0"]
    for asked, answering_version in ((None, "1.0"), ("2.0", "2.0")):
        answer = scoring.predict(b"clip", asked)
        assert answer == document(version=answering_version)
        assert answer["us_confidence"] == SCORE
    assert [seen.content_type for seen in standin.predictions] == ["application/octet-stream"] * 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refusal(422, "no_speech", "No voice."), "422: No voice."),
        (answering(worker_died()), "507: Worker died."),
        (answering(fault(404, "ModelNotFoundException", "Not there")), "404: Not there"),
        (answering(JSONResponse({"accents": []})), "200: .*accents"),
        (answering(Response(b"no JSON")), "200: .*no JSON"),
        (answering(JSONResponse([1])), "200: .*1"),
    ],
)
def test_what_is_no_score_is_told_in_the_words_of_the_answer(
    standin: StandIn, scoring: TorchServe, answer: object, words: str
) -> None:
    standin.behaviours[b"clip"] = answer  # type: ignore[assignment]
    with pytest.raises(ManagementError, match=words):
        scoring.predict(b"clip")


def test_a_socket_that_nobody_listens_on_is_told_apart(standin: StandIn) -> None:
    nobody = standin.socket_path.with_name("nobody")
    client = TorchServe(addresses(MODEL, standin.management_url, nobody, standin.key_file))
    with pytest.raises(NotConnected):
        client.predict(b"clip")
    client.close()
