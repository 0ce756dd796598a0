"""A request that is given up ends, in whichever moment that comes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from aurea.torchserve.async_client import AsyncTorchServe
from proxy.classification import Classification
from proxy.drain import Drain
from proxy.limits.held_bytes import HeldBytes
from proxy.limits.pace import Pace
from proxy.limits.refusal_pace import RefusalPace
from proxy.limits.turns import Turns
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.pulse import Pulse
from proxy.uploads.audio_length import AudioLengths
from proxy.upstream.model_status import ModelStatus, Readiness

Waiting = Callable[[Awaitable[Any]], Awaitable[Any]]


async def looks_for_workers(result: Awaitable[Any]) -> Any:
    torchserve = AsyncTorchServe(
        "standin",
        inference_url="",
        inference_socket=None,
        management_url="",
        key_file=Path("nowhere"),
        max_connections=1,
        logger=logging.getLogger(__name__),
    )

    class Status(ModelStatus):
        async def versions(self) -> list[Readiness]:
            await result
            return []

    return await Status(torchserve, "standin", Metrics()).ready_workers()


async def receives(result: Awaitable[Any]) -> Any:
    async def receive() -> Message:
        await result
        return {"type": "http.request"}

    return await Pace(1_000, 20.0).receive_from(receive)


@pytest.mark.parametrize("waiting", [looks_for_workers, receives])
@pytest.mark.parametrize("turns", range(6))
def test_no_cancellation_is_lost_to_a_result_that_comes_with_it(
    waiting: Waiting, turns: int
) -> None:
    async def cancelled_late() -> bool:
        result = asyncio.get_running_loop().create_future()
        task: asyncio.Future[Any] = asyncio.ensure_future(waiting(result))
        await asyncio.sleep(0.01)
        result.set_result(None)
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.cancel():
            return True
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(cancelled_late())


def test_a_request_whose_client_left_ends_even_if_a_cancellation_was_swallowed() -> None:
    class Deaf:
        async def score(self, *_: object) -> object:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(60)
            raise AssertionError

    messages: list[Message] = [
        {"type": "http.request", "body": b"RIFF", "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def classify() -> None:
        classification = Classification(
            upstream=Deaf(),  # type: ignore[arg-type]
            metrics=Metrics(),
            drain=Drain(),
            held=HeldBytes(1_000),
            lengths=AudioLengths(300.0),
            pulse=Pulse(30.0),
            refusal_pace=RefusalPace(),
            turns=Turns(1, None, lambda: 1),
            max_upload_bytes=100,
            min_upload_bytes_per_s=1_000,
            upload_grace_s=20.0,
            deadline_s=60.0,
        )
        request = Request({"type": "http", "headers": [], "state": {}}, receive)
        with pytest.raises(ClientDisconnect):
            await asyncio.wait_for(classification.score(request), 10)

    asyncio.run(classify())
