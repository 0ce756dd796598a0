"""Batches: what is drawn how often, and that what the teacher said is read at the right times."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aurea.lab.corpus import Clip, read_clips
from aurea.lab.features import prepare
from aurea.lab.features.augment import crop_at
from aurea.lab.features.prepare import PreparedClip
from aurea.lab.teacher.encoders import (
    FIRST_CENTRE_S,
    FRAME_SIZE,
    HOP_S,
    SOUND_HOP_S,
    SOUND_SIZE,
)
from aurea.lab.teacher.probe import AccentProbe, CrossFittedProbe, ProbeRecipe, norm_of
from aurea.lab.training import sampler
from aurea.lab.training.sampler import Batch, Sampler, drawing, frames_at
from tests.stand_ins import prepared_clip, ramp
from tests.unit.lab.training.helpers import LABELS, TAUGHT, TINY, clock_clip


def prepared(
    accent: str, speaker: str, *, seconds: float = 1.0, kind: str = "recorded", value: float = 0.0
) -> PreparedClip:
    """A clip whose features are one number, by which a crop of it is known."""
    features = np.full((round(100 * seconds), 24), value, np.float16)
    clip = Clip(Path(f"{speaker}.wav"), accent, speaker, kind, "")
    return prepared_clip(clip, [features])


PLAIN = TINY.changed(augment=False, batch_size=40)


def drawn(clips: Sequence[PreparedClip], steps: int = 20) -> Counter[float]:
    """How often each clip was drawn, by its number."""
    draws = Sampler(clips, [], LABELS, PLAIN)
    found: Counter[float] = Counter()
    for step in range(steps):
        found.update(round(value) for value in draws.batch(step).features[:, 0, 0].tolist())
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_batches_are_balanced_and_a_step_s_batch_is_always_the_same(
    data: Path, cache: Path
) -> None:
    plan = prepare.Plan(TINY.n_mels, TINY.versions, TINY.seed, teacher=False)
    clips = prepare.prepare(read_clips(data), plan, jobs=1, title="clips", cache=cache)
    # One label with a quarter of the clips must still be half of a batch.
    uneven = [c for c in clips if c.clip.accent == "us" or c.clip.speaker == "england/england0"]
    draws = Sampler(uneven, [], LABELS, TINY)
    batch, again, other = draws.batch(7), draws.batch(7), draws.batch(8)
    assert torch.bincount(batch.targets).tolist() == [2, 2]
    assert torch.equal(batch.features, again.features)
    assert torch.equal(batch.targets, again.targets)
    assert batch.features.shape != other.features.shape or not torch.equal(
        batch.features, other.features
    )
    assert bool(torch.isfinite(batch.features).all())
    assert 40 <= batch.features.shape[1] <= 60
    assert batch.posterior is None


def test_a_target_is_the_label_of_what_is_heard() -> None:
    clips = [prepared("us", "u", value=1.0), prepared("england", "e", value=0.0)]
    for step in range(4):
        batch = Sampler(clips, [], LABELS, PLAIN).batch(step)
        assert torch.equal(batch.features[:, 0, 0].round().long(), batch.targets)


def test_speakers_are_drawn_alike_however_many_clips_they_have() -> None:
    clips = [prepared("us", "busy", value=1.0) for _ in range(9)]
    found = drawn([*clips, prepared("us", "shy", value=2.0), prepared("england", "e")])
    assert found[1.0] / found[2.0] == pytest.approx(1.0, abs=0.35)


def test_a_corpus_is_drawn_by_the_root_of_its_speakers() -> None:
    real = prepared("us", "u", value=1.0)
    made = [prepared("us", f"k{index}", kind="kokoro", value=2.0) for index in range(9)]
    found = drawn([real, *made, prepared("england", "e")], steps=40)
    assert found[2.0] / found[1.0] == pytest.approx(3.0, rel=0.25)
    assert found[0.0] == found[1.0] + found[2.0]


def test_corpora_of_one_kind_are_told_apart() -> None:
    clips = [prepared("us", f"a{index}") for index in range(4)] + [prepared("us", "b")]
    apart = [replace(c, clip=replace(c.clip, corpus=c.clip.speaker[0])) for c in clips]
    assert drawing(clips, "us", 1.0).chances.tolist() == pytest.approx([0.2] * 5)
    assert drawing(apart, "us", 1.0).chances[-1] == pytest.approx(1 / 3)


def test_a_weak_label_is_drawn_by_its_weight_and_never_without_one() -> None:
    known, weak = prepared("us", "known"), prepared("us", "weak")
    weak = replace(weak, clip=replace(weak.clip, certainty="weak"))
    assert drawing([known, weak], "us", 0.25).chances.tolist() == pytest.approx([0.8, 0.2])
    assert drawing([known, weak], "us", 0.0).chances.tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(("share", "wanted"), [(0.5, [10, 20, 10]), (0.2, [16, 8, 16])])
def test_us_has_its_share_and_the_other_labels_the_rest_alike(
    share: float, wanted: list[int]
) -> None:
    labels = ("england", "us", "wales")
    clips = [prepared(label, label) for label in labels]
    batch = Sampler(clips, [], labels, PLAIN.changed(us_share=share)).batch(3)
    assert torch.bincount(batch.targets).tolist() == wanted


def test_a_label_of_which_nothing_could_be_decoded_is_named() -> None:
    with pytest.raises(SystemExit, match="label england: no clip"):
        Sampler([prepared("us", "u")], [], LABELS, TINY)


class Echo(AccentProbe):
    """Keeps what it hears; its evidence is a frame's first values."""

    def __init__(self) -> None:
        super().__init__(len(LABELS), ProbeRecipe())
        self.heard: list[Tensor] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.heard.append(frames)
        return frames[..., : len(LABELS)].mean(dim=-2)

    def pre_activations(self, frames: Tensor) -> Tensor:
        return frames[..., :4]


def alone(probe: AccentProbe | None) -> CrossFittedProbe | None:
    return None if probe is None else CrossFittedProbe((probe,), {})


@pytest.mark.parametrize(("first_s", "hop_s"), [(FIRST_CENTRE_S, HOP_S), (0.0, SOUND_HOP_S)])
def test_frames_are_read_between_their_centres_and_held_at_both_ends(
    first_s: float, hop_s: float
) -> None:
    frames = ramp(2.0, first_s, hop_s, 5)
    last_s = first_s + hop_s * (len(frames) - 1)
    times_s = torch.tensor([0.0, first_s, 0.1, 0.777, 1.5, last_s, 1.999, 50.0])
    found = frames_at(frames, times_s, first_s, hop_s)
    assert found.shape == (8, 5)
    assert found.dtype == torch.float32
    wanted = times_s.clamp(first_s, last_s)[:, None].expand_as(found)
    assert torch.allclose(found, wanted, atol=1e-3)
    alone = frames_at(frames[:1], times_s, first_s, hop_s)
    assert torch.equal(alone, torch.from_numpy(frames[:1]).float().expand_as(alone))


def check_times(batch: Batch, probe: Echo, clips: Sequence[PreparedClip]) -> None:
    """Both of the teacher's were read when every other frame of the crop was heard."""
    assert batch.sounds is not None
    mean, deviation = norm_of([clip.sounds for clip in clips])
    half = math.ceil(batch.features.shape[1] / 2)
    frames = probe.heard[-1]
    assert frames.shape == (8, half, FRAME_SIZE)
    assert batch.sounds.shape == (8, half, SOUND_SIZE)
    for row, target in enumerate(batch.targets.tolist()):
        times_s = batch.features[row, ::2, 0]
        clip = next(clip for clip in clips if clip.clip.accent == LABELS[target])
        for heard_s, known in (
            (frames[row], clip.frames[0]),
            (batch.sounds[row] * deviation + mean, clip.sounds),
        ):
            wanted_s = times_s.clamp(float(known[0, 0]), float(known[-1, 0]))
            assert torch.allclose(heard_s[:, 0], wanted_s, atol=4e-3)


@pytest.mark.parametrize("speed", [1.0, 16.0 / 14.4, 16.0 / 17.6])
@pytest.mark.parametrize("tempo", [0.9, 1.0, 1.1])
def test_the_teacher_is_heard_at_the_time_of_every_other_frame(
    speed: float, tempo: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sampler,
        "perturbed_crop",
        lambda features, frames, rng: crop_at(features, frames, rng.uniform(), tempo),
    )
    # One clip is shorter than the crop, and is heard again from its start.
    clips = [clock_clip("us", "u", 2.0, (speed,)), clock_clip("england", "e", 0.45, (speed,))]
    probe = Echo()
    draws = Sampler(clips, [], LABELS, TAUGHT, alone(probe))
    for step in range(5):
        check_times(draws.batch(step), probe, clips)


def test_each_version_is_read_at_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = 16.0 / 14.4, 16.0 / 17.6
    clips = [clock_clip(accent, accent, 2.0, (1.0, fast, slow)) for accent in LABELS]
    lengths: list[int] = []

    def plain(features: Tensor, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        lengths.append(len(features))
        return crop_at(features, frames, rng.uniform(), 1.0)

    monkeypatch.setattr(sampler, "perturbed_crop", plain)
    probe = Echo()
    for step in range(4):
        check_times(Sampler(clips, [], LABELS, TAUGHT, alone(probe)).batch(step), probe, clips)
    assert set(lengths) == {200, round(200 / fast), round(200 / slow)}


def test_the_posterior_is_what_the_probe_says_of_the_whole_crop() -> None:
    rng = np.random.default_rng(0)
    clips = [
        replace(
            clock_clip(accent, accent, 1.5),
            frames=(rng.normal(size=(60, FRAME_SIZE)).astype(np.float16),),
            sounds=rng.normal(4.0, 3.0, size=(19, SOUND_SIZE)).astype(np.float16),
        )
        for accent in LABELS
    ]
    probe = Echo()
    draws = Sampler(clips, [], LABELS, TAUGHT, alone(probe))
    batches = [draws.batch(step) for step in range(10)]
    for batch, frames in zip(batches, probe.heard, strict=True):
        assert batch.posterior is not None
        wanted = frames[..., :2].mean(dim=1).softmax(dim=-1)
        assert torch.allclose(batch.posterior, wanted, atol=1e-5)
    sounds = torch.cat(
        [found.flatten() for batch in batches if (found := batch.sounds) is not None]
    )
    # Between two frames noise is quieter than at either.
    assert float(sounds.mean()) == pytest.approx(0.0, abs=0.1)
    assert 0.6 < float(sounds.std()) < 1.05


def test_unlabelled_clips_take_their_share_of_a_batch_where_a_teacher_tells_of_them() -> None:
    labelled = [clock_clip(accent, accent, 1.0) for accent in LABELS]
    unlabelled = [clock_clip("", "nobody", 1.0)]

    def targets(others: Sequence[PreparedClip], probe: AccentProbe | None) -> list[int]:
        batch = Sampler(labelled, others, LABELS, TAUGHT, alone(probe)).batch(0)
        assert (batch.posterior is None) is (batch.sounds is None) is (probe is None)
        return sorted(batch.targets.tolist())

    assert targets(unlabelled, Echo()) == [-1, -1, 0, 0, 0, 1, 1, 1]
    assert targets([], Echo()) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert targets(unlabelled, None) == [0, 0, 0, 0, 1, 1, 1, 1]
