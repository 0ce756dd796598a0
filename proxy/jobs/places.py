"""Which process keeps a job: the only one, where there is no other."""

import secrets
from typing import Final, NamedTuple, Protocol

from starlette.requests import Request
from starlette.responses import Response

ID_BYTES: Final = 24


class JobReader(Protocol):
    """Answers requests about jobs that this process keeps."""

    async def read(self, request: Request) -> Response:
        """Answers GET. Raises `Problem` (job_not_found)."""

    async def delete(self, request: Request) -> Response:
        """Answers DELETE. Raises `Problem` (job_not_found)."""


class Caller(NamedTuple):
    """Who asks about a job, as the process that was asked has found out."""

    key: str | None
    request_id: str


class JobPlaces:
    """`proxy/processes/` has the same for several processes, whose ids say which one it is."""

    def new_id(self) -> str:
        """One that nobody can guess, for a job that is kept here."""
        return secrets.token_urlsafe(ID_BYTES)

    def offer(self, reader: JobReader) -> None:
        """Lets other processes ask about the jobs that are kept here."""

    async def relayed(self, request: Request, caller: Caller) -> Response | None:  # noqa: ARG002
        """The answer of the process that keeps a job, or None where that is this one.

        Raises `Problem` (job_not_found, model_unavailable, internal).
        """
        return None

    async def aclose(self) -> None:
        """Ends what it has open."""
