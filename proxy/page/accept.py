"""Whether a client would rather read a page than a document (RFC 9110 12.5.1)."""

from collections.abc import Iterable
from typing import Final

from proxy.http.media_types import DOCUMENT, prefers
from proxy.http.quality import weighted

_PAGE: Final = ("text", "html")


def prefers_page(accept: Iterable[str]) -> bool:
    """Whether the values of the header `Accept` rank `text/html` above `application/json`.

    Where both rank the same, or there is no such header, the document is what clients got before
    there was a page.
    """
    return prefers(_PAGE, DOCUMENT, accept)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the value of the header `Accept-Encoding` lets an answer come as gzip."""
    ranks = dict(weighted(accept_encoding))
    return ranks.get("gzip", ranks.get("*", 0.0)) > 0
