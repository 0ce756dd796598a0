"""A recipe: each part told once, and given by its name."""

import pytest
from accent.model import Calibration
from pydantic import ValidationError

from aurea.lab.training.recipe import Recipe, recipe_text, with_parts
from tests.unit.lab.training.helpers import TINY


def test_any_part_of_a_recipe_can_be_given_by_its_name() -> None:
    found = with_parts(TINY, ["margin=0.3", "embedding_size=12"])
    assert found == TINY.changed(margin=0.3, embedding_size=12)
    assert with_parts(TINY, []) == TINY


@pytest.mark.parametrize("part", ["margn=0.3", "margin", "steps=many", "steps=1.5", "augment=1"])
def test_a_part_that_no_recipe_has_or_of_another_kind_is_refused(part: str) -> None:
    with pytest.raises(SystemExit, match=part):
        with_parts(TINY, [part])


@pytest.mark.parametrize(
    "parts", [{"steps": 0}, {"batch_size": 0}, {"seed": -1}, {"versions": 0}, {"margn": 0.3}]
)
def test_a_recipe_that_cannot_be_followed_is_refused(parts: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TINY.changed(**parts)


def test_training_ends_at_the_last_step_or_where_it_is_told_to() -> None:
    assert (TINY.last_step, TINY.changed(stop_at=3).last_step) == (14, 3)


def test_a_card_tells_only_what_counted() -> None:
    found = Calibration(12.5, -0.75)
    plain = recipe_text(Recipe(augment=False), found, "ecapa")
    assert "Augmentation of the waveform: none." in plain
    assert "teacher" not in plain
    assert "ended at step" not in plain
    assert "scale 12.5, US bias -0.75" in plain
    taught = recipe_text(Recipe(teacher=True, versions=1, stop_at=7), found, "ecapa")
    assert "divergence from the teacher's posterior" in taught
    assert "ended at step 7" in taught
    assert "versions of each clip" not in taught
    assert "3 versions of each clip" in recipe_text(Recipe(), found, "ecapa")
    probe = recipe_text(Recipe(probe_steps=77), found, "probe")
    assert "77 steps of 96 crops" in probe
    assert "margin" not in probe
