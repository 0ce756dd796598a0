"""The routes of jobs as OpenAPI describes them."""

from typing import Any, Final

from proxy.answer.route import LANGUAGE_PARAMETER
from proxy.answer.timeline import TIMELINE_PARAMETER
from proxy.description import JOBS, REQUEST_ID_PARAMETER, answers
from proxy.uploads.form import FIELD
from proxy.uploads.upload import FORM_TYPE

_ID: Final = "8vEr0xq3mTz5kQJd1yWcB7uLhN2aPfGs"
_ID_PARAMETER: Final = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "description": "The `id` that the answer to the upload told.",
    "schema": {"type": "string"},
}
_LAST_EVENT_PARAMETER: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The last event that was had, of a stream of events that broke.",
    "schema": {"type": "integer", "minimum": 0},
}
_JOB: Final[dict[str, Any]] = {
    "schema_version": "1.0",
    "id": _ID,
    "state": "running",
    "address": f"{JOBS}/{_ID}",
    "timeline": False,
    "counts": {"total": 2, "waiting": 1, "running": 1, "scored": 0, "refused": 0, "failed": 0},
    "created_at": "2026-01-31T09:00:00Z",
    "expires_at": "2026-01-31T10:10:00Z",
}
_RESULTS: Final = [
    {"index": 0, "name": "monday.m4a", "state": "running"},
    {"index": 1, "name": "tuesday.m4a", "state": "waiting"},
]
_EVENTS: Final = (
    'id: 1\nevent: result\ndata: {"index":0,"name":"monday.m4a","state":"scored","answer":{}}\n\n'
    ": still running\n\n"
    'id: 3\nevent: done\ndata: {"state":"done"}\n\n'
)
_COMMON_CODES: Final = ("unauthorized", "internal")


def _with_example(
    responses: dict[int | str, dict[str, Any]], status: int, example: dict[str, Any]
) -> dict[int | str, dict[str, Any]]:
    responses[status]["content"] = {"application/json": {"example": example}}
    return responses


def _created() -> dict[str, Any]:
    responses = answers(
        *("missing_file", "malformed_request", "upload_too_slow", "file_too_large"),
        *("too_many_files", "unsupported_encoding", "rate_limited", "overloaded"),
        *("not_found", "model_unavailable", *_COMMON_CODES),
        success=202,
    )
    responses = _with_example(responses, 202, _JOB)
    responses[202]["headers"] = {
        **responses[202]["headers"],
        "Location": {"description": "The job's address.", "schema": {"type": "string"}},
    }
    clip = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "array", "items": clip, "minItems": 1}},
    }
    return {
        "responses": responses,
        "openapi_extra": {
            "parameters": [REQUEST_ID_PARAMETER, TIMELINE_PARAMETER],
            "requestBody": {
                "required": True,
                "description": f"A form with the clips, each as a file `{FIELD}`.",
                "content": {FORM_TYPE: {"schema": form}},
            },
        },
    }


def _events_or_document() -> dict[str, Any]:
    responses = _with_example(
        answers("job_not_found", "model_unavailable", *_COMMON_CODES),
        200,
        {**_JOB, "results": _RESULTS},
    )
    responses[200]["content"]["text/event-stream"] = {
        "schema": {
            "type": "string",
            "description": "Events `result`, each a `FileDocument`, and a last one `done`, a "
            "`JobDocument`. Where nothing happens, comments.",
        },
        "example": _EVENTS,
    }
    responses[204] = {
        **answers(success=204)[204],
        "description": "The events have all been had, by `Last-Event-ID`.",
    }
    parameters = [_ID_PARAMETER, REQUEST_ID_PARAMETER, LANGUAGE_PARAMETER, _LAST_EVENT_PARAMETER]
    return {"responses": responses, "openapi_extra": {"parameters": parameters}}


CREATED: Final = _created()
EVENTS_OR_DOCUMENT: Final = _events_or_document()
DELETED: Final[dict[str, Any]] = {
    "responses": answers("job_not_found", "model_unavailable", *_COMMON_CODES, success=204),
    "openapi_extra": {"parameters": [_ID_PARAMETER, REQUEST_ID_PARAMETER]},
}
