"""How tests are spread over processes, and which signals they meet there."""

import os
import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Threads of torch wait for their next sum in a busy loop, which keeps other processes from theirs
# where there are more of them than cores. Set before torch is there, and handed down to children.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


SHARING = (
    "tests/e2e/",
    "tests/page/",
    "tests/unit/lab/training/",
    "tests/unit/lab/evaluation/",
    "tests/unit/archive/",
)
"""Folders whose files share a service, a browser or a model: one process has all of their tests."""

ALONE = ("tests/e2e/test_end.py", "tests/e2e/test_story.py")
"""Files of such folders with services of their own: a process may have the tests of one."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One process for the tests of files that share something, and for each other file."""

    def _split_scope(self, nodeid: str) -> str:
        # Many files make a model, an archive or a process once, for all of their tests.
        file = nodeid.partition("::")[0]
        if file in ALONE:
            return file
        return next((folder for folder in SHARING if file.startswith(folder)), file)


def pytest_configure() -> None:
    """A shell that starts tests in the background has them ignore SIGINT, and so their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    *(*ALONE, "tests/e2e/", "tests/page/", "tests/unit/lab/training/", "tests/unit/lab/"),
    *("tests/unit/archive/", "tests/unit/accent/", "tests/contract/"),
)
"""What is begun first, so that no process is left alone with it at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest first, in the order in which they lie otherwise."""

    def place(item: pytest.Item) -> int:
        return next(
            (place for place, each in enumerate(LONGEST) if item.nodeid.startswith(each)),
            len(LONGEST),
        )

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Services are started once, and their tests wait for seconds of the clock."""
    # The order is that of `LONGEST`; by the number of tests, the slowest few would come last.
    config.option.loadscopereorder = False
    return Scheduling(config, log)
