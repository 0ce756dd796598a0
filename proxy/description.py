"""The contract as OpenAPI describes it: every answer of a route, and what an upload may be."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from typing_extensions import override

from aurea import __version__
from proxy.problems import MEDIA_TYPE, TABLE, Problem, ProblemDocument
from proxy.schemas import Limits
from proxy.uploads.form import FIELD
from proxy.uploads.upload import AUDIO_FAMILIES, AUDIO_TYPES, FORM_TYPE

SERVICE: Final = "AureaVoice accent classification"
CLASSIFY: Final = "/classify-us-accent"
ACCENT: Final = "/v1/accent"
JOBS: Final = "/v1/jobs"
CLASSIFY_CODES: Final = [
    code
    for code in TABLE
    if code
    not in (
        *("not_found", "method_not_allowed", "preflight_refused"),
        *("job_not_found", "too_many_files"),
    )
]
FORMATS: Final = [
    "WAV (PCM, float, A-law, µ-law, ADPCM, GSM, G.722)",
    "FLAC",
    "MP3",
    "Ogg Vorbis",
    "Ogg Opus",
    "WebM Opus",
    "M4A/MP4 AAC",
    "ALAC",
    "AIFF",
    "CAF",
    "AU",
    "AMR",
    "the sound of video files (MP4, MOV, MKV, WebM)",
]
"""What the model decodes. Only shown: the model decides."""

BARE_TYPES: Final = [*(f"{family}*" for family in AUDIO_FAMILIES), *sorted(AUDIO_TYPES)]
"""Media types of a body that is the clip itself."""

REQUEST_ID_PARAMETER: Final = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "An id of your own for this request. One that does not fit is replaced.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
_COMMON_HEADERS: Final = {
    "X-Model": {
        "description": "Name and version of the model, as NAME/VERSION.",
        "schema": {"type": "string"},
        "example": "commonaccent/1.0",
    },
    "X-Request-ID": {
        "description": "Id of the request, yours if it was sane.",
        "schema": {"type": "string"},
    },
}
_RETRY_AFTER: Final = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
}
_OF_STATUS: Final[dict[int, dict[str, Any]]] = {
    401: {
        "WWW-Authenticate": {
            "description": "How to bring a key (RFC 6750).",
            "schema": {"type": "string"},
        }
    },
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}
SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x_api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""How an API key is brought, where keys are needed."""


class DescribedApp(FastAPI):
    """An app whose OpenAPI document shows the limits of the moment, as `limits` has them.

    Where `needs_keys`, it says so of the routes that score.
    """

    def __init__(self, limits: Callable[[], Limits], needs_keys: bool, **options: Any) -> None:
        self._limits = limits
        self._needs_keys = needs_keys
        super().__init__(
            title=SERVICE,
            version=__version__,
            description=(
                "Tells how much the speech in a clip sounds like US English. Everything that is "
                f"not a success, unknown addresses (404) and methods (405) included, is told as "
                f"`{MEDIA_TYPE}` with a stable `code`."
            ),
            docs_url=None,  # `proxy.page` has it, from files of its own
            redoc_url=None,
            redirect_slashes=False,
            **options,
        )

    @override
    def openapi(self) -> dict[str, Any]:
        """The document, which FastAPI builds once; only the upload's part is of now."""
        document = super().openapi()
        needed: list[dict[str, list[str]]] = [{scheme: []} for scheme in SECURITY_SCHEMES]
        if self._needs_keys:
            document["components"]["securitySchemes"] = SECURITY_SCHEMES
        for path in (CLASSIFY, ACCENT):
            document["paths"][path]["post"]["requestBody"] = upload_description(self._limits())
        if self._needs_keys:
            for path, operations in document["paths"].items():
                if path.startswith((CLASSIFY, ACCENT, JOBS)):
                    for operation in operations.values():
                        operation["security"] = needed
        return document


def answers(*codes: str, success: int = 200) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's descriptions of all answers of a route that may refuse with `codes`."""
    described: dict[int | str, dict[str, Any]] = {success: {"headers": _COMMON_HEADERS}}
    for status in sorted({TABLE[code].status for code in codes}):
        of_status = [code for code in codes if TABLE[code].status == status]
        schema = ProblemDocument.model_json_schema()
        schema["properties"]["code"]["enum"] = of_status
        schema["properties"]["status"]["const"] = status
        examples = {
            code: {"summary": TABLE[code].detail, "value": Problem(code).document("4f1c")}
            for code in of_status
        }
        described[status] = {
            "description": " / ".join(of_status),
            "headers": {**_COMMON_HEADERS, **_OF_STATUS.get(status, {})},
            "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
        }
    return described


def upload_description(limits: Limits) -> dict[str, Any]:
    """OpenAPI's description of the form that brings a clip, and of the bare body that may."""
    clip = {
        "type": "string",
        "format": "binary",
        "description": (
            f"One clip of speech, {limits.min_audio_s:g} to {limits.max_audio_s:g} s, at most "
            f"{limits.max_upload_bytes} bytes: {', '.join(limits.formats)}."
        ),
    }
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: clip}}
    return {
        "required": True,
        "description": (
            "A form with the clip as its file, or the bare clip with its own media type. "
            "Without any encoding (`Content-Encoding`)."
        ),
        "content": {
            FORM_TYPE: {"schema": form},
            **{media_type: {"schema": clip} for media_type in BARE_TYPES},
        },
    }
