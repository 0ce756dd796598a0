"""How a clip gets its score: canary share, retries, and what TorchServe's faults mean here."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from aurea.torchserve.answers import AnyScore, Clip, Fault, Model, Refusal
from aurea.torchserve.async_client import AsyncTorchServe
from aurea.torchserve.errors import ConnectionLost, NoScore, NotConnected, NoToken
from proxy.problems import Problem
from proxy.refusals import VERDICTS, problem_of
from proxy.shared import Shared
from proxy.telemetry.metrics import Metrics
from proxy.upstream.model_status import READINESS_TTL_S, ModelStatus
from proxy.upstream.routing import Router, Routing

logger = logging.getLogger("proxy.upstream")

_DYING_S: Final = 0.25

OnModel = Callable[[Model], None]
"""Called with the model that is about to be asked, and with the one that has answered."""


class _BatchLost(Exception):
    """The clip's batch failed as a whole, or its connection broke: no verdict on the clip."""


class _ConnectionBroke(_BatchLost):
    """TorchServe itself may have gone, which no clip is to blame for."""


class _CandidateUnavailable(Exception):
    """The candidate is not registered, has no worker or no room: the default may answer."""


class Upstream:
    """Has clips scored. `ask_again_after_s`: seconds of silence that TorchServe is given."""

    def __init__(
        self,
        torchserve: AsyncTorchServe,
        status: ModelStatus,
        router: Router,
        metrics: Metrics,
        ask_again_after_s: float,
        shared: Shared,
    ) -> None:
        self._torchserve = torchserve
        self._status = status
        self._router = router
        self._metrics = metrics
        self._ask_again_after_s = ask_again_after_s
        self._one_retry = shared.lock("retry")
        self._one_second_request = shared.lock("second request")
        self._suspects = shared.suspects()

    @property
    def routing(self) -> Routing:
        """Which version gets a share of the requests besides the default, if any."""
        return self._router.routing

    async def score(self, clip: Clip, request_id: str, on_model: OnModel) -> AnyScore:
        """Has the model score one clip.

        `request_id` decides whether a candidate version is asked first.

        Raises `Problem`: the model's own refusals as they are, overloaded,
        model_unavailable and internal. Sets no deadline.

        What a candidate cannot take goes to the default version, and so does what it loses.
        A clip whose batch is lost is tried once more, for a neighbour may have killed the
        worker. Such retries pass one at a time: two suspects in one batch could take an
        innocent clip down twice, or hide which of them kills. One that two workers are lost
        with is put to none for a while. A silent one is sent again beside the first request.
        """
        if clip.audio in self._suspects:
            logger.error("a clip that was lost with its workers before is not tried again")
            raise Problem("internal")
        candidate = await self._candidate(request_id)
        try:
            try:
                if candidate is not None:
                    return await self._ask_candidate(clip, candidate, on_model)
            except _CandidateUnavailable as absence:
                logger.warning("the default answers for version %s: %s", candidate, absence)
                self._metrics.upstream_retries.inc()
            return await self._ask_default(clip, on_model)
        except _BatchLost as loss:
            logger.warning("a batch was lost, its clip is tried once more: %s", loss)
            first = loss
        if isinstance(first, _ConnectionBroke):
            # A TorchServe that has just died takes connections for a moment longer.
            await asyncio.sleep(_DYING_S)
        self._metrics.upstream_retries.inc()
        async with self._one_retry:
            try:
                return await self._ask_default(clip, on_model)
            except _BatchLost as loss:
                if not any(isinstance(each, _ConnectionBroke) for each in (first, loss)):
                    self._suspects.blame(clip.audio)
                logger.error("the clip's batch was lost twice: %s", loss)
                raise Problem("internal") from loss

    async def _candidate(self, request_id: str) -> str | None:
        """The version to ask before the default, or None."""
        canary = self.routing.canary
        if canary is None or not canary.takes(request_id):
            return None
        # What is not known in time is found out by asking.
        ready = await self._status.ready_workers()
        return None if ready.get(canary.version) == 0 else canary.version

    async def _ask_default(self, clip: Clip, on_model: OnModel) -> AnyScore:
        """Asks the default version, and after a long silence once more beside the first time.

        A clip that TorchServe has taken from its queue and holds back for company is gone
        when its worker dies just then: no answer ever comes. From here a long queue and a clip
        that hangs its worker look the same. So it is asked again only where a worker has died
        since, second requests pass one at a time, and only a verdict on the clip counts of
        what they bring.

        Raises what `_score_once` does.
        """
        first = asyncio.create_task(self._score_once(clip, None, on_model))
        before = asyncio.create_task(self._status.processes())
        requests: list[asyncio.Task[Any]] = [first, before]
        try:
            while not (await asyncio.wait({first}, timeout=self._ask_again_after_s))[0]:
                if await self._worker_died_since(before):
                    break
            if first.done():
                return first.result()
            second = asyncio.create_task(self._ask_again(clip, on_model))
            requests.append(second)
            await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done() and (score := second.result()) is not None:
                return score
            return await first
        finally:
            for request in requests:
                request.cancel()

    async def _worker_died_since(self, before: "asyncio.Task[frozenset[int]]") -> bool:
        """Whether a process of `before` is gone; no where TorchServe does not say."""
        if not before.done():
            return False
        now = await self._status.processes(afresh=True)
        return bool(now) and not before.result() <= now

    async def _ask_again(self, clip: Clip, on_model: OnModel) -> AnyScore | None:
        """The score, or None where TorchServe has no verdict on the clip.

        Raises `Problem`: the model's own refusals.
        """
        async with self._one_second_request:
            logger.warning("a clip has no answer, it is put to TorchServe once more")
            self._metrics.upstream_retries.inc()
            try:
                return await self._score_once(clip, None, on_model)
            except _BatchLost:
                return None
            except Problem as problem:
                if problem.code in VERDICTS:
                    raise
                return None

    async def _ask_candidate(self, clip: Clip, candidate: str, on_model: OnModel) -> AnyScore:
        """Gives up on a candidate that is long silent, or has no READY worker left.

        TorchServe never answers the clips of a version whose workers were taken away.

        Raises what `_score_once` does.
        """
        request = asyncio.create_task(self._score_once(clip, candidate, on_model))
        silent_at_s = time.monotonic() + self._ask_again_after_s
        try:
            while not (await asyncio.wait({request}, timeout=READINESS_TTL_S))[0]:
                if time.monotonic() >= silent_at_s:
                    raise _CandidateUnavailable("it does not answer")
                ready = await self._status.ready_workers()
                if ready and not ready.get(candidate) and not request.done():
                    self._metrics.upstream_error("unavailable")
                    raise _CandidateUnavailable("its workers are gone")
            return request.result()
        finally:
            request.cancel()

    async def _score_once(self, clip: Clip, candidate: str | None, on_model: OnModel) -> AnyScore:
        """Asks `candidate`, or the default version where it is None.

        Raises `Problem`, `_BatchLost` and, of a candidate, `_CandidateUnavailable`.
        """
        on_model(self._status.model(candidate) if candidate else self._status.default_model)
        answer = await self._predict(clip, candidate)
        if isinstance(answer, Fault):
            raise await self._fault(answer, candidate)
        if answer.model is not None:
            on_model(answer.model)
        if isinstance(answer, Refusal):
            problem = problem_of(answer)
            if problem is None:
                self._metrics.upstream_error("malformed")
                problem = Problem("internal")
            if problem.code == "internal":
                logger.error("the model refused a clip with %d %.40r", answer.status, answer.code)
            raise problem
        if candidate is None:
            self._status.default_model = answer.model
        return answer

    async def _predict(self, clip: Clip, version: str | None) -> AnyScore | Refusal | Fault:
        try:
            return await self._torchserve.predict(clip.audio, version, clip.detail)
        except NoToken as error:
            self._metrics.upstream_error("token")
            raise Problem("model_unavailable") from error
        except NotConnected as error:
            logger.warning("TorchServe cannot be reached: %r", error.__cause__)
            self._metrics.upstream_error("unreachable")
            raise Problem("model_unavailable") from error
        except ConnectionLost as error:
            self._metrics.upstream_error("lost")
            raise _ConnectionBroke(repr(error.__cause__)) from error
        except NoScore as error:
            # Without the values, which may say something about the clip.
            logger.error("the model's answer is no score: %d errors", error.errors)
            self._metrics.upstream_error("malformed")
            raise Problem("internal") from None

    async def _fault(self, fault: Fault, candidate: str | None) -> Exception:
        """What a fault of TorchServe's own means, as an exception to raise."""
        reason = f"TorchServe answered {fault.status} {fault.type} {fault.message}"
        self._metrics.upstream_error(fault.kind)
        if fault.kind == "lost":
            return _BatchLost(reason)
        if candidate and fault.kind in ("unavailable", "not_registered"):
            return _CandidateUnavailable(reason)
        logger.warning(reason)
        if fault.kind == "unavailable":
            # TorchServe says the same of a full queue and of a missing worker.
            ready = await self._status.readiness()
            return Problem("overloaded" if ready else "model_unavailable")
        if fault.kind in ("not_registered", "token"):
            return Problem("model_unavailable")
        if fault.status == 413:
            return Problem("file_too_large")
        return Problem("internal")
