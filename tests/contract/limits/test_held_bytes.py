"""Room for uploads: how much in all, and who gives some up for whom."""

import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from proxy.limits.held_bytes import HeldBytes, Lease
from proxy.problems import Problem
from tests.contract.proxy_process import (
    CLASSIFY,
    PLAIN,
    Proxy,
    eventually,
    raw_request,
    read_answer,
)


def leased(stack: ExitStack, held: HeldBytes, client: str, *counts: int) -> Lease:
    lease = stack.enter_context(held.lease(client))
    for count in counts:
        lease.reserve(count)
    return lease


def test_who_holds_the_most_gives_up_its_largest_upload_for_one_that_holds_less() -> None:
    held = HeldBytes(100)
    with ExitStack() as stack:
        few, many = leased(stack, held, "greedy", 30), leased(stack, held, "greedy", 20, 30)
        polite = leased(stack, held, "polite", 20, 10)
        assert (few.taken_away.is_set(), many.taken_away.is_set()) == (False, True)
        with pytest.raises(Problem, match="too much to do"):
            many.reserve(1)
        polite.reserve(40)
    with ExitStack() as stack:
        leased(stack, held, "all is given back", 100)


def test_nobody_gives_up_anything_for_one_that_would_hold_more() -> None:
    held = HeldBytes(100)
    with ExitStack() as stack:
        first = leased(stack, held, "a", 60)
        with pytest.raises(Problem):
            leased(stack, held, "b", 30, 30)
        with pytest.raises(Problem):
            leased(stack, held, "a", 41)
        assert not first.taken_away.is_set()


def test_of_one_client_the_oldest_uploads_come_to_their_end() -> None:
    """However their bytes come in between one another's."""
    held = HeldBytes(100)
    with ExitStack() as stack:
        leases = [leased(stack, held, "a") for _ in range(8)]
        ended = set()
        for turn in range(30):
            for lease in leases if turn % 2 else leases[::-1]:
                if lease not in ended:
                    try:
                        lease.reserve(1)
                    except Problem:
                        ended.add(lease)
                    lease.is_whole = lease.size_bytes == 30
        assert [lease.size_bytes for lease in leases if lease.is_whole] == [30] * 3
        assert all(lease.is_whole for lease in leases[:3])


def test_what_is_whole_is_not_taken_away() -> None:
    held = HeldBytes(100)
    with ExitStack() as stack:
        whole = leased(stack, held, "a", 90)
        whole.is_whole = True
        with pytest.raises(Problem):
            leased(stack, held, "b", 20)
        assert not whole.taken_away.is_set()


def test_uploads_that_never_end_do_not_fill_the_room(start: Callable[..., Proxy]) -> None:
    proxy = start(max_held_bytes=1_000_000)
    with ExitStack() as stack:
        slow = [stack.enter_context(proxy.connect()) for _ in range(3)]
        for connection, size in zip(slow, (450_000, 350_000, 350_000), strict=True):
            connection.sendall(raw_request(bytes(size), "Connection: close")[:-100_000])
            # Each is there before the next, so that the largest is the one to go.
            time.sleep(0.3)
        transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=PLAIN)
        with proxy.new_client(transport=transport) as polite:

            def passes() -> bool:
                answer = polite.post(CLASSIFY, files={"file": bytes(250_000)})
                assert answer.status_code == 200
                return "overloaded" in proxy.log

            eventually(passes)
        assert b'"code":"overloaded"' in read_answer(slow[0])
