"""What every answer tells browsers not to do with it."""

from typing import Final

from starlette.datastructures import MutableHeaders

DOCS: Final = "/docs"
_COMMON: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # An answer is of one person's voice.
    "Cache-Control": "no-store",
}
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_DOCS_PAGE: Final = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "connect-src 'self'; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "img-src data: https://fastapi.tiangolo.com"
)
"""What FastAPI's page is made of."""
_YEAR_S: Final = 31_536_000


def add_security_headers(headers: MutableHeaders, path: str, scheme: str) -> None:
    """Adds them to an answer for `path`; `scheme` is that of the request, http or https."""
    for name, value in _COMMON.items():
        headers[name] = value
    headers["Content-Security-Policy"] = _DOCS_PAGE if path == DOCS else _NOTHING
    if scheme == "https":
        headers["Strict-Transport-Security"] = f"max-age={_YEAR_S}"
