"""How tests are spread over processes: those that share running services stay together."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One process for all end-to-end tests, any for each of the others."""

    def _split_scope(self, nodeid: str) -> str:
        return "services" if nodeid.startswith("tests/e2e/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Services are started once, and their tests wait for seconds of the clock."""
    return Scheduling(config, log)
