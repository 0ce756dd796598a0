"""The recipe of a model: each part is declared once, as a field that is an option too."""

from collections.abc import Sequence
from typing import Any

from accent.layout import PROBE
from accent.model import Calibration
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import SettingsConfigDict


class Recipe(BaseModel):
    """All that decides the weights, apart from the data. The line under a part is its help."""

    # Of the settings library's type, since the command line inherits these parts as options.
    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(default=0, ge=0)
    """What split, first weights, crops and masks are drawn by."""
    dev_share: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of a label's speakers that develop: they calibrate and train nothing."""
    test_share: float = Field(default=0.3, gt=0, lt=0.5)
    """Share of a label's speakers that judge."""
    steps: int = Field(default=500, ge=1)
    """Steps that the learning rate is planned for."""
    batch_size: int = Field(default=32, ge=1)
    """Crops in a step."""
    channels: int = Field(default=128, ge=1)
    """Width of the blocks; the aggregation has three times as many."""
    embedding_size: int = Field(default=128, ge=1)
    """Numbers in an embedding."""
    attention_channels: int = Field(default=64, ge=1)
    """Width of the attention that pools frames."""
    n_mels: int = Field(default=80, ge=1)
    """Mel bands of the features."""
    min_crop_s: float = Field(default=1.0, gt=0)
    """Shortest crop, in seconds."""
    max_crop_s: float = Field(default=3.0, gt=0)
    """Longest crop, in seconds."""
    learning_rate: float = 1e-3
    """The peak, reached after the warm-up."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises."""
    decay_to: float = 0.0
    """Share of the peak at which the rate stands at the last step."""
    stop_at: int = Field(default=0, ge=0)
    """Step to end with, before the rate has fallen all the way; 0: the last."""
    weight_decay: float = 0.02
    """Of AdamW."""
    margin: float = 0.2
    """Additive angular margin, in radians."""
    scale: float = 30.0
    """Of the cosines, in the softmax of the margin loss."""
    average_decay: float = 0.98
    """What the moving average of the weights keeps of itself at a step."""
    us_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the labelled crops that are US; the other labels have the rest alike."""
    weak_weight: float = Field(default=0.3, ge=0, le=1)
    """How often a weak label is drawn, beside one of somebody who knows."""
    augment: bool = True
    """Train on perturbed crops."""
    versions: int = Field(default=3, ge=1)
    """Versions of each clip that are prepared, itself included."""
    bf16: bool = True
    """Compute in bfloat16 where that is exact enough."""
    teacher: bool = False
    """Learn from a speech recogniser's encoder as well."""
    unlabelled_share: float = Field(default=0.3, ge=0, le=1)
    """With a teacher: share of a batch from speech without labels."""
    margin_weight: float = 0.1
    """With a teacher: weight of the margin loss on labelled crops."""
    posterior_weight: float = 1.0
    """With a teacher: weight of the divergence from its posterior."""
    sound_weight: float = 2.0
    """With a teacher: weight of the squared distance from its sounds."""
    hidden_weight: float = 0.0
    """With a teacher: weight of the squared distance from its probe's hidden layer."""
    probe_steps: int = Field(default=800, ge=0)
    """Steps of each of the probe's folds."""
    labels_after: float = 0.3
    """With a teacher: share of the steps over which labels and posterior come in."""

    @property
    def last_step(self) -> int:
        """The number of steps that are run; a long fall's last ones learn voices by heart."""
        return self.stop_at or self.steps

    def changed(self, **parts: Any) -> "Recipe":
        """The same with other `parts`. Raises pydantic's `ValidationError`."""
        return Recipe.model_validate({**self.model_dump(), **parts})


def with_parts(recipe: Recipe, parts: Sequence[str]) -> Recipe:
    """`recipe` with each NAME=VALUE of `parts` in it.

    Raises `SystemExit` for a name that no recipe has, or a value of another kind.
    """
    for part in parts:
        name, _, text = part.partition("=")
        if name not in Recipe.model_fields or isinstance(getattr(recipe, name), bool):
            raise SystemExit(f"{part}: a recipe has {', '.join(sorted(Recipe.model_fields))}.")
        try:
            recipe = recipe.changed(**{name: text})
        except ValidationError:
            default = Recipe.model_fields[name].default
            raise SystemExit(f"{part}: {name} is {default!r} by default.") from None
    return recipe


def recipe_text(recipe: Recipe, calibration: Calibration, kind: str) -> str:
    """What a card says of the recipe and of the calibration that was fitted afterwards."""
    steps = _probe_text(recipe) if kind == PROBE.kind else _ecapa_text(recipe)
    return (
        f"Seed {recipe.seed}; {100 * recipe.us_share:g} % of the labelled crops US, the other "
        "labels alike, within a label corpora by the root of their speakers, then speakers evenly; "
        f"a weak label counts {recipe.weak_weight:g}. {steps} Augmentation of the waveform: "
        f"{_versions_text(recipe)}. Calibration: scale {calibration.scale:g}, US bias "
        f"{calibration.us_bias:g}, fitted on the development speakers, as they are, over a "
        "telephone and cut to 3 s, with US and others weighing the same."
    )


def _versions_text(recipe: Recipe) -> str:
    if recipe.versions < 2 or not recipe.augment:
        return "none"
    return (
        f"{recipe.versions} versions of each clip (itself; speed, vocal tract, room, equaliser, "
        "cut-offs, spectral holes, noise, babble, overload, MP3, Opus, AAC, telephone with mu-law "
        "by chance)"
    )


def _probe_text(recipe: Recipe) -> str:
    return (
        f"Up to five probes 288 -> 64 -> labels on the encoder's frames, each trained without one "
        f"fold of the speakers: {recipe.probe_steps} steps of 96 crops of 1 to 4.8 s, dropout 0.4, "
        "AdamW, 2e-3 falling to 0; every other version heard in pieces of 1 to 3.5 s. Served is "
        "the mean of their evidence."
    )


def _ecapa_text(recipe: Recipe) -> str:
    teaching = (
        f" Loss: {recipe.margin_weight:g} x margin + {recipe.posterior_weight:g} x divergence from "
        f"the teacher's posterior + {recipe.sound_weight:g} x squared distance from its sounds + "
        f"{recipe.hidden_weight:g} x squared distance from the hidden layer of its probe, the "
        f"first two rising over {100 * recipe.labels_after:g} % of the steps; "
        f"{100 * recipe.unlabelled_share:g} % of a batch without labels."
        if recipe.teacher
        else ""
    )
    stopped = f", ended at step {recipe.stop_at}" if recipe.stop_at else ""
    crops = (
        "; crops with tempo, vocal tract length, silence, colour, noise, cut-off and SpecAugment "
        "on log-mel features"
        if recipe.augment
        else ""
    )
    return (
        f"{recipe.steps} steps of {recipe.batch_size} crops of {recipe.min_crop_s:g} to "
        f"{recipe.max_crop_s:g} s{crops}. Additive angular margin {recipe.margin:g}, scale "
        f"{recipe.scale:g}.{teaching} AdamW, peak learning rate {recipe.learning_rate:g}, "
        f"{100 * recipe.warmup:g} % warm-up, cosine to {100 * recipe.decay_to:g} % of it{stopped}, "
        f"weight decay {recipe.weight_decay:g}; weights averaged with decay "
        f"{recipe.average_decay:g}, as they are at the last step."
    )
