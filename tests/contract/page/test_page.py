"""The page and the documentation as the proxy sends them; the browsers' tests are elsewhere."""

import gzip
import re

import pytest

from proxy.page import files
from tests.contract.proxy_process import Proxy

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
NAME = f"/page/{files.version()}/main.js"


def test_a_browser_gets_the_page_and_all_others_what_they_got(proxy: Proxy) -> None:
    page = proxy.client.get("/", headers={"Accept": BROWSER})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    for accept in ("*/*", "application/json", ""):
        document = proxy.get("/", Accept=accept)
        assert document.headers["content-type"] == "application/json"
        assert list(document.json()) == ["service", "model", "versions", "limits", "links"]
        assert document.headers["vary"] == "Accept"
    assert page.headers["vary"] == "Accept, Accept-Encoding"
    head = proxy.client.head("/", headers={"Accept": BROWSER})
    assert (head.headers["content-length"], head.content) == (page.headers["content-length"], b"")
    assert proxy.client.post("/", headers={"Accept": BROWSER}).status_code == 405


def test_the_page_may_load_from_its_own_server_alone(proxy: Proxy) -> None:
    page = proxy.client.get("/", headers={"Accept": BROWSER})
    policy = dict(
        each.strip().partition(" ")[::2]
        for each in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    for what in ("script-src", "style-src", "connect-src"):
        assert policy[what] == "'self'"
    assert policy["media-src"] == "blob:"
    for what in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[what] == "'none'"
    for answer in (page, proxy.client.get("/docs")):
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "http" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert "microphone=(self)" in page.headers["permissions-policy"]


def test_files_are_kept_by_browsers_under_their_version_alone(proxy: Proxy) -> None:
    file = proxy.client.get(NAME)
    assert file.headers["content-type"] == "text/javascript; charset=utf-8"
    assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    older = proxy.client.get("/page/000000000000/main.js")
    assert older.headers["cache-control"] == "no-cache"
    assert older.content == file.content
    page = proxy.client.get("/", headers={"Accept": BROWSER})
    assert page.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_file_that_is_there_already_is_not_sent_again(proxy: Proxy, encoding: str) -> None:
    headers = {"Accept-Encoding": encoding}
    with proxy.client.stream("GET", NAME, headers=headers) as answer:
        sent = b"".join(answer.iter_raw())
    compressed = answer.headers.get("content-encoding") == "gzip"
    assert compressed == (encoding == "gzip")
    content = gzip.decompress(sent) if compressed else sent
    assert content == files.page_files()["main.js"].content
    tag = answer.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = proxy.client.get(NAME, headers=headers | {"If-None-Match": known})
        assert again.status_code == 304
        assert not again.content
        assert again.headers["etag"] == tag
    other = proxy.client.get(NAME, headers=headers | {"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "name", ["", "nothing.js", "../routes.py", "%2e%2e/routes.py", "index.html", "strings"]
)
def test_no_other_file_can_be_had(proxy: Proxy, name: str) -> None:
    assert proxy.get(f"/page/{files.version()}/{name}").json()["code"] == "not_found"


def test_the_documentation_is_made_of_what_this_server_has(proxy: Proxy) -> None:
    page = proxy.get("/docs")
    assert "https://" not in page.text
    linked = re.findall(r'(?:href|src)="(page/[^"]+)"', page.text)
    assert len(linked) == 4
    for each in linked:
        answer = proxy.client.get(f"/{each}")
        assert answer.status_code == 200
        assert len(answer.content) > 200
        assert answer.headers["x-content-type-options"] == "nosniff"
    bundle = next(each for each in linked if each.endswith("bundle.js"))
    assert b"SwaggerUIBundle" in proxy.client.get(f"/{bundle}").content


def test_browsers_find_an_icon(proxy: Proxy) -> None:
    icon = proxy.client.get("/favicon.ico")
    assert icon.headers["content-type"] == "image/png"
    assert icon.content.startswith(b"\x89PNG")


def test_pages_are_counted_by_route_and_not_by_name(proxy: Proxy) -> None:
    proxy.client.get(NAME, headers={"X-Request-ID": "of-a-file"})
    assert proxy.await_event("of-a-file")["route"] == "/page/{version}/{name:path}"
    proxy.client.get("/", headers={"Accept": BROWSER, "X-Request-ID": "of-the-page"})
    assert proxy.await_event("of-the-page")["route"] == "/"


def test_the_page_is_no_part_of_the_description(proxy: Proxy) -> None:
    assert not [path for path in proxy.description["paths"] if "page" in path]
