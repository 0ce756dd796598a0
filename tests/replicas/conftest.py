"""How many clips the replicas are put under."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--requests`, where this folder is named on the command line."""
    parser.addoption(
        "--requests",
        type=int,
        default=600,
        help="clips over a rolling update; the other events take less",
    )
