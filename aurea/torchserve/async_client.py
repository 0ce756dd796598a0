"""The client of the proxy: many calls at a time, each given up when its caller is cancelled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx
from pydantic import ValidationError

from aurea.torchserve.addresses import (
    MANAGEMENT_SOCKET_URL,
    TOKEN_PATH,
    model_path,
    prediction_path,
)
from aurea.torchserve.answers import (
    Detail,
    Fault,
    Refusal,
    RegisteredVersion,
    Score,
    WholeScore,
    read_description,
    read_error,
    refuses_token,
)
from aurea.torchserve.errors import (
    KeyFileUnreadable,
    ManagementError,
    NoScore,
    NoToken,
    Unreachable,
    connection_errors,
)
from aurea.torchserve.socket_transport import SocketTransport
from aurea.torchserve.tokens import TOKEN_ATTEMPTS, Pause, Renewal, TokenKind, Tokens, bearer

_CONNECT_TIMEOUT_S: Final = 2.0
_MANAGEMENT_TIMEOUT_S: Final = 2.0
_RENEW_BEFORE_S: Final = 60.0
_METRICS_TIMEOUT_S: Final = 5.0

DETAIL_HEADER: Final = "X-Aurea-Detail"
"""Tells the handler how much an answer should hold: a `Detail` other than `score`."""


class AsyncTorchServe:
    """Scores clips and describes the versions of one model. Close it at the end.

    `inference_url` is only a label where `inference_socket` is set, and `management_url` is not
    used where `management_socket` is. What happens to tokens goes to `logger`.
    """

    def __init__(
        self,
        model_name: str,
        *,
        inference_url: str,
        inference_socket: Path | None,
        management_url: str,
        key_file: Path,
        max_connections: int,
        logger: logging.Logger,
        management_socket: Path | None = None,
    ) -> None:
        self._model_name = model_name
        self._inference_url = inference_url
        self._management_url = MANAGEMENT_SOCKET_URL if management_socket else management_url
        self._logger = logger
        limits = httpx.Limits(max_connections=max_connections)
        # One for both, for each reads all certificate authorities anew.
        tls = httpx.create_ssl_context(trust_env=False)
        # No read timeout: whoever asks for a score knows how long it may take.
        timeout = httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S)
        # Clips go without a client, whose cookies, redirects and default headers cost more than
        # the exchange: each header goes on to a worker, which reads it piece by piece.
        self._inference: httpx.AsyncBaseTransport = (
            SocketTransport(inference_socket)
            if inference_socket
            else httpx.AsyncHTTPTransport(verify=tls, limits=limits, trust_env=False)
        )
        self._inference_extensions = {"timeout": timeout.as_dict()}
        self._prediction_urls: dict[str | None, httpx.URL] = {}
        mounts = {}
        if management_socket:
            uds = str(management_socket)
            mounts[MANAGEMENT_SOCKET_URL] = httpx.AsyncHTTPTransport(
                uds=uds, verify=tls, limits=limits
            )
        self._client = httpx.AsyncClient(
            mounts=mounts, verify=tls, limits=limits, timeout=timeout, trust_env=False
        )
        self._tokens = Tokens(key_file, _RENEW_BEFORE_S)
        self._renewing = asyncio.Lock()

    async def aclose(self) -> None:
        """End all connections."""
        await self._inference.aclose()
        await self._client.aclose()

    async def predict(
        self, audio: bytes, version: str | None = None, detail: Detail = "score"
    ) -> Score | WholeScore | Refusal | Fault:
        """The answer to one clip, from `version` or else from the default.

        It is a `WholeScore` where `detail` asks for more than the score.

        Raises `NoScore` where a success is no score, and `Unreachable`. Sets no deadline.
        """
        url = self._prediction_url(version)
        # TorchServe hands the headers of a request to the handler, but no query.
        wanted = {} if detail == "score" else {DETAIL_HEADER: detail}

        async def send(token: dict[str, str]) -> httpx.Response:
            request = httpx.Request(
                "POST",
                url,
                content=audio,
                headers={"Content-Type": "application/octet-stream", **wanted, **token},
                extensions=self._inference_extensions,
            )
            response = await self._inference.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
            return response

        answer = await self._with_token("inference", send)
        if answer.status_code != 200:
            return read_error(answer)
        try:
            document = Score if detail == "score" else WholeScore
            return document.model_validate_json(answer.content)
        except ValidationError as error:
            raise NoScore(error.error_count()) from None

    async def describe(self, version: str | None = None) -> list[RegisteredVersion]:
        """One version as a list, the default one if None, or each of `ALL_VERSIONS`.

        Raises `ManagementError`; its cause is what went wrong, where that is known.
        """
        url = self._management_url + model_path(self._model_name, version)
        asking = self._with_token("management", lambda token: self._client.get(url, headers=token))
        try:
            answer = await asyncio.wait_for(asking, _MANAGEMENT_TIMEOUT_S)
            answer.raise_for_status()
            return read_description(answer)
        except asyncio.TimeoutError as error:
            raise Unreachable("TorchServe does not answer in time.") from error
        except (httpx.HTTPStatusError, ValidationError) as error:
            raise ManagementError("TorchServe does not describe the model.") from error

    async def metrics(self, url: str) -> bytes:
        """TorchServe's own metrics, in Prometheus' text format. Raises `ManagementError`."""
        try:
            with connection_errors():
                answer = await asyncio.wait_for(self._client.get(url), _METRICS_TIMEOUT_S)
        except asyncio.TimeoutError as error:
            raise Unreachable("TorchServe does not answer in time.") from error
        if answer.status_code != 200:
            raise ManagementError(f"TorchServe answers {answer.status_code} for its metrics.")
        return answer.content

    def _prediction_url(self, version: str | None) -> httpx.URL:
        if version not in self._prediction_urls:
            path = prediction_path(self._model_name, version)
            self._prediction_urls[version] = httpx.URL(self._inference_url + path)
        return self._prediction_urls[version]

    async def _with_token(
        self, kind: TokenKind, call: Callable[[dict[str, str]], Awaitable[httpx.Response]]
    ) -> httpx.Response:
        """Calls with a token; again with a newer one for as long as the token is refused."""
        refused: str | None = None
        for _ in range(TOKEN_ATTEMPTS):
            key = await self._token(kind, refused)
            with connection_errors():
                answer = await call(bearer(key))
            if not refuses_token(answer):
                break
            refused = key
        return answer

    async def _token(self, kind: TokenKind, refused: str | None) -> str:
        if key := self._tokens.held(kind, refused):
            return key
        async with self._renewing:
            # Whoever held the lock before may have fetched one for all that waited.
            if key := self._tokens.held(kind, refused):
                return key
            try:
                for step in self._tokens.steps(kind, refused):
                    if isinstance(step, Pause):
                        await asyncio.sleep(step.duration_s)
                    else:
                        await self._renew(kind, step)
            except KeyFileUnreadable as error:
                reason = type(error.__cause__).__name__
                self._logger.warning("TorchServe's key file cannot be read: %s", reason)
                raise
            if key := self._tokens.held(kind, refused):
                return key
        self._logger.error("TorchServe's %s token did not change on renewal", kind)
        raise NoToken(f"TorchServe's {kind} token did not change on renewal.")

    async def _renew(self, kind: TokenKind, renewal: Renewal) -> None:
        try:
            answer = await self._client.get(
                self._management_url + TOKEN_PATH,
                params=renewal.query,
                headers=renewal.headers,
                timeout=_MANAGEMENT_TIMEOUT_S,
            )
        except httpx.HTTPError as error:
            self._logger.warning("renewing TorchServe's %s token failed: %r", kind, error)
            raise NoToken(f"TorchServe's {kind} token cannot be renewed.") from error
        self._logger.info("renewed TorchServe's %s token, status %d", kind, answer.status_code)
