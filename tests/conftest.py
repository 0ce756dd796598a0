"""How tests are spread over processes, and which signals they meet there."""

import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One process for the tests of a shared service, and for each file that starts its own."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(("tests/e2e/test_start.py", "tests/e2e/test_end.py")):
            return "starts"
        if nodeid.startswith("tests/e2e/"):
            return "services"
        if nodeid.startswith("tests/page/"):
            return "page"
        # These train or judge a model, or start decoders, once in a file for all of its tests.
        if nodeid.startswith(("tests/unit/lab/", "tests/unit/accent/test_decoding_pool.py")):
            return nodeid.partition("::")[0]
        return nodeid


def pytest_configure() -> None:
    """A shell that starts tests in the background has them ignore SIGINT, and so their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Services are started once, and their tests wait for seconds of the clock."""
    return Scheduling(config, log)
