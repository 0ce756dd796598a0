"""The client of commands and of the supervisor: one call at a time, each waited for."""

import time
from collections.abc import Callable
from typing import Any, Final

import httpx
from pydantic import ValidationError

from aurea.torchserve.addresses import (
    ALL_VERSIONS,
    MANAGEMENT_SOCKET_URL,
    SOCKET_URL,
    TOKEN_PATH,
    Addresses,
    model_path,
    prediction_path,
)
from aurea.torchserve.answers import (
    RegisteredVersion,
    json_object,
    read_description,
    refuses_token,
    words_of,
)
from aurea.torchserve.errors import (
    ManagementError,
    NoToken,
    NotRegistered,
    connection_errors,
)
from aurea.torchserve.tokens import TOKEN_ATTEMPTS, Pause, Renewal, TokenKind, Tokens, bearer

# A call is over soon; the proxy renews long before, and mostly first.
_RENEW_BEFORE_S: Final = 5.0


class TorchServe:
    """The served model's versions, through the management address of a running TorchServe.

    `timeout_s`: seconds that a call waits, at most, for TorchServe to take a connection or to
    send something. Registering unpacks the archive, and unregistering waits for the workers
    to end, so that whoever does these needs a long one.

    Every call raises `Unreachable` where nobody answers in time.
    """

    def __init__(self, addresses: Addresses, timeout_s: float = 120.0) -> None:
        self._addresses = addresses
        # One for both, for each reads all certificate authorities anew.
        tls = httpx.create_ssl_context(trust_env=False)
        mounts = {SOCKET_URL: httpx.HTTPTransport(uds=str(addresses.inference_socket), verify=tls)}
        self._management_url = addresses.management_url
        if addresses.management_socket is not None:
            uds = str(addresses.management_socket)
            mounts[MANAGEMENT_SOCKET_URL] = httpx.HTTPTransport(uds=uds, verify=tls)
            self._management_url = MANAGEMENT_SOCKET_URL
        self._client = httpx.Client(mounts=mounts, verify=tls, timeout=timeout_s, trust_env=False)

    def close(self) -> None:
        """End all connections."""
        self._client.close()

    def versions(self) -> dict[str, RegisteredVersion]:
        """Every registered version by its name; empty where the model is not registered."""
        try:
            described = self._describe(ALL_VERSIONS)
        except NotRegistered:
            return {}
        return {each.version: each for each in described}

    def version(self, version: str) -> RegisteredVersion:
        """One version. Raises `NotRegistered`."""
        return self._describe(version)[0]

    def default(self) -> RegisteredVersion:
        """The version that answers where none is asked for. Raises `NotRegistered`."""
        return self._describe(None)[0]

    def register(self, archive_name: str, **batching: int) -> None:
        """Register an archive of TorchServe's model store, without workers.

        `batching` is `batch_size` and `max_batch_delay` in milliseconds, each in place of what
        the archive's settings say.
        """
        self._manage(
            "POST",
            "/models",
            url=archive_name,
            model_name=self._addresses.model_name,
            initial_workers="0",
            **{name: str(value) for name, value in batching.items()},
        )

    def unregister(self, version: str) -> None:
        """Take a version and its workers away. Raises `NotRegistered`; refused for the default."""
        self._manage("DELETE", self._path(version))

    def set_default(self, version: str) -> None:
        """Let `version` answer where none is asked for. Raises `NotRegistered`."""
        self._manage("PUT", self._path(version) + "/set-default")

    def ask_workers(self, version: str, count: int) -> None:
        """Ask for `count` workers of a version; `await_workers` tells when they are there."""
        workers = {"min_worker": str(count), "max_worker": str(count)}
        self._manage("PUT", self._path(version), **workers)

    def predict(self, audio: bytes, version: str | None = None) -> dict[str, Any]:
        """The answer document to one clip, from `version` or else from the default.

        Raises `ManagementError` for every answer that is no score, a refusal included.
        """
        url = SOCKET_URL + prediction_path(self._addresses.model_name, version)
        answer = self._with_token(
            "inference",
            lambda token: self._client.post(
                url,
                content=audio,
                headers={"Content-Type": "application/octet-stream", **token},
            ),
        )
        document = json_object(answer)
        if answer.status_code != 200 or "us_confidence" not in document:
            raise ManagementError(f"No score for a clip: {words_of(answer)}")
        return document

    def _path(self, version: str | None) -> str:
        return model_path(self._addresses.model_name, version)

    def _describe(self, version: str | None) -> list[RegisteredVersion]:
        answer = self._manage("GET", self._path(version))
        try:
            return read_description(answer)
        except ValidationError:
            raise ManagementError(f"No description of the model: {words_of(answer)}") from None

    def _manage(self, method: str, path: str, **query: str) -> httpx.Response:
        url = self._management_url + path
        answer = self._with_token(
            "management",
            lambda token: self._client.request(method, url, params=query, headers=token),
        )
        if answer.status_code == 404:
            raise NotRegistered(words_of(answer))
        if not answer.is_success:
            raise ManagementError(words_of(answer))
        return answer

    def _with_token(
        self, kind: TokenKind, call: Callable[[dict[str, str]], httpx.Response]
    ) -> httpx.Response:
        # The file is read anew for every call, for the proxy renews the same tokens.
        tokens = Tokens(self._addresses.key_file, _RENEW_BEFORE_S)
        refused: str | None = None
        for _ in range(TOKEN_ATTEMPTS):
            key = self._token(tokens, kind, refused)
            with connection_errors():
                answer = call(bearer(key))
            if not refuses_token(answer):
                return answer
            refused = key
        raise NoToken(f"TorchServe takes no {kind} token: {words_of(answer)}")

    def _token(self, tokens: Tokens, kind: TokenKind, refused: str | None) -> str:
        for step in tokens.steps(kind, refused):
            if isinstance(step, Pause):
                time.sleep(step.duration_s)
            else:
                self._renew(step)
        key = tokens.held(kind, refused)
        if key is None:
            raise NoToken(f"TorchServe's {kind} token did not change on renewal.")
        return key

    def _renew(self, renewal: Renewal) -> None:
        url = self._management_url + TOKEN_PATH
        with connection_errors():
            self._client.get(url, params=renewal.query, headers=renewal.headers)
