"""Clips to a service that runs, over its public contract.

The contract tells a model's name and version, and another model may be served under the same
ones. So each run begins with speech that ships with the project: its scores to one decimal,
with the limits that the service names, tell one model from another. Two models that score all of
that speech alike cannot be told apart, nor can settings that no answer shows.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
from accent.decode import decode
from accent.errors import Refusal

from aurea.archive.reference import reference_files
from aurea.lab.corpus import Clip
from aurea.lab.evaluation.answer_log import AnswerLog
from aurea.lab.evaluation.clip_results import ClipResult, unreadable
from aurea.lab.evaluation.model_facts import ModelFacts
from aurea.lab.evaluation.running import Task, answer_clips

DEFAULT_JOBS: Final = 4

_ATTEMPTS: Final = 30
_TIMEOUT_S: Final = 90.0
_MAX_WAIT_S: Final = 60.0
_PROBE_EVERY: Final = 4
# Statuses by which the contract refuses a clip; others say nothing of the clip.
_REFUSALS: Final = {400, 413, 415, 422}
_BUSY: Final = 503


def evaluate_service(
    url: str, clips: Sequence[Clip], *, jobs: int = 0, log: Path | None = None
) -> tuple[ModelFacts, list[ClipResult]]:
    """Send every clip to a service that runs, `jobs` at a time (four by default).

    The public contract tells the US score only, so that results have no cosines. A service
    that is busy is asked again after the time that it names. A clip that it fails on has a
    `server_fault`, is not logged, and is asked for again by the next run.

    Raises `SystemExit` if nothing answers, or if another model comes to answer meanwhile.
    """
    address = url.rstrip("/")
    kept = None if log is None else AnswerLog(log)
    try:
        client = httpx.Client(base_url=address, timeout=_TIMEOUT_S)
    except httpx.InvalidURL as error:
        raise _no_service(address, error) from None
    with client:
        service = _Service(client)
        model = service.identify()
        asked: list[Clip] = []

        def answer(task: Task) -> list[ClipResult]:
            asked.append(task.clip)
            return [_answer(service, model.name, task.clip)]

        results = answer_clips(
            clips,
            lambda: ThreadPoolExecutor(jobs or DEFAULT_JOBS),
            answer,
            engine_digest=model.digest,
            log=kept,
        )
        if asked and service.identify() != model:
            if kept is not None:
                kept.discard_added()
            raise SystemExit(
                f"{address} has changed while it was asked: what answers now is not the "
                f"{model.name} of the beginning. Nothing of this run was kept; run it again."
            )
    return model, results


@dataclass(frozen=True)
class _Answer:
    """A score in [0, 1], a refusal with its detail, or a fault; `latency_s` of the last try."""

    us_score: float | None = None
    refusal: str = ""
    detail: str = ""
    fault: str = ""
    model: str = ""
    latency_s: float = 0.0


class _Service:
    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._address = str(client.base_url).rstrip("/")

    def identify(self) -> ModelFacts:
        """What answers now. Raises `SystemExit` if nothing does."""
        files = reference_files("verification")[::_PROBE_EVERY]
        self._describe()
        # Before its first answer a service may not know yet what it serves.
        self.ask(files[0].read_bytes())
        name, limits = self._describe()
        probes: list[object] = []
        for file in files:
            answer = self.ask(file.read_bytes(), name)
            if answer.fault:
                raise SystemExit(
                    f"{self._address} fails on the speech that it is recognised by: {answer.fault}"
                )
            probes.append(answer.refusal or answer.us_score)
        text = json.dumps([self._address, name, limits, probes], sort_keys=True)
        return ModelFacts(name, hashlib.sha256(text.encode()).hexdigest(), (), None)

    def ask(self, data: bytes, model: str = "") -> _Answer:
        """The answer to a clip, after waiting where the service is busy.

        With `model`, a name and version, what another version says is not taken: a canary's
        answer is asked for again.

        Raises `SystemExit` if nobody listens, or none but other versions answer.
        """
        answer = _Answer()
        for _ in range(_ATTEMPTS):
            started = time.perf_counter()
            try:
                response = self._client.post("/classify-us-accent", files={"file": ("clip", data)})
            except httpx.ConnectError as error:
                raise SystemExit(f"{self._address} does not answer any more: {error}") from None
            except httpx.HTTPError as error:
                return _Answer(fault=f"no answer ({type(error).__name__})")
            answer = replace(_read(response), latency_s=time.perf_counter() - started)
            if response.status_code == _BUSY:
                time.sleep(_wait_s(response))
            elif not model or answer.model in ("", model):
                return answer
        if answer.fault:
            return answer
        raise SystemExit(
            f"{self._address} lets {answer.model} answer, and {model} was to be judged: "
            "run it again once one version answers most requests."
        )

    def _describe(self) -> tuple[str, Any]:
        try:
            about = self._client.get("/").raise_for_status().json()
            return f"{about['model']['name']}/{about['model']['version']}", about.get("limits")
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _no_service(self._address, error) from None


def _no_service(address: str, error: Exception) -> SystemExit:
    return SystemExit(f"{address} does not answer as the service does: {error}")


def _read(response: httpx.Response) -> _Answer:
    status, model = response.status_code, response.headers.get("x-model", "")
    try:
        document = response.json()
        if status == 200:
            return _Answer(us_score=document["us_confidence"] / 100.0, model=model)
        code, detail = str(document["code"]), str(document["detail"])
    except (ValueError, KeyError, TypeError):
        return _Answer(fault=f"{status} without an answer of the service", model=model)
    if status in _REFUSALS:
        return _Answer(refusal=code, detail=detail, model=model)
    return _Answer(fault=f"{status} {code}", model=model)


def _wait_s(response: httpx.Response) -> float:
    try:
        return min(max(float(response.headers["retry-after"]), 0.0), _MAX_WAIT_S)
    except (KeyError, ValueError):
        return 1.0


def _answer(service: _Service, model: str, clip: Clip) -> ClipResult:
    try:
        data = clip.path.read_bytes()
    except OSError as error:
        return unreadable(clip, error)
    result = ClipResult(clip)
    try:
        facts = decode(data).facts
        result = replace(
            result,
            duration_s=facts.duration_s,
            codec=facts.codec,
            sample_rate_hz=facts.sample_rate_hz,
        )
    except Refusal:
        pass  # The service's own word on it is what counts.
    answer = service.ask(data, model)
    return replace(
        result,
        us_score=answer.us_score,
        refusal=answer.refusal,
        detail=answer.detail,
        server_fault=answer.fault,
        latency_s=answer.latency_s,
    )
