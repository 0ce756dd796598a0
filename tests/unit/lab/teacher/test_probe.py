"""The probe: it learns accents from labelled clips, drawn by their weights and the seed alone."""

import numpy as np
import pytest
import torch

from aurea.lab.teacher.encoders import FRAME_SIZE, Frames
from aurea.lab.teacher.probe import AccentProbe, ProbeRecipe, norm_of, train_probe

SHORT = ProbeRecipe(steps=60, batch_size=16, hidden=16, crop_s=0.5)


def toy(accent: int, clips: int, seed: int, frames: int = 50) -> list[tuple[float, Frames]]:
    """Clips with values that lean one way or the other, under noise, on a large offset."""
    rng = np.random.default_rng((seed, accent))
    made = []
    for _ in range(clips):
        rows = rng.normal(0.0, 1.0, (frames, FRAME_SIZE))
        rows[:, 2:42] += (-0.5, 0.5)[accent]
        rows[:, 1] = 0.25
        made.append((1.0, (3.0 + 2.0 * rows).astype(np.float16)))
    return made


def guesses(probe: AccentProbe, clips: list[tuple[float, Frames]]) -> list[int]:
    """The label that each clip's mean evidence is for."""
    rows = torch.from_numpy(np.stack([frames for _, frames in clips]))
    evidence = probe(rows)
    assert evidence.shape == (*rows.shape[:2], 2)
    return [int(index) for index in evidence.mean(dim=1).argmax(dim=-1)]


@pytest.fixture(scope="module")
def labelled() -> dict[str, list[tuple[float, Frames]]]:
    return {"england": toy(0, 12, 1), "us": toy(1, 6, 1, frames=30)}


def test_a_probe_learns_what_tells_two_labels_apart(
    labelled: dict[str, list[tuple[float, Frames]]],
) -> None:
    probe = train_probe(labelled, [], SHORT)
    for accent in (0, 1):
        assert guesses(probe, toy(accent, 20, seed=9)).count(accent) >= 18
    assert not probe.training
    assert not any(parameter.requires_grad for parameter in probe.parameters())


def test_a_norm_is_over_the_frames_of_all_clips_long_and_short(
    labelled: dict[str, list[tuple[float, Frames]]],
) -> None:
    clips = [frames for found in labelled.values() for _, frames in found]
    mean, deviation = norm_of(clips)
    rows = torch.from_numpy(np.concatenate(clips).astype(np.float32))
    found = ((rows - mean) / deviation).std(dim=0)
    assert ((rows - mean) / deviation).mean(dim=0).abs().max() < 1e-3
    # What never changes cannot be brought to 1, and must not become endless.
    assert found[1] < 1e-3
    assert (found - 1.0).abs()[torch.arange(FRAME_SIZE) != 1].max() < 1e-2


def test_unlabelled_speech_sets_the_norms_only(
    labelled: dict[str, list[tuple[float, Frames]]],
) -> None:
    alone = train_probe(labelled, [], ProbeRecipe(steps=0))
    beside = train_probe(labelled, [frames + 4 for _, frames in toy(0, 4, 5)], ProbeRecipe(steps=0))
    assert not torch.equal(alone.get_buffer("mean"), beside.get_buffer("mean"))
    ours, theirs = dict(alone.named_parameters()), dict(beside.named_parameters())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_seed_alone_decides_the_probe(
    labelled: dict[str, list[tuple[float, Frames]]],
) -> None:
    def state(seed: int, disturbance: int) -> list[torch.Tensor]:
        torch.manual_seed(disturbance)
        recipe = ProbeRecipe(seed=seed, steps=5, batch_size=8, hidden=8, crop_s=0.3)
        return list(train_probe(labelled, [], recipe).state_dict().values())

    first = state(1, 0)
    assert all(map(torch.equal, first, state(1, 99)))
    assert not all(map(torch.equal, first, state(2, 0)))


def test_a_label_s_clips_are_drawn_by_their_weights() -> None:
    # The heavy clips of both labels say one thing, the light ones the contrary.
    contrary = {
        name: [(1e-6, toy(1 - accent, 1, 3)[0][1]), (1.0, toy(accent, 1, 3)[0][1])]
        for accent, name in enumerate(("england", "us"))
    }
    probe = train_probe(contrary, [], SHORT)
    for accent in (0, 1):
        assert guesses(probe, toy(accent, 1, 3)) == [accent]
