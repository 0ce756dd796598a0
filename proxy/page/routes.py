"""The addresses of the pages, and what their answers let a browser do."""

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope
from typing_extensions import override

from proxy.page import files
from proxy.page.accept import accepts_gzip, prefers_page
from proxy.page.files import PageFile
from proxy.problems import Problem

DOCS: Final = "/docs"
_FILES: Final = "/page/{version}/{name:path}"
_REVALIDATED: Final = "no-cache"
_YEAR_S: Final = 31_536_000
_NOWHERE_ELSE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_POLICY: Final = (
    f"{_NOWHERE_ELSE}; media-src blob:; require-trusted-types-for 'script'; trusted-types 'none'"
)
_PERMISSIONS: Final = "microphone=(self), camera=(), geolocation=(), payment=(), usb=()"


class _BrowsersRoute(APIRoute):
    """Is there for those who would rather have a page; others find the route that follows."""

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.FULL and prefers_page(Headers(scope=scope).getlist("accept")):
            return match, child_scope
        return Match.NONE, {}


def add_routes(app: FastAPI) -> None:
    """Adds the pages to an app that has no route for `GET /` yet."""

    async def page(request: Request) -> Response:
        answer = _answer(request, files.html("index.html"), _REVALIDATED)
        answer.headers["Vary"] = "Accept, Accept-Encoding"
        answer.headers["Content-Security-Policy"] = _PAGE_POLICY
        answer.headers["Permissions-Policy"] = _PERMISSIONS
        return answer

    app.router.routes.append(_BrowsersRoute("/", page, include_in_schema=False))

    @app.get(DOCS, include_in_schema=False)
    async def documentation(request: Request) -> Response:
        answer = _answer(request, files.html("docs.html"), "no-store")
        answer.headers["Content-Security-Policy"] = _NOWHERE_ELSE
        return answer

    # Without `async`: Swagger UI takes a while to compress when it is first asked for.
    @app.get(_FILES, include_in_schema=False)
    def page_file(request: Request, version: str, name: str) -> Response:
        file = files.page_files().get(name) or files.swagger_ui_file(name)
        if file is None:
            raise Problem("not_found")
        # A page that another release sent names its files by the version that it had.
        fixed = version == files.version()
        kept = f"public, max-age={_YEAR_S}, immutable" if fixed else _REVALIDATED
        return _answer(request, file, kept)

    @app.get("/favicon.ico", include_in_schema=False)
    async def favicon(request: Request) -> Response:
        return _answer(request, files.page_files()["icon.png"], _REVALIDATED)


def _answer(request: Request, file: PageFile, cache_control: str) -> Response:
    """The file, compressed where the client can read that, or word that it has the same already."""
    compressed = file.compressed if accepts_gzip(_accept_encoding(request)) else None
    # What is encoded in another way is another representation, with a tag of its own.
    etag = file.etag if compressed is None else f'{file.etag[:-1]}-gzip"'
    headers = {
        "Cache-Control": cache_control,
        "ETag": etag,
        "Vary": "Accept-Encoding",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    known = [each.strip().removeprefix("W/") for each in _if_none_match(request).split(",")]
    if etag in known or known == ["*"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if compressed is not None:
        headers["Content-Encoding"] = "gzip"
    return Response(compressed or file.content, headers=headers | {"Content-Type": file.media_type})


def _accept_encoding(request: Request) -> str:
    return ",".join(request.headers.getlist("accept-encoding"))


def _if_none_match(request: Request) -> str:
    return ",".join(request.headers.getlist("if-none-match"))
