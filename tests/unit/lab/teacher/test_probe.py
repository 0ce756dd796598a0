"""The probe: it learns accents from labelled clips, drawn by their weights and the seed alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aurea.lab.teacher.encoders import FRAME_SIZE, Frames
from aurea.lab.teacher.probe import (
    AccentProbe,
    CrossFittedProbe,
    LabelledFrames,
    ProbeRecipe,
    norm_of,
    train_probe,
)

SHORT = ProbeRecipe(steps=60, batch_size=16, hidden=16, min_crop_s=0.4, max_crop_s=0.6)


def toy(accent: int, clips: int, seed: int, frames: int = 50) -> list[Frames]:
    """Clips with values that lean one way or the other, under noise, on a large offset."""
    rng = np.random.default_rng((seed, accent))
    made = []
    for _ in range(clips):
        rows = rng.normal(0.0, 1.0, (frames, FRAME_SIZE))
        rows[:, 2:42] += (-0.5, 0.5)[accent]
        rows[:, 1] = 0.25
        made.append((3.0 + 2.0 * rows).astype(np.float16))
    return made


def label(clips: list[Frames], weights: list[float] | None = None) -> LabelledFrames:
    """A label whose clips have one version each, drawn by their weights."""
    chances = np.array(weights or [1.0] * len(clips))
    return LabelledFrames([[frames] for frames in clips], chances / chances.sum(), 0.5)


def guesses(probe: AccentProbe, clips: list[Frames]) -> list[int]:
    """The label that each clip's evidence is for."""
    evidence = probe(torch.from_numpy(np.stack(clips)))
    assert evidence.shape == (len(clips), 2)
    return [int(index) for index in evidence.argmax(dim=-1)]


@pytest.fixture(scope="module")
def labelled() -> list[LabelledFrames]:
    return [label(toy(0, 12, 1)), label(toy(1, 6, 1, frames=30))]


@pytest.mark.slow
def test_a_probe_learns_what_tells_two_labels_apart(
    labelled: list[LabelledFrames],
) -> None:
    probe = train_probe(labelled, [], SHORT)
    for accent in (0, 1):
        assert guesses(probe, toy(accent, 20, seed=9)).count(accent) >= 18
    assert not probe.training
    assert not any(parameter.requires_grad for parameter in probe.parameters())


def test_a_norm_is_over_the_frames_of_all_clips_long_and_short(
    labelled: list[LabelledFrames],
) -> None:
    clips = [frames for found in labelled for (frames,) in found.clips]
    mean, deviation = norm_of(clips)
    rows = torch.from_numpy(np.concatenate(clips).astype(np.float32))
    found = ((rows - mean) / deviation).std(dim=0)
    assert ((rows - mean) / deviation).mean(dim=0).abs().max() < 1e-3
    # What never changes cannot be brought to 1, and must not become endless.
    assert found[1] < 1e-3
    assert (found - 1.0).abs()[torch.arange(FRAME_SIZE) != 1].max() < 1e-2


def test_unlabelled_speech_sets_the_norms_only(
    labelled: list[LabelledFrames],
) -> None:
    alone = train_probe(labelled, [], ProbeRecipe(steps=0))
    beside = train_probe(labelled, [frames + 4 for frames in toy(0, 4, 5)], ProbeRecipe(steps=0))
    assert not torch.equal(alone.get_buffer("mean"), beside.get_buffer("mean"))
    ours, theirs = dict(alone.named_parameters()), dict(beside.named_parameters())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_seed_alone_decides_the_probe(
    labelled: list[LabelledFrames],
) -> None:
    def state(seed: int, disturbance: int) -> list[torch.Tensor]:
        torch.manual_seed(disturbance)
        recipe = ProbeRecipe(
            seed=seed, steps=5, batch_size=8, hidden=8, min_crop_s=0.2, max_crop_s=0.4
        )
        return list(train_probe(labelled, [], recipe).state_dict().values())

    first = state(1, 0)
    assert all(map(torch.equal, first, state(1, 99)))
    assert not all(map(torch.equal, first, state(2, 0)))


def test_a_label_s_clips_are_drawn_by_their_weights() -> None:
    # The heavy clips of both labels say one thing, the light ones the contrary.
    contrary = [
        label([toy(1 - accent, 1, 3)[0], toy(accent, 1, 3)[0]], [1e-6, 1.0]) for accent in (0, 1)
    ]
    probe = train_probe(contrary, [], SHORT)
    for accent in (0, 1):
        assert guesses(probe, toy(accent, 1, 3)) == [accent]


def test_labels_are_drawn_by_their_shares() -> None:
    same = toy(0, 4, 2)
    rare = replace(label(same), share=0.1)
    probe = train_probe([rare, replace(label(same), share=0.9)], [], SHORT)
    shares = probe(torch.from_numpy(np.stack(same))).softmax(dim=-1)
    assert shares[:, 1].mean() > 0.65


def test_every_version_of_a_clip_is_heard() -> None:
    versions = [LabelledFrames([toy(a, 1, 3) + toy(1 - a, 1, 3)], np.ones(1), 0.5) for a in (0, 1)]
    evidence = train_probe(versions, [], SHORT)(torch.from_numpy(np.stack(toy(0, 8, 5))))
    assert evidence.diff().abs().mean() < 1.0, "both labels had the same versions"


def test_the_probe_that_is_served_says_the_mean_of_all_folds(
    labelled: list[LabelledFrames],
) -> None:
    recipes = [replace(SHORT, seed=seed, steps=20) for seed in range(3)]
    folds = CrossFittedProbe(tuple(train_probe(labelled, [], each) for each in recipes), {})
    frames = torch.from_numpy(np.stack(toy(1, 5, 4)))
    weights = folds.weights()
    hidden = torch.relu(frames.float() @ weights["hidden"].T + weights["hidden_bias"])
    served = hidden.mean(dim=1) @ weights["output"].T + weights["output_bias"]
    wanted = torch.stack([probe(frames) for probe in folds.probes]).mean(dim=0)
    assert torch.allclose(served, wanted, atol=1e-4)


def test_a_hidden_layer_is_standardised(labelled: list[LabelledFrames]) -> None:
    folds = CrossFittedProbe((train_probe(labelled, [], SHORT),), {})
    hidden = folds.hidden(torch.from_numpy(np.stack(toy(1, 5, 4)))).flatten(0, 1)
    assert hidden.shape[1] == SHORT.hidden
    assert hidden.mean(dim=0).abs().max() < 1e-4
    assert (hidden.std(dim=0) - 1.0).abs().max() < 0.01
