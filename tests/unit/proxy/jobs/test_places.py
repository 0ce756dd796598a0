"""Where jobs are kept where one process keeps them all."""

import re

from proxy.jobs.places import JobPlaces


def test_ids_are_long_and_never_the_same() -> None:
    ids = {JobPlaces().new_id() for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", each) for each in ids)
