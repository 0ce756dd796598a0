"""What every answer tells browsers not to do with it."""

from typing import Final

from starlette.datastructures import MutableHeaders

_COMMON: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_UNLESS_SAID: Final = {
    # An answer is of one person's voice.
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
}
_YEAR_S: Final = 31_536_000


def add_security_headers(headers: MutableHeaders, scheme: str) -> None:
    """Adds them to an answer; `scheme` is that of the request, http or https.

    What a page may load, and whether a file may be kept, is left as its route says.
    """
    for name, value in _COMMON.items():
        headers[name] = value
    for name, value in _UNLESS_SAID.items():
        headers.setdefault(name, value)
    if scheme == "https":
        headers["Strict-Transport-Security"] = f"max-age={_YEAR_S}"
