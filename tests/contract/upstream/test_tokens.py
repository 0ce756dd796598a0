"""TorchServe's tokens: they run out, are replaced by others, and no request sees it."""

from collections.abc import Callable

import pytest

from tests.contract.proxy_process import Proxy, at_once, eventually
from tests.contract.standin import (
    StandIn,
    answering,
    token_fault,
)


def test_a_torchserve_that_was_restarted_is_followed_through_its_new_key_file(
    proxy: Proxy, standin: StandIn
) -> None:
    assert proxy.classify(b"clip").status_code == 200
    standin.new_key("inference")
    standin.new_key("management")
    assert proxy.classify(b"clip").status_code == 200
    assert proxy.get("/readyz").status_code == 200
    assert standin.renewals == []


def test_tokens_that_ran_out_are_renewed_once_for_all_that_wait(
    proxy: Proxy, standin: StandIn
) -> None:
    assert proxy.classify(b"clip").status_code == 200
    # The file still says an hour: only TorchServe's refusal tells.
    standin.keys["inference"] = "lost"
    responses = at_once(proxy, [b"clip"] * 8)
    assert [response.status_code for response in responses] == [200] * 8
    assert standin.renewals == ["inference"]


def test_a_token_that_ran_out_by_its_own_date_is_never_sent(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.new_key("inference", life_s=-1)
    standin.new_key("management", life_s=-1)
    proxy = start()
    assert proxy.classify(b"clip").status_code == 200
    assert proxy.get("/readyz").status_code == 200
    assert sorted(standin.renewals) == ["inference", "management"]
    assert standin.refused_tokens == []


def test_tokens_that_live_for_a_moment_only_still_serve(proxy: Proxy, standin: StandIn) -> None:
    standin.new_key("inference", life_s=0.5)
    eventually(lambda: proxy.classify(b"clip").status_code == 200 and standin.renewals)


def test_a_torchserve_that_takes_no_token_at_all_is_unavailable(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = answering(token_fault())
    assert proxy.classify(b"clip").json()["code"] == "model_unavailable"


@pytest.mark.parametrize("content", [None, b"", b'{"inference": {"key"', b"[]"])
def test_a_key_file_that_is_not_there_or_half_written_is_waited_for(
    proxy: Proxy, standin: StandIn, content: bytes | None
) -> None:
    standin.new_key("inference")
    standin.key_file.unlink()
    if content is not None:
        standin.key_file.write_bytes(content)
    try:
        assert proxy.classify(b"clip").json()["code"] == "model_unavailable"
    finally:
        standin.write_key_file()
    assert proxy.classify(b"clip").status_code == 200
    assert standin.renewals == []
