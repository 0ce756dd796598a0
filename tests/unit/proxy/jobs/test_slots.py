"""How many jobs one client may have, and all together."""

from contextlib import ExitStack

import pytest

from proxy.jobs.slots import JobSlots
from proxy.problems import Problem


def test_a_client_has_so_many_and_all_together_so_many_and_no_more() -> None:
    slots = JobSlots(3, 2)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(slots.slot("ana"))
        with pytest.raises(Problem, match="You have 2 jobs"):
            slots.check_room("ana")
        with slots.slot("budi"), pytest.raises(Problem, match="as many jobs as may be"):
            held.enter_context(slots.slot("budi"))
        slots.check_room("budi")
    slots.check_room("ana")
