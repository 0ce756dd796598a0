"""Learning from a teacher: each part of the loss counts as it should, each probe is fair."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aurea.lab.features.prepare import PreparedClip
from aurea.lab.teacher.encoders import FRAME_SIZE, SOUND_SIZE, Frames
from aurea.lab.teacher.probe import AccentProbe, LabelledFrames, ProbeRecipe
from aurea.lab.training import distillation
from aurea.lab.training.distillation import MAX_PROBE_FOLDS, Student, losses_of, probe_for
from aurea.lab.training.network import new_network
from aurea.lab.training.recipe import Recipe
from tests.unit.lab.training.helpers import LABELS, LOSSES, TAUGHT, clock_clip, taught_batch


class Says(AccentProbe):
    """Gives every frame the same evidence, that of its number."""

    def __init__(self, number: int) -> None:
        super().__init__(len(LABELS), ProbeRecipe())
        self.evidence_of = torch.tensor([0.0, 0.3 * number])

    @property
    def says(self) -> Tensor:
        return self.evidence_of.softmax(dim=-1)

    def forward(self, frames: Tensor) -> Tensor:
        return self.evidence_of.expand(*frames.shape[:-2], -1)


def guesses() -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of four crops, and a student's sounds and hidden layer."""
    generator = torch.Generator().manual_seed(0)
    cosines = 0.6 * torch.tanh(torch.randn((4, 1, 2), generator=generator))
    sounds = torch.randn((4, 5, SOUND_SIZE), generator=generator)
    return cosines, sounds, torch.randn((4, 5, ProbeRecipe.hidden), generator=generator)


def margin_of(cosines: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """The angular margin (Deng et al., 2019) in its plainest form."""
    angles = torch.acos(cosines)
    hit = torch.nn.functional.one_hot(targets, cosines.shape[1]).bool()
    logits = recipe.scale * torch.cos(torch.where(hit, angles + recipe.margin, angles))
    return torch.nn.functional.cross_entropy(logits, targets)


def test_without_a_teacher_the_loss_is_the_margin_loss_whatever_the_step() -> None:
    targets = (0, 1, 0, 1)
    batch = replace(taught_batch(targets), sounds=None, posterior=None, hidden=None)
    cosines, sounds, hidden = guesses()
    wanted = margin_of(cosines.squeeze(1), torch.tensor(targets), TAUGHT)
    for step in (0, 1, TAUGHT.steps - 1):
        parts = losses_of(batch, cosines, sounds, hidden, TAUGHT, step)
        assert list(parts) == ["margin"]
        assert float(parts["margin"]) == pytest.approx(float(wanted), rel=1e-5)


def test_each_part_of_the_loss_has_its_weight() -> None:
    plain = TAUGHT.changed(
        margin_weight=1.0, posterior_weight=1.0, sound_weight=1.0, hidden_weight=1.0
    )
    heavy = TAUGHT.changed(
        margin_weight=2.0, posterior_weight=3.0, sound_weight=5.0, hidden_weight=7.0
    )
    ones = losses_of(taught_batch(), *guesses(), plain, plain.steps)
    weighed = losses_of(taught_batch(), *guesses(), heavy, heavy.steps)
    assert tuple(ones) == LOSSES
    for name, weight in zip(LOSSES, (2.0, 3.0, 5.0, 7.0), strict=True):
        assert float(weighed[name]) == pytest.approx(weight * float(ones[name]), rel=1e-5)
    batch, (cosines, sounds, hidden) = taught_batch(), guesses()
    known = margin_of(cosines[1:].squeeze(1), batch.targets[1:], TAUGHT)
    assert float(ones["margin"]) == pytest.approx(float(known), rel=1e-5)
    assert batch.sounds is not None
    assert batch.hidden is not None
    assert float(ones["sounds"]) == pytest.approx(float(((sounds - batch.sounds) ** 2).mean()))
    assert float(ones["hidden"]) == pytest.approx(float(((hidden - batch.hidden) ** 2).mean()))


def test_labels_and_posterior_come_in_over_the_first_part_of_the_steps() -> None:
    recipe = TAUGHT.changed(steps=100, labels_after=0.4)

    def at(step: int, recipe: Recipe = recipe) -> dict[str, float]:
        parts = losses_of(taught_batch(), *guesses(), recipe, step)
        return {name: float(part) for name, part in parts.items()}

    for name, shares in {
        "margin": (0.0, 0.5, 1.0, 1.0),
        "divergence": (0.0, 0.5, 1.0, 1.0),
        "sounds": (1.0, 1.0, 1.0, 1.0),
        "hidden": (1.0, 1.0, 1.0, 1.0),
    }.items():
        found = [at(step)[name] / at(99)[name] for step in (0, 20, 40, 70)]
        assert found == pytest.approx(shares, abs=1e-5)
    at_once = recipe.changed(labels_after=0.0)
    assert at(1, at_once) == at(99, at_once)


def test_clips_without_a_label_count_only_through_the_teacher() -> None:
    cosines, sounds, hidden = (tensor.requires_grad_() for tensor in guesses())
    parts = losses_of(taught_batch(), cosines, sounds, hidden, TAUGHT, TAUGHT.steps)

    def pull(name: str, of: Tensor) -> list[bool]:
        """Whether a part of the loss asks anything of each crop."""
        (found,) = torch.autograd.grad(parts[name], of, retain_graph=True)
        return [bool(row.any()) for row in found]

    assert pull("margin", cosines) == [False, True, True, True]
    assert pull("divergence", cosines) == [True] * 4
    assert pull("sounds", sounds) == [True] * 4
    assert pull("hidden", hidden) == [True] * 4


def test_a_student_that_says_what_the_teacher_says_has_nothing_left_to_learn_from_it() -> None:
    batch = taught_batch()
    assert batch.sounds is not None
    assert batch.posterior is not None
    assert batch.hidden is not None
    cosines = (batch.posterior.log() / TAUGHT.scale)[:, None]
    parts = losses_of(batch, cosines, batch.sounds, batch.hidden, TAUGHT, TAUGHT.steps)
    for name in ("divergence", "sounds", "hidden"):
        assert float(parts[name]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("frames", [40, 41])
def test_a_student_answers_for_the_crop_and_for_every_other_frame(frames: int) -> None:
    network = new_network(TAUGHT, 2, None)
    student = Student(network).eval()
    features = torch.randn(3, frames, TAUGHT.n_mels)
    with torch.inference_mode():
        cosines, sounds, hidden = student(features)
        embeddings = network.embedding_model(features, torch.ones(3))
        assert torch.allclose(cosines, network.classifier(embeddings), atol=1e-6)
        # Training computes in bfloat16, and must not see anything else for it.
        with torch.autocast("cpu", torch.bfloat16):
            rough, rough_sounds, _ = student(features)
        assert torch.allclose(rough.float(), cosines, atol=0.03)
        assert torch.allclose(rough_sounds, sounds, atol=0.1)
    assert cosines.shape == (3, 1, 2)
    assert sounds.shape == (3, math.ceil(frames / 2), SOUND_SIZE)
    assert hidden.shape == (3, math.ceil(frames / 2), ProbeRecipe.hidden)


def test_the_probe_hears_clips_as_often_as_the_sampler_draws_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Sequence[LabelledFrames], Sequence[Frames]]] = []
    monkeypatch.setattr(distillation, "train_probe", lambda *given: seen.append(given[:2]))

    def clip(name: str, seconds: float, kind: str = "recorded") -> PreparedClip:
        made = clock_clip("us", name, seconds)
        return replace(made, clip=replace(made.clip, kind=kind))

    # Two recorded speakers and four of another corpus, which counts by the root: 1.41 and 2.
    busy = [clip("busy", 0.25), clip("busy", 0.25)]
    rest = [clip("shy", 0.5), *(clip(f"k{index}", 4.0, "kokoro") for index in range(4))]
    other = clock_clip("", "nobody", 1.0)
    recipe = TAUGHT.changed(us_share=0.7)
    probe_for([*busy, *rest, clock_clip("england", "e", 1.0)], [other], LABELS, recipe)
    ((labels, others),) = seen
    assert [label.share for label in labels] == pytest.approx([0.3, 0.7])
    us = labels[LABELS.index("us")]
    whole = 2**0.5 + 2
    shy, kokoro = 2**0.5 / 2 / whole, 2 / 4 / whole
    assert us.chances.tolist() == pytest.approx([shy / 2, shy / 2, shy, *[kokoro] * 4])
    assert [id(versions) for versions in us.clips] == [id(c.frames) for c in [*busy, *rest]]
    assert others == [other.frames[0]]


def test_no_probe_grades_a_voice_that_it_was_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained_on: list[set[int]] = []

    def keep(labels: Sequence[LabelledFrames], *_: object) -> AccentProbe:
        assert all(label.clips for label in labels)
        trained_on.append({id(versions) for label in labels for versions in label.clips})
        return Says(len(trained_on))

    monkeypatch.setattr(distillation, "train_probe", keep)
    clips = [clock_clip(accent, f"{accent}{n}", 1.0) for accent in LABELS for n in range(7)]
    probe = probe_for([*clips, clock_clip("us", "us0", 0.5)], [], LABELS, TAUGHT)
    assert len(probe.probes) == MAX_PROBE_FOLDS
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
    monkeypatch.setattr(distillation, "train_probe", lambda *_: Says(1))
    clips = [clock_clip("us", "one", 1.0), *(clock_clip("england", f"e{n}", 1.0) for n in range(3))]
    probe = probe_for(clips, [], LABELS, TAUGHT)
    assert (len(probe.probes), probe.fold_of) == (1, {})
