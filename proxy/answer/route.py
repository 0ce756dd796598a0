"""The route `POST /v1/accent`."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from aurea.torchserve.answers import AnyScore, Detail, WholeScore
from proxy.answer.document import WholeAnswer, whole_answer
from proxy.answer.language import preferred
from proxy.answer.timeline import TIMELINE_PARAMETER, wants_timeline
from proxy.description import ACCENT, CLASSIFY_CODES, REQUEST_ID_PARAMETER, answers
from proxy.problems import Problem

Classify = Callable[[Request, Detail], Awaitable[AnyScore]]
"""Admits a request and has its clip scored. Raises `Problem` and `ClientDisconnect`."""

LANGUAGE_PARAMETER: Final = {
    "name": "Accept-Language",
    "in": "header",
    "required": False,
    "description": "Language of the words: `en` or `id`. Ids and figures never change.",
    "schema": {"type": "string", "default": "en"},
}


def add_routes(app: FastAPI, classify: Classify, notice: str) -> None:
    """Add the route to an app; `notice` is what to know about the model that is served."""

    @app.post(
        ACCENT,
        summary="Score one clip and say everything about it",
        response_model=WholeAnswer,
        response_model_exclude_none=True,
        responses=answers(*CLASSIFY_CODES),
        openapi_extra={
            "parameters": [REQUEST_ID_PARAMETER, LANGUAGE_PARAMETER, TIMELINE_PARAMETER]
        },
    )
    async def accent(request: Request) -> Response:
        score = await classify(request, "timeline" if wants_timeline(request) else "recording")
        if not isinstance(score, WholeScore):
            raise Problem("internal")
        language = preferred(request.headers.get("accept-language", ""))
        document = whole_answer(score, language, notice)
        return Response(
            document.model_dump_json(exclude_none=True),
            media_type="application/json",
            headers={"Content-Language": language, "Vary": "Accept-Language"},
        )
