"""The query parameter `timeline`, of all routes that give whole answers."""

from typing import Final

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from proxy.problems import Problem

TIMELINE_PARAMETER: Final = {
    "name": "timeline",
    "in": "query",
    "required": False,
    "description": "Whether to score every few seconds by themselves too.",
    "schema": {"type": "boolean", "default": False},
}
_SPELLINGS: Final = TypeAdapter(bool)


def wants_timeline(request: Request) -> bool:
    """Whether a request asks for a timeline. Raises `Problem` where it says neither yes nor no."""
    try:
        return _SPELLINGS.validate_python(request.query_params.get("timeline", "false"))
    except ValidationError:
        raise Problem(
            "malformed_request", "The query's 'timeline' is neither true nor false."
        ) from None
