"""The files that the pages are made of, read and compressed once."""

import functools
import gzip
import hashlib
import importlib.resources
from pathlib import Path
from typing import Final, NamedTuple

_FOLDER: Final = Path(__file__).with_name("files")
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
}
_BASE: Final = b"{{base}}"
"""In a page's HTML: the address that its files have, `page/VERSION`."""
_LOWEST_SAVING: Final = 0.95


class PageFile(NamedTuple):
    """A file as it is sent. `compressed` is gzip's, or None where that saves next to nothing."""

    content: bytes
    compressed: bytes | None
    media_type: str
    etag: str


@functools.cache
def page_files() -> dict[str, PageFile]:
    """All files of both pages by name, such as `strings/en.json`, the HTML excepted."""
    return {
        path.relative_to(_FOLDER).as_posix(): _page_file(path.name, path.read_bytes())
        for path in _FOLDER.rglob("*.*")
        if path.suffix != ".html"
    }


@functools.cache
def version() -> str:
    """A name for just these files: others than these have another."""
    digest = hashlib.sha256()
    for name, file in sorted(page_files().items()):
        digest.update(f"{name}\0{len(file.content)}\0".encode() + file.content)
    return digest.hexdigest()[:12]


@functools.cache
def html(name: str) -> PageFile:
    """A page itself, which names its files by their version."""
    content = (_FOLDER / name).read_bytes()
    return _page_file(name, content.replace(_BASE, f"page/{version()}".encode()))


@functools.cache
def swagger_ui_file(name: str) -> PageFile | None:
    """A file of Swagger UI, None where it has none of that name. Read when first asked for."""
    if name not in ("swagger-ui-bundle.js", "swagger-ui.css"):
        return None
    folder = importlib.resources.files("fastapi_offline") / "static"
    return _page_file(name, (folder / name).read_bytes())


def _page_file(name: str, content: bytes) -> PageFile:
    compressed = gzip.compress(content, 9, mtime=0)
    return PageFile(
        content,
        compressed if len(compressed) < _LOWEST_SAVING * len(content) else None,
        _TYPES[name.rpartition(".")[2]],
        f'"{hashlib.sha256(content).hexdigest()[:16]}"',
    )
