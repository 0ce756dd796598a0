"""The recipe of a model: each part is declared once, as a field that is an option too."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import SettingsConfigDict


class Recipe(BaseModel):
    """All that decides the weights, apart from the data. The line under a part is its help."""

    # Of the settings library's type, since the command line inherits these parts as options.
    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(default=0, ge=0)
    """What split, first weights, crops and masks are drawn by."""
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
    min_crop_s: float = Field(default=1.5, gt=0)
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


def recipe_text(recipe: Recipe, softmax_scale: float) -> str:
    """What a card says of the recipe and of the scale that was fitted afterwards."""
    recorded = (
        f"{recipe.versions} versions of each clip (itself; speed, room, noise, babble, MP3, Opus, "
        "AAC, telephone by chance), then "
        if recipe.versions > 1
        else ""
    )
    augmentation = (
        f"{recorded}tempo, vocal tract length, silence, colour, noise, cut-off and SpecAugment on "
        "log-mel features"
        if recipe.augment
        else "none"
    )
    teaching = (
        f" Loss: {recipe.margin_weight:g} x margin + {recipe.posterior_weight:g} x divergence from "
        f"the teacher's posterior + {recipe.sound_weight:g} x squared distance from its sounds, "
        f"the first two rising over {100 * recipe.labels_after:g} % of the steps; "
        f"{100 * recipe.unlabelled_share:g} % of a batch without labels."
        if recipe.teacher
        else ""
    )
    stopped = f", ended at step {recipe.stop_at}" if recipe.stop_at else ""
    return (
        f"Seed {recipe.seed}, {recipe.steps} steps of {recipe.batch_size} crops of "
        f"{recipe.min_crop_s:g} to {recipe.max_crop_s:g} s, balanced over labels, kinds and "
        f"speakers. Additive angular margin {recipe.margin:g}, scale {recipe.scale:g}.{teaching} "
        f"AdamW, peak learning rate {recipe.learning_rate:g}, {100 * recipe.warmup:g} % warm-up, "
        f"cosine to {100 * recipe.decay_to:g} % of it{stopped}, weight decay "
        f"{recipe.weight_decay:g}; weights averaged with decay {recipe.average_decay:g}. "
        f"Augmentation: {augmentation}. Softmax scale {softmax_scale:g}: fitted by negative "
        "log-likelihood on windows of the development speakers, which served nothing else, or "
        "that of training where the fit is above it. The weights are the moving average at the "
        "last step."
    )
