"""A recipe: each part told once, and given by its name."""

import pytest

from aurea.lab.training.recipe import with_parts
from tests.unit.lab.training.helpers import TINY


def test_any_part_of_a_recipe_can_be_given_by_its_name() -> None:
    found = with_parts(TINY, ["margin=0.3", "embedding_size=12"])
    assert found == TINY.changed(margin=0.3, embedding_size=12)
    assert with_parts(TINY, []) == TINY


@pytest.mark.parametrize("part", ["margn=0.3", "margin", "steps=many", "steps=1.5", "augment=1"])
def test_a_part_that_no_recipe_has_or_of_another_kind_is_refused(part: str) -> None:
    with pytest.raises(SystemExit, match=part):
        with_parts(TINY, [part])
