"""One upload from its first byte to its score, each of the two within its time."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request

from aurea.torchserve.answers import AnyScore, Clip, Detail, Model
from proxy.drain import SHUTTING_DOWN, Drain
from proxy.flag import Flag
from proxy.limits.held_bytes import HeldBytes, Lease
from proxy.limits.pace import Pace
from proxy.limits.refusal_pace import RefusalPace
from proxy.limits.turns import Turns, client_of
from proxy.middleware import SENDER_ENDED
from proxy.problems import Problem
from proxy.refusals import VERDICTS
from proxy.tasks import end_tasks
from proxy.telemetry.logs import REQUEST_ID
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.pulse import Pulse
from proxy.uploads.audio_length import AudioLengths
from proxy.uploads.upload import read_upload
from proxy.upstream.upstream import OnModel, Upstream


class Classification(NamedTuple):
    """Reads uploads and has them scored, each unless something ends it first."""

    upstream: Upstream
    metrics: Metrics
    drain: Drain
    held: HeldBytes
    turns: Turns
    lengths: AudioLengths
    pulse: Pulse
    refusal_pace: RefusalPace
    max_upload_bytes: int
    min_upload_bytes_per_s: float
    upload_grace_s: float
    deadline_s: float

    async def score(self, request: Request, detail: Detail = "score") -> AnyScore:
        """The score of the clip that a request uploads, with as much about it as `detail` says.

        Raises `Problem` (those of the upload and the model; overloaded; timeout;
        model_unavailable at the end of a drain) and `ClientDisconnect`.
        """
        client = client_of(request)
        # Nobody uploads for nothing what has no room now.
        try:
            self.turns.check_room(client)
        except Problem:
            await asyncio.sleep(self.refusal_pace.delay_s(client))
            raise
        with self.held.lease(client) as lease:
            return await self._score(request, lease, detail)

    async def _score(self, request: Request, lease: Lease, detail: Detail) -> AnyScore:
        uploaded = asyncio.Event()
        deadline = Flag()

        async def client_leaves() -> None:
            await uploaded.wait()
            timer = asyncio.get_running_loop().call_later(self.deadline_s, deadline.set)
            try:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
            finally:
                timer.cancel()

        working = asyncio.create_task(self._work(request, lease, uploaded, detail))
        leaving = asyncio.create_task(client_leaves())
        drained, displaced = self.drain.over.reached(), lease.taken_away.reached()
        tasks = (working, leaving)
        ends = (*tasks, drained, displaced, deadline.reached())
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(tasks)
        if working in done:
            return working.result()
        if leaving in done:
            raise ClientDisconnect
        if drained in done:
            raise Problem("model_unavailable", SHUTTING_DOWN)
        raise Problem("overloaded" if displaced in done else "timeout")

    async def _work(
        self, request: Request, lease: Lease, uploaded: asyncio.Event, detail: Detail
    ) -> AnyScore:
        def note_model(model: Model) -> None:
            request.state.model = model

        pace = Pace(self.min_upload_bytes_per_s, self.upload_grace_s)
        audio = await read_upload(request, self.max_upload_bytes, lease.reserve, pace)
        lease.is_whole = True
        uploaded.set()
        request.state.uploaded_s = time.monotonic()
        self.metrics.upload_bytes.observe(len(audio))
        cost_s = self.lengths.estimate_s(audio)
        state = request.scope.setdefault("state", {})
        async with self.turns.turn(lease.client, cost_s=cost_s, left=lambda: SENDER_ENDED in state):
            score = await self._ask(Clip(audio, detail), note_model)
        self.lengths.learn(audio, score.audio.duration_s)
        return score

    async def score_behind_others(
        self, clip: Clip, client: str, on_turn: Callable[[], None]
    ) -> AnyScore:
        """The score of a clip for which nobody waits. `on_turn` is called when it has its turn.

        Raises `Problem` (those of the model; overloaded; timeout).
        """
        cost_s = self.lengths.estimate_s(clip.audio)
        async with self.turns.turn(client, cost_s=cost_s, background=True):
            on_turn()
            asking = asyncio.create_task(self._ask(clip, lambda _: None))
            try:
                done, _ = await asyncio.wait({asking}, timeout=self.deadline_s)
            finally:
                await end_tasks({asking})
            if not done:
                raise Problem("timeout")
            score = asking.result()
        self.lengths.learn(clip.audio, score.audio.duration_s)
        return score

    async def _ask(self, clip: Clip, note_model: OnModel) -> AnyScore:
        try:
            with self.pulse.asking():
                score = await self.upstream.score(clip, REQUEST_ID.get(), note_model)
        except Problem as problem:
            if problem.code in VERDICTS:
                self.pulse.beat()
            raise
        self.pulse.beat()
        return score
