"""Every refusal of the public contract, as problem details (RFC 9457)."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Row(NamedTuple):
    """One row of the table: HTTP status and the sentence used where none is more exact."""

    status: int
    detail: str


TABLE: dict[str, Row] = {
    "missing_file": Row(400, "The form has no file in its field 'file'."),
    "empty_file": Row(400, "The file has no bytes."),
    "malformed_request": Row(400, "The request is neither a well-formed form nor audio."),
    "preflight_refused": Row(400, "Browsers may not send this request from elsewhere."),
    "unauthorized": Row(
        401, "A valid API key is needed, as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
    ),
    "not_found": Row(404, "There is nothing at this address."),
    "job_not_found": Row(
        404,
        "There is no such job. It was deleted, has expired, belongs to another API key or never "
        "was; or the server has been started again, which keeps jobs in its memory alone.",
    ),
    "method_not_allowed": Row(405, "This address does not take this method."),
    "upload_too_slow": Row(408, "The upload came too slowly, or stopped."),
    "file_too_large": Row(413, "The file is too large."),
    "too_many_files": Row(413, "The form has more files than a job may have."),
    "audio_too_long": Row(413, "The audio is too long."),
    "unsupported_audio": Row(415, "The file cannot be decoded as audio."),
    "unsupported_encoding": Row(415, "The file comes encoded in a way that is not decoded."),
    "audio_too_short": Row(422, "The audio is too short."),
    "no_speech": Row(422, "The audio holds nothing that could be speech."),
    "rate_limited": Row(429, "This API key has used up what it may do in a minute."),
    "internal": Row(500, "The server failed on this request."),
    "overloaded": Row(503, "The server has too much to do. Try again soon."),
    "model_unavailable": Row(503, "No model can answer now. Try again soon."),
    "timeout": Row(504, "The request took too long."),
}
"""Stable code → its row."""

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
"""The phrases of RFC 9110, which RFC 9457 wants as titles under the type `about:blank`."""


MAX_PRINTED_CHARS: Final = 40


def printable(text: str) -> str:
    """What a client sent, fit to be told in a refusal: short, and in printable ASCII."""
    cut = text[:MAX_PRINTED_CHARS] + ("..." if len(text) > MAX_PRINTED_CHARS else "")
    return "".join(char if " " <= char <= "~" and char != "'" else "?" for char in cut)


class ProblemDocument(BaseModel):
    """The body of every answer that is not a success."""

    type: str = Field("about:blank", description="Always `about:blank`: switch on `code`.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="A sentence for people. Its wording may change.")
    code: str = Field(
        description="Stable name of the problem.", json_schema_extra={"enum": [*TABLE]}
    )
    request_id: str = Field(description="The same as the header `X-Request-ID`.")


class Problem(Exception):
    """An answer other than success. `code` is a key of `TABLE`, the message is public.

    `headers` are those that this answer has beside the ones that all of its status have. `title`
    is the status in words of another language than English.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
        title: str | None = None,
    ) -> None:
        self.code = code
        self.title = title
        self.headers = dict(headers or {})
        self.status = TABLE[code].status
        super().__init__(detail or TABLE[code].detail)

    def document(self, request_id: str) -> dict[str, Any]:
        """The body of the answer, shaped as `ProblemDocument`."""
        return ProblemDocument(
            type="about:blank",
            title=self.title or TITLES[self.status],
            status=self.status,
            detail=str(self),
            code=self.code,
            request_id=request_id,
        ).model_dump()


def problem_response(problem: Problem, request_id: str, retry_after_s: int) -> JSONResponse:
    """The answer that states a problem, with Retry-After where waiting may help."""
    headers = {"Retry-After": str(retry_after_s)} if problem.status == 503 else {}
    headers |= problem.headers
    if problem.code == "unsupported_encoding":
        # RFC 9110 12.5.3: which encodings of a request would do.
        headers["Accept-Encoding"] = "identity"
    return JSONResponse(
        problem.document(request_id), problem.status, headers=headers, media_type=MEDIA_TYPE
    )
