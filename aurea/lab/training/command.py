"""`make train`: the command line of training."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import torch
from accent.ecapa.loading import load_model
from accent.errors import ModelFolderError
from pydantic import Field

from aurea.command_line import CommandLine, read
from aurea.lab.corpus import choose_labels, merge_accents, read_clips, with_weak_labels
from aurea.lab.reporting.training_report import write_training_report
from aurea.lab.speech.utterances import KIND
from aurea.lab.training.device import device_called
from aurea.lab.training.loop import LOG_FILE
from aurea.lab.training.model import make_model
from aurea.lab.training.recipe import Recipe, with_parts
from aurea.models.packages import PackageUnavailable
from aurea.paths import ROOT

REPORTS: Final = ROOT / "build" / "training"


class TrainingOptions(CommandLine, Recipe):
    """Labelled speech -> an accent model in the folder layout that `MODEL=` takes."""

    data: list[Path]
    """Folders and CSV files of clips."""
    extra: list[Path] = Field(default=[])
    """More speech, which serves training only."""
    out: Path
    """Model folder to write."""
    kind: Literal["ecapa", "probe"] = "ecapa"
    """Kind of model: an ECAPA-TDNN, or a probe on a speech encoder."""
    weak_labels: Path | None = None
    """CSV of speaker and accent: supposed labels for speech that has none."""
    init: Path | None = None
    """Model folder whose embedding to start from."""
    recipe: list[str] = Field(default=[])
    """Parts of the recipe as NAME=VALUE, in place of an option each."""
    labels: str | None = None
    """Accents to tell apart, with commas; must have us."""
    merge: list[str] = Field(default=[])
    """Accents that are one label together, such as l1-*=learner; canada= leaves one out."""
    min_speakers: int = 8
    """How many an accent needs to be a label."""
    kinds: str = "recorded,synthesised"
    """Kinds of clip that may train, with commas."""
    threads: int = Field(default=1, ge=1)
    """Threads of the CPU, and processes."""
    device: str = "auto"
    """Device to compute on: auto, cpu, cuda or one such as cuda:1."""
    fp32: bool = False
    """No bfloat16, for what lacks it."""
    robustness: bool = False
    """Judge distorted clips as well, for the card."""
    extra_licence: str = ""
    """Licence of speech in --extra whose list names none."""

    def whole_recipe(self) -> Recipe:
        """The recipe that all options make together.

        Raises `SystemExit` for a NAME=VALUE that no recipe has.
        """
        parts = self.model_dump(include=set(Recipe.model_fields))
        parts["bf16"] = self.bf16 and not self.fp32
        return with_parts(Recipe(**parts), self.recipe)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and make a model."""
    options = read(TrainingOptions, arguments)
    torch.set_num_threads(options.threads)
    device = device_called(options.device)
    recipe = options.whole_recipe()
    kinds = tuple(options.kinds.split(","))
    clips = read_clips(options.data)
    extra = [
        replace(clip, licence=clip.licence or options.extra_licence)
        for clip in (read_clips(options.extra, unlabelled=True) if options.extra else ())
    ]
    if options.weak_labels:
        extra = with_weak_labels(extra, options.weak_labels)
    merged = merge_accents([*clips, *extra], options.merge)
    clips, extra = merged[: len(clips)], merged[len(clips) :]
    trainable = [clip for clip in clips if clip.kind in kinds]
    labels = (
        tuple(options.labels.split(","))
        if options.labels
        else choose_labels(trainable, options.min_speakers)
    )
    made_by = ["make speech"] if any(clip.kind == KIND for clip in extra) else []
    command = "python -m scripts.train " + shlex.join(
        sys.argv[1:] if arguments is None else arguments
    )
    try:
        evaluations = make_model(
            clips,
            options.out,
            recipe,
            labels=labels,
            kinds=kinds,
            extra=extra,
            kind=options.kind,
            init=load_model(options.init) if options.init else None,
            commands=[*made_by, command],
            jobs=options.threads,
            robustness=options.robustness,
            device=device,
        )
    except (ModelFolderError, PackageUnavailable) as error:
        raise SystemExit(str(error)) from None
    for name, found in evaluations.items():
        auc = found.us.auc
        print(f"{name}: AUC {auc.value:.3f} [{auc.low:.2f}, {auc.high:.2f}]")
    print(f"written: {options.out}")
    if (options.out / LOG_FILE).is_file():
        print(write_training_report(options.out / LOG_FILE, REPORTS / f"{options.out.name}.html"))
