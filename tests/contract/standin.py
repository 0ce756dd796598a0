"""A small real HTTP server that behaves as TorchServe was measured to."""

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

MODEL = "standin"
VERSION = "1.2"
SCORE = 85.5

Kind = Literal["inference", "management"]
Behaviour = Callable[["Prediction"], Awaitable[Any]]


@dataclass
class Prediction:
    """One clip as it reached the model, and for which time (`time.monotonic()`, seconds)."""

    body: bytes
    content_type: str
    attempt: int
    version: str
    """The version that got it, asked for by name or not."""
    request: Request
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float = 0.0


def fault(status: int, kind: str, message: str) -> JSONResponse:
    """An error in TorchServe's own words: its `code` is a number."""
    return JSONResponse({"code": status, "type": kind, "message": message}, status)


def token_fault() -> JSONResponse:
    return fault(
        400,
        "InvalidKeyException",
        "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
    )


def worker_died() -> JSONResponse:
    return fault(507, "InternalServerException", "Worker died.")


def queue_full() -> JSONResponse:
    return fault(
        503,
        "ServiceUnavailableException",
        f'Model "{MODEL}" has no worker to serve inference request. Please use scale workers API'
        " to add workers.",
    )


def no_such_version(version: str) -> JSONResponse:
    return fault(
        404,
        "ModelVersionNotFoundException",
        f"Model version: {version} does not exist for model: {MODEL}",
    )


def refusal(status: int, code: str, detail: str = "As the model says.") -> Behaviour:
    """The handler's verdict on one clip of a batch."""

    async def answer(_: Prediction) -> Response:
        return JSONResponse({"code": code, "detail": detail}, status)

    return answer


def answering(response: Response) -> Behaviour:
    async def answer(_: Prediction) -> Response:
        return response

    return answer


async def hang(prediction: Prediction) -> Response:
    """No answer, ever; ends when the caller leaves."""
    while not await prediction.request.is_disconnected():
        await asyncio.sleep(0.01)
    return Response()


class CutOff(Response):
    """Breaks the connection in the middle of the answer, as a dying server does."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"100")],
            }
        )


def document(
    us_confidence: Any = SCORE,
    name: str = MODEL,
    version: str = VERSION,
    detail: str | None = None,
) -> Any:
    """The handler's full answer; with more in it where `detail` asks for more."""
    answer: dict[str, Any] = {
        "us_confidence": us_confidence,
        "accents": [
            {"label": "us", "score": 0.855},
            {"label": "southatlandtic", "score": 0.1},
            {"label": "elsewhere", "score": 0.045},
        ],
        "model": {"name": name, "version": version},
        "timings": {"decode_s": 0.01},
    }
    if detail:
        answer["audio"] = {
            "duration_s": 5.0,
            "sample_rate_hz": 48_000,
            "channels": 2,
            "codec": "opus",
            "peak": 0.7,
            "track": 1,
            "mix": "mean",
            "speech_s": 4.1,
            "scored_s": 4.4,
            "peak_dbfs": -3.1,
            "level_dbfs": -21.0,
            "snr_db": 12.0,
            "longest_silence_s": 0.4,
            "advice": ["noisy", "of a later handler"],
        }
        answer["model"] |= {
            "kind": "ecapa",
            "labels": ["us", "southatlandtic", "elsewhere"],
            "scale": 30.0,
            "worth": {"en": "Good.", "id": "Baik."},
        }
    if detail == "timeline":
        answer["timeline"] = [
            {
                "start_s": start_s,
                "end_s": start_s + 3,
                "us_confidence": score,
                "accent": {"label": "us", "score": score / 100},
            }
            for start_s, score in ((0.0, 71.2), (1.5, 93.0), (2.0, 80.0))
        ]
    return answer


class StandIn:
    """TorchServe with one model. Tests set its behaviour per clip and read what it saw.

    `versions` are those registered, the default one first. Each has the `workers`, unless
    `workers_of` has others for it; without any it refuses clips that ask for it.
    """

    def __init__(self, folder: Path) -> None:
        self.key_file = folder / "key_file.json"
        self.socket_path = folder / "inference.sock"
        self.behaviours: dict[bytes, Behaviour] = {}
        self.predictions: list[Prediction] = []
        self.renewals: list[str] = []
        self.describes = 0
        self.deaths = 0
        self.refused_tokens: list[str] = []
        self.workers: list[str] = ["READY"]
        self.workers_of: dict[str, list[str]] = {}
        self.versions: list[str] = [VERSION]
        self.describe_status = 200
        self.batch_size = 64
        self.management_hangs = False
        self.default_behaviour: Behaviour | None = None
        self.api_key = secrets.token_urlsafe(6)
        self.keys: dict[Kind, str] = {}
        self.expires: dict[Kind, datetime] = {}
        self.new_key("inference")
        self.new_key("management")
        self._inference = _Served(
            Route("/predictions/{name}", self._predict, methods=["POST"]),
            Route("/predictions/{name}/{version}", self._predict, methods=["POST"]),
            sock=_unix_listener(self.socket_path),
        )
        listener = socket.create_server(("127.0.0.1", 0))
        self.management_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._management = _Served(
            # TorchServe, too, serves both where both addresses are one.
            Route("/predictions/{name}", self._predict, methods=["POST"]),
            Route("/token", self._token),
            Route("/models/{name}", self._describe),
            Route("/models/{name}/all", self._describe_all),
            sock=listener,
        )

    def reset(self) -> None:
        """Forgets what it saw and what it was told, keeps its tokens."""
        self.behaviours.clear()
        self.predictions.clear()
        self.renewals.clear()
        self.refused_tokens.clear()
        self.describes = 0
        self.deaths = 0
        self.workers = ["READY"]
        self.workers_of.clear()
        self.versions = [VERSION]
        self.describe_status = 200
        self.batch_size = 64
        self.management_hangs = False
        self.default_behaviour = None

    def set_default(self, version: str) -> None:
        """Lets `version` answer where none is asked for."""
        self.versions.sort(key=lambda each: each != version)

    def close(self) -> None:
        self._inference.close()
        self._management.close()

    def new_key(self, kind: Kind, life_s: float = 3600) -> None:
        """Makes a new token, valid for `life_s` seconds, and writes the key file."""
        self.keys[kind] = secrets.token_urlsafe(6)
        self.expires[kind] = datetime.now(timezone.utc) + timedelta(seconds=life_s)
        if len(self.keys) == 2:
            self.write_key_file()

    def write_key_file(self) -> None:
        keys: dict[str, dict[str, str]] = {
            kind: {
                "key": self.keys[kind],
                # Java's Instant prints up to nine digits and a Z.
                "expiration time": self.expires[kind].strftime("%Y-%m-%dT%H:%M:%S.%f123Z"),
            }
            for kind in self.keys
        }
        keys["API"] = {"key": self.api_key}
        self.key_file.write_text(json.dumps(keys, indent=2))

    def _may(self, request: Request, kind: Kind) -> bool:
        token = request.headers.get("authorization", "")
        good = token == f"Bearer {self.keys[kind]}"
        if not good or self.expires[kind] <= datetime.now(timezone.utc):
            self.refused_tokens.append(kind)
            return False
        return True

    async def _predict(self, request: Request) -> Response:
        body = await request.body()
        if not self._may(request, "inference"):
            return token_fault()
        if request.path_params["name"] != MODEL:
            return fault(404, "ModelNotFoundException", "Model not found")
        version = request.path_params.get("version", self.versions[0])
        if version not in self.versions:
            return no_such_version(version)
        if self.workers_of.get(version) == []:
            return queue_full()
        attempt = 1 + sum(seen.body == body for seen in self.predictions)
        content_type = request.headers.get("content-type", "")
        prediction = Prediction(body, content_type, attempt, version, request)
        self.predictions.append(prediction)
        behaviour = self.behaviours.get(body, self.default_behaviour)
        try:
            if behaviour:
                answer = await behaviour(prediction)
            else:
                answer = document(version=version, detail=request.headers.get("x-aurea-detail"))
        finally:
            prediction.ended_s = time.monotonic()
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    async def _token(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            return token_fault()
        kind = request.query_params["type"]
        self.renewals.append(kind)
        # Time enough for others to ask as well, if they do.
        await asyncio.sleep(0.1)
        self.new_key("inference" if kind == "inference" else "management")
        return JSONResponse({"ok": True})

    async def _describe(self, request: Request) -> Response:
        await self._hang()
        return self._description(request, self.versions[:1])

    async def _describe_all(self, request: Request) -> Response:
        await self._hang()
        return self._description(request, self.versions)

    async def _hang(self) -> None:
        while self.management_hangs:
            await asyncio.sleep(0.05)

    def _description(self, request: Request, versions: list[str]) -> Response:
        self.describes += 1
        if not self._may(request, "management"):
            return token_fault()
        if self.describe_status != 200 or request.path_params["name"] != MODEL:
            return fault(404, "ModelNotFoundException", "Model not found")
        return JSONResponse(
            [
                {
                    "modelName": MODEL,
                    "modelVersion": version,
                    "modelUrl": "standin.mar",
                    "minWorkers": 1,
                    "batchSize": self.batch_size,
                    "workers": [
                        {
                            "id": str(9000 + number),
                            "status": status,
                            "pid": 1_000 * (self.deaths or self.describes) + number + 1,
                        }
                        for number, status in enumerate(self.workers_of.get(version, self.workers))
                    ],
                }
                for version in versions
            ]
        )


class _Served:
    """Routes under a uvicorn of their own, in a thread."""

    def __init__(self, *routes: Route, sock: socket.socket) -> None:
        config = uvicorn.Config(
            Starlette(routes=list(routes)), log_level="critical", ws="none", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],))
        self._thread.start()

    def close(self) -> None:
        self._server.force_exit = True
        self._server.should_exit = True
        self._thread.join(timeout=10)


def _unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    with suppress(FileNotFoundError):
        path.unlink()
    listener.bind(str(path))
    listener.listen(512)
    return listener
