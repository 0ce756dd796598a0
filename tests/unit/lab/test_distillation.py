"""Learning from a teacher: what it said is read at the right times, and counts as it should."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accent.layout import MODEL_FILES
from accent.loading import load_model
from torch import Tensor

from aurea.lab import train
from aurea.lab.augment import crop_at
from aurea.lab.corpus import Clip, read_clips
from aurea.lab.prepare import PreparedClip
from aurea.lab.teacher import (
    FIRST_CENTRE_S,
    FRAME_SIZE,
    HOP_S,
    SOUND_HOP_S,
    SOUND_SIZE,
    AccentProbe,
    CrossFittedProbe,
    Frames,
    ProbeRecipe,
    norm_of,
    train_probe,
)
from tests.clips import encode, voice
from tests.stand_ins import prepared_clip, ramp, use_stand_in_teacher

LABELS = ("england", "us")
N_MELS = 8
RECIPE = train.Recipe(
    steps=40,
    batch_size=8,
    channels=16,
    embedding_size=8,
    attention_channels=8,
    n_mels=24,
    min_crop_s=0.4,
    max_crop_s=0.6,
    learning_rate=3e-3,
    versions=2,
    teacher=True,
    unlabelled_share=0.25,
)
LOSSES = ("margin", "divergence", "sounds")


class Echo(AccentProbe):
    """Keeps what it hears; its evidence is a frame's first values."""

    def __init__(self) -> None:
        super().__init__(len(LABELS), ProbeRecipe())
        self.heard: list[Tensor] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.heard.append(frames)
        return frames[..., : len(LABELS)]


class Says(AccentProbe):
    """Gives every frame the same evidence, that of its number."""

    def __init__(self, number: int) -> None:
        super().__init__(len(LABELS), ProbeRecipe())
        self.evidence_of = torch.tensor([0.0, 0.3 * number])

    @property
    def says(self) -> Tensor:
        return self.evidence_of.softmax(dim=-1)

    def forward(self, frames: Tensor) -> Tensor:
        return self.evidence_of.expand(*frames.shape[:-1], -1)


def alone(probe: AccentProbe | None) -> CrossFittedProbe | None:
    return None if probe is None else CrossFittedProbe((probe,), {})


def told(accent: str, name: str, seconds: float, speeds: Sequence[float] = (1.0,)) -> PreparedClip:
    """A clip whose features say, in seconds of the clip itself, when they were heard."""
    versions = [
        (np.arange(round(100 * seconds / speed)) / 100 * speed)[:, None].repeat(N_MELS, axis=1)
        for speed in speeds
    ]
    clip = Clip(Path(f"{name}.wav"), accent, name, "recorded", "")
    return prepared_clip(
        clip, [version.astype(np.float16) for version in versions], speeds, duration_s=seconds
    )


@pytest.mark.parametrize(("first_s", "hop_s"), [(FIRST_CENTRE_S, HOP_S), (0.0, SOUND_HOP_S)])
def test_frames_are_read_between_their_centres_and_held_at_both_ends(
    first_s: float, hop_s: float
) -> None:
    frames = ramp(2.0, first_s, hop_s, 5)
    last_s = first_s + hop_s * (len(frames) - 1)
    times_s = torch.tensor([0.0, first_s, 0.1, 0.777, 1.5, last_s, 1.999, 50.0])
    found = train.frames_at(frames, times_s, first_s, hop_s)
    assert found.shape == (8, 5)
    assert found.dtype == torch.float32
    wanted = times_s.clamp(first_s, last_s)[:, None].expand_as(found)
    assert torch.allclose(found, wanted, atol=1e-3)
    alone = train.frames_at(frames[:1], times_s, first_s, hop_s)
    assert torch.equal(alone, torch.from_numpy(frames[:1]).float().expand_as(alone))


def check_times(batch: train.Batch, probe: Echo, clips: Sequence[PreparedClip]) -> None:
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
            (frames[row], clip.frames),
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
        train,
        "perturbed_crop",
        lambda features, frames, rng: crop_at(features, frames, rng.uniform(), tempo),
    )
    # One clip is shorter than the crop, and is heard again from its start.
    clips = [told("us", "u", 2.0, (speed,)), told("england", "e", 0.45, (speed,))]
    probe = Echo()
    sampler = train.Sampler(clips, [], LABELS, RECIPE, alone(probe))
    for step in range(5):
        check_times(sampler.batch(step), probe, clips)


def test_each_version_is_read_at_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = 16.0 / 14.4, 16.0 / 17.6
    clips = [told(accent, accent, 2.0, (1.0, fast, slow)) for accent in LABELS]
    lengths: list[int] = []

    def plain(features: Tensor, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        lengths.append(len(features))
        return crop_at(features, frames, rng.uniform(), 1.0)

    monkeypatch.setattr(train, "perturbed_crop", plain)
    probe = Echo()
    for step in range(4):
        check_times(
            train.Sampler(clips, [], LABELS, RECIPE, alone(probe)).batch(step), probe, clips
        )
    assert set(lengths) == {200, round(200 / fast), round(200 / slow)}


def test_the_posterior_is_what_the_probe_says_of_the_whole_crop() -> None:
    rng = np.random.default_rng(0)
    clips = [
        replace(
            told(accent, accent, 1.5),
            frames=rng.normal(size=(60, FRAME_SIZE)).astype(np.float16),
            sounds=rng.normal(4.0, 3.0, size=(19, SOUND_SIZE)).astype(np.float16),
        )
        for accent in LABELS
    ]
    probe = Echo()
    sampler = train.Sampler(clips, [], LABELS, RECIPE, alone(probe))
    batches = [sampler.batch(step) for step in range(10)]
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
    labelled = [told(accent, accent, 1.0) for accent in LABELS]
    unlabelled = [told("", "nobody", 1.0)]

    def targets(others: Sequence[PreparedClip], probe: AccentProbe | None) -> list[int]:
        batch = train.Sampler(labelled, others, LABELS, RECIPE, alone(probe)).batch(0)
        assert (batch.posterior is None) is (batch.sounds is None) is (probe is None)
        return sorted(batch.targets.tolist())

    assert targets(unlabelled, Echo()) == [-1, -1, 0, 0, 0, 1, 1, 1]
    assert targets([], Echo()) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert targets(unlabelled, None) == [0, 0, 0, 0, 1, 1, 1, 1]


def guesses() -> tuple[Tensor, Tensor]:
    """Cosines of four crops, and a pupil's sounds."""
    generator = torch.Generator().manual_seed(0)
    cosines = 0.6 * torch.tanh(torch.randn((4, 1, 2), generator=generator))
    return cosines, torch.randn((4, 5, SOUND_SIZE), generator=generator)


def taught(targets: Sequence[int] = (-1, 1, 0, 1)) -> train.Batch:
    generator = torch.Generator().manual_seed(9)
    return train.Batch(
        torch.zeros(4, 10, N_MELS),
        torch.tensor(targets),
        sounds=torch.randn((4, 5, SOUND_SIZE), generator=generator),
        posterior=torch.rand((4, 2), generator=generator).softmax(dim=-1),
    )


def margin_of(cosines: Tensor, targets: Tensor, recipe: train.Recipe) -> Tensor:
    """The angular margin (Deng et al., 2019) in its plainest form."""
    angles = torch.acos(cosines)
    hit = torch.nn.functional.one_hot(targets, cosines.shape[1]).bool()
    logits = recipe.scale * torch.cos(torch.where(hit, angles + recipe.margin, angles))
    return torch.nn.functional.cross_entropy(logits, targets)


def test_without_a_teacher_the_loss_is_the_margin_loss_whatever_the_step() -> None:
    targets = (0, 1, 0, 1)
    batch = replace(taught(targets), sounds=None, posterior=None)
    cosines, sounds = guesses()
    wanted = margin_of(cosines.squeeze(1), torch.tensor(targets), RECIPE)
    for step in (0, 1, RECIPE.steps - 1):
        parts = train.losses_of(batch, cosines, sounds, RECIPE, step)
        assert list(parts) == ["margin"]
        assert float(parts["margin"]) == pytest.approx(float(wanted), rel=1e-5)


def test_each_part_of_the_loss_has_its_weight() -> None:
    plain = replace(RECIPE, margin_weight=1.0, posterior_weight=1.0, sound_weight=1.0)
    heavy = replace(RECIPE, margin_weight=2.0, posterior_weight=3.0, sound_weight=5.0)
    ones = train.losses_of(taught(), *guesses(), plain, plain.steps)
    weighed = train.losses_of(taught(), *guesses(), heavy, heavy.steps)
    assert tuple(ones) == LOSSES
    for name, weight in zip(LOSSES, (2.0, 3.0, 5.0), strict=True):
        assert float(weighed[name]) == pytest.approx(weight * float(ones[name]), rel=1e-5)
    batch, (cosines, sounds) = taught(), guesses()
    known = margin_of(cosines[1:].squeeze(1), batch.targets[1:], RECIPE)
    assert float(ones["margin"]) == pytest.approx(float(known), rel=1e-5)
    assert batch.sounds is not None
    assert float(ones["sounds"]) == pytest.approx(float(((sounds - batch.sounds) ** 2).mean()))


def test_labels_and_posterior_come_in_over_the_first_part_of_the_steps() -> None:
    recipe = replace(RECIPE, steps=100, labels_after=0.4)

    def at(step: int, recipe: train.Recipe = recipe) -> dict[str, float]:
        parts = train.losses_of(taught(), *guesses(), recipe, step)
        return {name: float(part) for name, part in parts.items()}

    for name, shares in {
        "margin": (0.0, 0.5, 1.0, 1.0),
        "divergence": (0.0, 0.5, 1.0, 1.0),
        "sounds": (1.0, 1.0, 1.0, 1.0),
    }.items():
        found = [at(step)[name] / at(99)[name] for step in (0, 20, 40, 70)]
        assert found == pytest.approx(shares, abs=1e-5)
    at_once = replace(recipe, labels_after=0.0)
    assert at(1, at_once) == at(99, at_once)


def test_clips_without_a_label_count_only_through_the_teacher() -> None:
    cosines, sounds = (tensor.requires_grad_() for tensor in guesses())
    parts = train.losses_of(taught(), cosines, sounds, RECIPE, RECIPE.steps)

    def pull(name: str, of: Tensor) -> list[bool]:
        """Whether a part of the loss asks anything of each crop."""
        (found,) = torch.autograd.grad(parts[name], of, retain_graph=True)
        return [bool(row.any()) for row in found]

    assert pull("margin", cosines) == [False, True, True, True]
    assert pull("divergence", cosines) == [True] * 4
    assert pull("sounds", sounds) == [True] * 4


def test_a_pupil_that_says_what_the_teacher_says_has_nothing_left_to_learn_from_it() -> None:
    batch = taught()
    assert batch.sounds is not None
    assert batch.posterior is not None
    cosines = (batch.posterior.log() / RECIPE.scale)[:, None]
    parts = train.losses_of(batch, cosines, batch.sounds, RECIPE, RECIPE.steps)
    for name in ("divergence", "sounds"):
        assert float(parts[name]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("frames", [40, 41])
def test_a_pupil_answers_for_the_crop_and_for_every_other_frame(frames: int) -> None:
    network = train.new_network(RECIPE, 2, None)
    pupil = train.Pupil(network).eval()
    features = torch.randn(3, frames, RECIPE.n_mels)
    with torch.inference_mode():
        cosines, sounds = pupil(features)
        embeddings = network.embedding_model(features, torch.ones(3))
        assert torch.allclose(cosines, network.classifier(embeddings), atol=1e-6)
        # Training computes in bfloat16, and must not see anything else for it.
        with torch.autocast("cpu", torch.bfloat16):
            rough, rough_sounds = pupil(features)
        assert torch.allclose(rough.float(), cosines, atol=0.03)
        assert torch.allclose(rough_sounds, sounds, atol=0.1)
    assert cosines.shape == (3, 1, 2)
    assert sounds.shape == (3, math.ceil(frames / 2), SOUND_SIZE)


def test_a_step_computes_on_the_device_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On `meta`, which holds no values and refuses, as a GPU does, what lies on the CPU."""
    meta = torch.device("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    # Which crops have a label depends on values.
    monkeypatch.setattr(
        train, "losses_of", lambda _, cosines, sounds, *__: {"all": cosines.sum() + sounds.sum()}
    )
    recipe = replace(RECIPE, n_mels=N_MELS)
    pupil = train.Pupil(train.new_network(recipe, 2, None)).to(meta)
    optimizer = torch.optim.AdamW(pupil.parameters())
    batch = taught().to(meta)
    parts, accuracy = train.descend(pupil, optimizer, batch, recipe, 0)
    assert {tensor.device for tensor in (*parts.values(), accuracy)} == {meta}
    assert all(parameter.grad is not None for parameter in pupil.parameters())
    assert batch.sounds is not None
    assert batch.posterior is not None
    assert {t.device for t in (batch.targets, batch.sounds, batch.posterior)} == {meta}
    with pytest.raises(RuntimeError, match="meta"):
        train.descend(pupil, optimizer, taught(), recipe, 0)


def test_the_probe_hears_clips_as_often_as_the_sampler_draws_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Mapping[str, Sequence[tuple[float, Frames]]], Sequence[Frames]]] = []
    monkeypatch.setattr(train, "train_probe", lambda *arguments: seen.append(arguments))

    def clip(name: str, seconds: float, kind: str = "recorded") -> PreparedClip:
        made = told("us", name, seconds)
        return replace(made, clip=replace(made.clip, kind=kind))

    busy = [clip("busy", 0.25), clip("busy", 0.25)]
    rest = [clip("shy", 0.5), *(clip(f"k{index}", 4.0, "kokoro") for index in range(2))]
    other = told("", "nobody", 1.0)
    train.probe_for([*busy, *rest, told("england", "e", 1.0)], [other], LABELS)
    ((by_label, others),) = seen
    assert list(by_label) == list(LABELS)
    assert [weight for weight, _ in by_label["us"]] == pytest.approx([0.25, 0.25, 0.5, 1.0, 1.0])
    assert [id(frames) for _, frames in by_label["us"]] == [id(c.frames) for c in [*busy, *rest]]
    assert others == [other.frames]


def test_no_probe_grades_a_voice_that_it_was_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained_on: list[set[int]] = []

    def keep(by_label: Mapping[str, Sequence[tuple[float, Frames]]], _: object) -> AccentProbe:
        assert all(by_label.values())
        trained_on.append({id(frames) for clips in by_label.values() for _, frames in clips})
        return Says(len(trained_on))

    monkeypatch.setattr(train, "train_probe", keep)
    clips = [told(accent, f"{accent}{n}", 1.0) for accent in LABELS for n in range(7)]
    probe = train.probe_for([*clips, told("us", "us0", 0.5)], [], LABELS)
    assert len(probe.probes) == train.MAX_PROBE_FOLDS
    names = [clip.clip.speaker for clip in clips]
    rows = probe.posterior(torch.zeros(len(clips), 3, FRAME_SIZE), names)
    for clip, row in zip(clips, rows, strict=True):
        (grader,) = [n for n in range(5) if torch.allclose(row, Says(n + 1).says)]
        assert id(clip.frames) not in trained_on[grader]
        assert sum(id(clip.frames) in heard for heard in trained_on) == 4
    (stranger,) = probe.posterior(torch.zeros(1, 3, FRAME_SIZE), ["stranger"])
    assert torch.allclose(stranger, torch.stack([Says(n + 1).says for n in range(5)]).mean(dim=0))


def test_where_a_label_has_one_speaker_one_probe_hears_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "train_probe", lambda *_: Says(1))
    clips = [told("us", "one", 1.0), *(told("england", f"e{n}", 1.0) for n in range(3))]
    probe = train.probe_for(clips, [], LABELS)
    assert (len(probe.probes), probe.fold_of) == (1, {})


# All of it together, with a stand-in for the recogniser's encoder.


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    for number in range(8):
        accent = LABELS[number % 2]
        path = folder / "labelled" / accent / f"p{number}" / "take.flac"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode(voice(1.0, seed=number), 16_000, "flac"))
    (folder / "more").mkdir()
    for number in (20, 21, 22):
        path = folder / "more" / f"{number}.flac"
        path.write_bytes(encode(voice(1.1, seed=number), 16_000, "flac"))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def make(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, train.Recipe], None]:
    use_stand_in_teacher(monkeypatch)
    short = ProbeRecipe(steps=60, batch_size=16, hidden=16, crop_s=0.5)
    monkeypatch.setattr(train, "train_probe", partial(train_probe, recipe=short))
    monkeypatch.setattr(train, "evaluate_clips", lambda *_, **__: [])
    extra = [replace(clip, licence="CC0") for clip in read_clips(data / "more", unlabelled=True)]

    def call(out: Path, recipe: train.Recipe) -> None:
        train.make_model(
            read_clips(data / "labelled"),
            out,
            recipe,
            labels=LABELS,
            kinds=("recorded",),
            extra=extra,
            cache=cache,
            checkpoint_every=15,
        )

    return call


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / train.LOG_FILE).read_text().splitlines()]


def test_a_model_learns_from_a_teacher_and_a_killed_run_goes_on_doing_so(
    make: Callable[[Path, train.Recipe], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "whole", RECIPE)
    log = logged(tmp_path / "whole")
    assert [line["step"] for line in log] == [10, 20, 30, 40]
    for line in log:
        assert line["loss"] == pytest.approx(sum(line[name] for name in LOSSES), abs=1e-3)
    assert log[-1]["sounds"] < 0.9 * log[0]["sounds"]
    card = (tmp_path / "whole" / train.CARD_FILE).read_text()
    assert "It also learned from" in card
    assert "| training | none | recorded | 3 | 3 |" in card
    assert "| CC0 |" in card
    assert "squared distance from its sounds" in card
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert files == {*MODEL_FILES, train.CARD_FILE, train.LOG_FILE}

    rate = train.learning_rate

    def dies(recipe: train.Recipe, step: int) -> float:
        if step == 33:
            raise KeyboardInterrupt
        return rate(recipe, step)

    monkeypatch.setattr(train, "learning_rate", dies)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "killed", RECIPE)
    monkeypatch.setattr(train, "learning_rate", rate)
    make(tmp_path / "killed", RECIPE)
    ours, theirs = (
        load_model(tmp_path / name).network.state_dict() for name in ("whole", "killed")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [line["loss"] for line in logged(tmp_path / "killed")] == [line["loss"] for line in log]


def test_the_whole_loss_falls_where_labels_count_from_the_start(
    make: Callable[[Path, train.Recipe], None], tmp_path: Path
) -> None:
    make(tmp_path, replace(RECIPE, labels_after=0.0, bf16=False))
    log = logged(tmp_path)
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["divergence"] < log[0]["divergence"]
