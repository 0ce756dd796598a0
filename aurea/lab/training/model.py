"""Labelled speech -> an accent model of one of the kinds that `MODEL=` takes, and its card.

The recipe of an ECAPA-TDNN is that of CommonAccent (Zuluaga-Gomez et al., 2023) at any width:
cosine head, additive angular margin, speaker-disjoint split, balance over accents and speakers.
A teacher can be added: frame by frame and clip by clip it gives targets, for unlabelled speech too.
Features are computed once. What step k sees depends on the seed and k alone: a run that was
killed goes on where its last checkpoint stands and ends with the weights it would have had.
"""

import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import torch
from accent.ecapa.loading import EcapaModel
from accent.kinds import describe_model
from accent.layout import ECAPA, PROBE, US_LABEL
from accent.model import Calibration

from aurea.archive.distort import DISTORTIONS
from aurea.archive.layout import CALIBRATION_FILE
from aurea.files import write_whole
from aurea.lab.calibration.model_folder import write_calibration
from aurea.lab.corpus import Clip, Split, split_by_speaker
from aurea.lab.evaluation.answer_log import RESULTS_FILE
from aurea.lab.evaluation.clip_results import ClipResult, us_rows
from aurea.lab.evaluation.engine import evaluate_clips
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.evaluation.model_facts import model_facts
from aurea.lab.evaluation.summary import summarise
from aurea.lab.features.prepare import DEFAULT_CACHE, Plan, PreparedClip, prepare
from aurea.lab.reporting.card import TrainingFacts, UsedClip, model_card
from aurea.lab.statistics import fit_calibration
from aurea.lab.training.checkpoint import WORK_FOLDER
from aurea.lab.training.development import decode_clips, development_figures
from aurea.lab.training.device import device_text
from aurea.lab.training.distillation import probe_for
from aurea.lab.training.export import write_model, write_probe
from aurea.lab.training.fingerprint import fingerprint_of
from aurea.lab.training.loop import train
from aurea.lab.training.network import network_spec, new_network
from aurea.lab.training.recipe import Recipe, recipe_text
from aurea.lab.training.sampler import Sampler

CARD_FILE: Final = "README.md"

CPU: Final = torch.device("cpu")

# What a card tells of distortions rests on so many clips, each heard in two dozen ways.
_DISTORTED_CLIPS: Final = 100
# Lines and lengths that a calibration has to hold for.
_CALIBRATE_ON: Final = ("telephone_8k", "cut_3s")


def make_model(
    clips: Sequence[Clip],
    out: Path,
    recipe: Recipe,
    *,
    labels: Sequence[str],
    kinds: Sequence[str],
    extra: Sequence[Clip] = (),
    kind: str = ECAPA.kind,
    init: EcapaModel | None = None,
    commands: Sequence[str] = (),
    checkpoint_every: int = 50,
    cache: Path = DEFAULT_CACHE,
    jobs: int = 1,
    robustness: bool = False,
    device: torch.device = CPU,
) -> dict[str, Evaluation]:
    """Train on `clips`, judge on speakers that were held out, write the folder `out`.

    `extra` serves training only: synthetic voices with an accent, and speech with none, of
    which a teacher is needed to learn. `commands` are what the card says it was made by.
    In which order clips are given changes nothing. Returns the evaluations on the card, by
    the name of the set that was judged.

    Raises `SystemExit` with a sentence for people where data or folder will not do.
    """
    if US_LABEL not in labels:
        raise SystemExit(f"the labels are {', '.join(labels) or 'none'}: '{US_LABEL}' is needed.")
    clips, extra = (sorted(part, key=lambda clip: clip.path) for part in (clips, extra))
    split = split_by_speaker(clips, labels, kinds, recipe.seed, recipe.dev_share, recipe.test_share)
    _print_split(split)
    spec = network_spec(recipe, len(labels), init)
    versions = recipe.versions if recipe.augment else 1
    plan = Plan(spec.n_mels, versions, recipe.seed, recipe.teacher or kind == PROBE.kind)
    labelled_extra = [clip for clip in extra if clip.accent in labels]
    unlabelled_extra = [clip for clip in extra if not clip.accent and recipe.teacher]
    # Speech whose label was taken away still teaches the sounds of the language.
    unlabelled_extra += [clip for clip in split.rest if not clip.accent and recipe.teacher]

    def ready(chosen: Sequence[Clip], title: str) -> list[PreparedClip]:
        return prepare(chosen, plan, jobs=jobs, title=title, cache=cache) if chosen else []

    labelled = ready([*split.train, *labelled_extra], "prepare labelled speech")
    unlabelled = ready(unlabelled_extra, "prepare other speech")
    started_s = time.monotonic()
    probe = probe_for(labelled, unlabelled, labels, recipe) if plan.teacher else None
    if probe is not None and kind == PROBE.kind:
        weights = probe.weights()
        write_probe(weights, labels, out)
        (out / WORK_FOLDER).mkdir(exist_ok=True)
        spent_s = time.monotonic() - started_s
        parameters = sum(tensor.numel() for tensor in weights.values())
    else:
        averaged, spent_s = train(
            new_network(recipe, len(labels), init),
            Sampler(labelled, unlabelled, labels, recipe, probe),
            recipe,
            out,
            fingerprint_of(
                recipe,
                {**vars(split), "extra": labelled_extra, "unlabelled": unlabelled_extra},
                labels,
                init,
            ),
            partial(
                development_figures,
                clips=decode_clips(split.dev, "development clips"),
                labels=labels,
            ),
            checkpoint_every,
            device,
        )
        write_model(averaged, spec, labels, out)
        parameters = sum(parameter.numel() for parameter in averaged.parameters())
    # Of weights that stood here before.
    (out / CALIBRATION_FILE).unlink(missing_ok=True)
    calibration, heard = _calibrate(out, split.dev, labels, jobs, recipe.seed)
    # The card speaks of the folder as it will be served, so the handler itself judges it.
    results = evaluate_clips(
        out,
        [clip for clip in (*split.test, *split.rest) if clip.accent or clip.spoken],
        jobs=jobs,
        log=out / WORK_FOLDER / RESULTS_FILE,
        distortions=tuple(DISTORTIONS) if robustness else (),
        distorted_clips=_DISTORTED_CLIPS,
        seed=recipe.seed,
    )
    facts = model_facts(out)
    evaluations = {
        name: summarise(chosen, facts, jobs=jobs, seed=recipe.seed)
        for name, chosen in _judged_sets(
            [result for result in results if result.clip.accent], labels
        ).items()
    }
    making = TrainingFacts(
        labels=tuple(labels),
        kind=kind,
        parameters=parameters,
        parts={
            "training": [UsedClip(c.clip, c.duration_s) for c in (*labelled, *unlabelled)],
            "development": [UsedClip(c, d) for c, d in heard],
            "judging": [
                UsedClip(result.clip, result.duration_s)
                for result in results
                if result.duration_s is not None and not result.distortion
            ],
        },
        teacher=recipe.teacher and kind == ECAPA.kind,
        recipe=recipe_text(recipe, calibration, kind),
        commands=tuple(commands),
        spent_s=spent_s,
        computed_on=device_text(device),
    )
    write_whole(out / CARD_FILE, model_card(making, evaluations, results))
    shutil.rmtree(out / WORK_FOLDER)
    return evaluations


def _calibrate(
    out: Path, clips: Sequence[Clip], labels: Sequence[str], jobs: int, seed: int
) -> tuple[Calibration, list[tuple[Clip, float]]]:
    """Fit the calibration of the model in `out` on `clips`, write it there and return it.

    Also returns the clips that were heard, and the seconds of each.

    They are heard as they are, over a telephone and cut short, as the server would hear them:
    a model is surer of long clips from studios than of others.
    """
    results = evaluate_clips(
        out, clips, jobs=jobs, distortions=_CALIBRATE_ON, distorted_clips=len(clips), seed=seed
    )
    known = [result for result in results if result.evidence is not None]
    heard = [(r.clip, r.duration_s or 0.0) for r in known if not r.distortion]
    evidence, positive = us_rows(known)
    if not known or positive.all() or not positive.any():
        return describe_model(out).calibration, heard
    calibration = fit_calibration(evidence, positive, labels.index(US_LABEL))
    write_calibration(out, calibration)
    return calibration, heard


def _judged_sets(
    results: Sequence[ClipResult], labels: Sequence[str]
) -> dict[str, list[ClipResult]]:
    """The sets on a card: natural speech first, all accents and the labels, then all kinds."""
    natural = sorted({r.clip.kind for r in results} - {"synthesised"})
    sets: dict[str, list[ClipResult]] = {}
    for kinds in (natural, sorted({r.clip.kind for r in results})):
        for name, accents in (("all accents", None), ("the model's labels", labels)):
            chosen = [
                result
                for result in results
                if result.clip.kind in kinds and (accents is None or result.clip.accent in accents)
            ]
            us = {
                result.clip.accent == US_LABEL for result in chosen if result.us_score is not None
            }
            if us == {True, False} and chosen not in sets.values():
                sets[f"{' + '.join(kinds)}, {name}"] = chosen
    return sets


def _print_split(split: Split) -> None:
    for name, clips in vars(split).items():
        print(f"{name}:", flush=True)
        by_accent: dict[str, Counter[str]] = defaultdict(Counter)
        for clip in clips:
            by_accent[clip.accent][clip.speaker] += 1
        for accent, speakers in sorted(by_accent.items()):
            print(f"  {accent}: {', '.join(sorted(speakers))} ({speakers.total()} clips)")
