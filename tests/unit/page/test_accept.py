"""Who gets the page, and who the document."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.page.accept import accepts_gzip, prefers_page

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    "accept",
    [
        [CHROME],
        ["text/html"],
        ["TEXT/HTML ; Charset=utf-8"],
        ["text/*"],
        ["text/html, application/json;q=0.9"],
        ["application/json;q=0.5", "text/html;q=0.501"],
        ["*/*;q=0.1, text/html;q=0.2"],
        ["application/json;q=0, */*"],
    ],
)
def test_a_page_goes_to_who_would_rather_have_it(accept: list[str]) -> None:
    assert prefers_page(accept)


@pytest.mark.parametrize(
    "accept",
    [
        [],
        [""],
        ["*/*"],
        ["application/json"],
        ["application/*"],
        ["application/json, text/html"],
        ["text/html;q=0.8, application/json;q=0.9"],
        ["text/html;q=0.5, */*"],
        ["text/html;q=0, */*;q=0"],
        ["text/html;q=0"],
        ["text/*;q=0.9, text/html;q=0.1, application/json;q=0.5"],
        ["text/html;q=2"],
        ["text/html;q=0.1234"],
        ["text/html;q=nan"],
        ["image/png"],
        ["text"],
        ["text/htmlx"],
    ],
)
def test_all_others_get_the_document_as_before(accept: list[str]) -> None:
    assert not prefers_page(accept)


@given(st.lists(st.text(st.characters(max_codepoint=255))))
def test_no_header_is_too_odd(accept: list[str]) -> None:
    prefers_page(accept)
    for each in accept:
        accepts_gzip(each)


@given(st.permutations(CHROME.split(",")))
def test_the_order_of_ranges_says_nothing(ranges: list[str]) -> None:
    assert prefers_page([",".join(ranges)])
    assert prefers_page(ranges)


@pytest.mark.parametrize(
    ("accept_encoding", "accepted"),
    [
        ("gzip, deflate, br, zstd", True),
        ("GZIP", True),
        ("*", True),
        ("gzip;q=0.1", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=x", False),
    ],
)
def test_only_who_reads_gzip_gets_it(accept_encoding: str, accepted: bool) -> None:
    assert accepts_gzip(accept_encoding) is accepted
