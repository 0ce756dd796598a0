"""The steps: their rate, their device, and what the seed decides."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from aurea.lab.training import loop
from aurea.lab.training.distillation import Student
from aurea.lab.training.loop import descend, learning_rate
from aurea.lab.training.model import CARD_FILE
from aurea.lab.training.network import new_network
from tests.unit.lab.training.helpers import (
    N_MELS,
    TAUGHT,
    TINY,
    logged,
    logged_steps,
    make,
    same_weights,
    taught_batch,
)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    data: Path, trained: Path, cache: Path, tmp_path: Path
) -> None:
    # Features of its own: preparing them is part of what the seed decides.
    make(data, tmp_path / "again", tmp_path / "features")
    assert same_weights(trained, tmp_path / "again")
    make(data, tmp_path / "other", cache, TINY.changed(seed=1))
    assert not same_weights(trained, tmp_path / "other")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_run_that_is_to_stop_early_takes_the_same_steps_up_to_there(
    data: Path, trained: Path, cache: Path, tmp_path: Path
) -> None:
    make(data, tmp_path, cache, TINY.changed(stop_at=10))
    assert logged_steps(tmp_path) == [10]
    assert logged(tmp_path)[0]["loss"] == logged(trained)[0]["loss"]
    assert "ended at step 10" in (tmp_path / CARD_FILE).read_text()


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    recipe = TINY.changed(steps=100, warmup=0.1, learning_rate=0.5)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[9] == 0.5
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3
    kept = [learning_rate(recipe.changed(decay_to=0.4), step) for step in range(100)]
    assert kept[:10] == rates[:10]
    assert kept[-1] == pytest.approx(0.4 * 0.5, abs=1e-3)


@pytest.mark.slow
def test_a_step_computes_on_the_device_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On `meta`, which holds no values and refuses, as a GPU does, what lies on the CPU."""
    meta = torch.device("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    # Which crops have a label depends on values.
    monkeypatch.setattr(
        loop, "losses_of", lambda _, *found: {"all": sum(part.sum() for part in found[:3])}
    )
    recipe = TAUGHT.changed(n_mels=N_MELS)
    student = Student(new_network(recipe, 2, None)).to(meta)
    optimizer = torch.optim.AdamW(student.parameters())
    batch = taught_batch().to(meta)
    parts, accuracy = descend(student, optimizer, batch, recipe, 0)
    assert {tensor.device for tensor in (*parts.values(), accuracy)} == {meta}
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert batch.sounds is not None
    assert batch.posterior is not None
    assert {t.device for t in (batch.targets, batch.sounds, batch.posterior)} == {meta}
    with pytest.raises(RuntimeError, match="meta"):
        descend(student, optimizer, taught_batch(), recipe, 0)
