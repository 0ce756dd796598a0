"""Weights are read alike in every header that has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.answer.language import preferred
from proxy.http.quality import weighted
from proxy.page.accept import accepts_gzip, prefers_page

WEIGHTS = {
    "": 1.0,
    ";q=1": 1.0,
    ";q=1.000": 1.0,
    ";Q=0.5": 0.5,
    " ; q = 0.501 ": 0.501,
    ";q=0.": 0.0,
    ";level=1;q=0.25": 0.25,
    ";q=0": 0.0,
    ";q=0.000": 0.0,
    ";q=0.3;q=1": 0.3,
}
NO_WEIGHTS = [
    ";q",
    ";q=",
    ";q=nan",
    ";q=inf",
    ";q=x",
    ";q=2",
    ";q=1.001",
    ";q=-0.5",
    ";q=.5",
    ";q=0.1234",
    ";q=0,5",
    ";q=1e-1",
]


@pytest.mark.parametrize(("parameters", "weight"), WEIGHTS.items())
def test_a_weight_is_from_0_to_1_with_three_digits(parameters: str, weight: float) -> None:
    assert list(weighted(f"Value{parameters}")) == [("value", weight)]


@pytest.mark.parametrize("parameters", NO_WEIGHTS)
def test_what_is_no_weight_is_a_refusal_in_every_header(parameters: str) -> None:
    assert next(weighted(f"value{parameters}")) == ("value", 0.0)
    assert not prefers_page([f"text/html{parameters}"])
    assert not accepts_gzip(f"gzip{parameters}")
    assert preferred(f"id{parameters}") == "en"
    assert preferred(f"en{parameters}, id;q=0.001") == "id"


def test_the_values_of_a_list_come_in_their_order() -> None:
    assert list(weighted("B;q=0.1 ,, a")) == [("b", 0.1), ("", 1.0), ("a", 1.0)]


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_is_too_odd(header: str) -> None:
    assert all(0.0 <= weight <= 1.0 for _, weight in weighted(header))
    assert preferred(header) in ("en", "id")
