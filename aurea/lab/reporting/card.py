"""A model's card: what it was made of, what was measured, and what it must not be used for."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

import numpy as np
import torch
from accent.layout import ECAPA, PROBE, US_LABEL

from aurea.lab.corpus import Clip, duration_band
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.figures import Estimate, Evaluation, Shift
from aurea.lab.statistics import BOOTSTRAP_ROUNDS, area_under_roc, bootstrap_auc
from aurea.tables import UNKNOWN, markdown_table, number

# What the licences of these sources ask to be named, by a word of the licence entry.
_CREDITS: Final = {
    "VCTK": (
        "CSTR VCTK Corpus, Junichi Yamagishi, Christophe Veaux and Kirsten MacDonald, "
        "University of Edinburgh, Centre for Speech Technology Research, CC BY 4.0."
    ),
    "LibriSpeech": (
        "LibriSpeech, Vassil Panayotov, Guoguo Chen, Daniel Povey and Sanjeev Khudanpur, CC BY 4.0."
    ),
    "Kokoro": "Kokoro-82M by hexgrad, Apache-2.0; its ONNX export, MIT.",
    "speechocean762": (
        "speechocean762, Junbo Zhang and others, Xiaomi and SpeechOcean, CC BY 4.0."
    ),
    "ALGAN": "Recordings of the repository ALGAN-VC-Generated-Audio-Samples, MIT.",
    "Asterisk": "Asterisk core and extra sounds, Digium, CC BY-SA 3.0.",
    "FSDD": "Free Spoken Digit Dataset, Zohar Jackson and contributors, CC BY-SA 4.0.",
    "FLEURS": "FLEURS, Alexis Conneau and others, Google, CC BY 4.0.",
    "ARCTIC": (
        "CMU ARCTIC, John Kominek and Alan W Black, Carnegie Mellon University, free for any use."
    ),
    "LJ Speech": "LJ Speech, Keith Ito, read by Linda Johnson, public domain.",
    "Common Voice": "Common Voice, Mozilla and its speakers, CC0.",
}
_ENCODER_CREDIT: Final = (
    "Moonshine tiny (English), Moonshine AI, MIT, as the PyPI package moonshine-voice 0.0.49 "
    "carries it."
)
_TEACHER_CREDITS: Final = (
    _ENCODER_CREDIT,
    "speech_embedding, Google, Apache-2.0, as the PyPI package openwakeword 0.4.0 carries it.",
)
_HOUR_S: Final = 3600.0
_TITLES: Final = {
    ECAPA.kind: "A small accent model",
    PROBE.kind: "An accent model on a speech encoder",
}
_NETWORKS: Final = {
    ECAPA.kind: "An ECAPA-TDNN with {parameters:,} parameters.",
    PROBE.kind: (
        "The encoder of a speech recogniser, as its authors publish it, and on its frames a probe "
        "with {parameters:,} parameters, which alone was trained."
    ),
}


@dataclass(frozen=True)
class UsedClip:
    """A clip that was used, and how long it is."""

    clip: Clip
    duration_s: float


@dataclass(frozen=True)
class TrainingFacts:
    """How a model came about.

    `recipe` is a paragraph; `spent_s` is of all runs together, `computed_on` what they ran on.
    """

    labels: tuple[str, ...]
    kind: str
    parameters: int
    parts: Mapping[str, Sequence[UsedClip]]
    teacher: bool
    recipe: str
    commands: tuple[str, ...]
    spent_s: float
    computed_on: str


def model_card(
    facts: TrainingFacts, evaluations: Mapping[str, Evaluation], results: Sequence[ClipResult]
) -> str:
    """The folder's README.md. Of `evaluations`, by what was judged, the first is told in full.

    `results` are the answers behind them, told by accent, corpus, channel and length.
    """
    labels = ", ".join(facts.labels)
    sections = {
        "What it is for": (
            "To tell US English from other English where the pretrained model cannot be had. "
            f"{_NETWORKS[facts.kind].format(parameters=facts.parameters)} "
            f"It knows the labels {labels} and gives each a share of 100 %."
        ),
        "What it must not be used for": (
            "- Decisions about people: hiring, admission, grading, border or benefit cases.\n"
            "- Speech unlike that of its training: read sentences and prompts. Telephone, rooms "
            "and noise were mostly imitated, not recorded.\n"
            "- Telling US from Canadian voices: they score alike.\n"
            "- Identifying a speaker, or telling origin, nationality or mother tongue."
        ),
        "What it was trained on": _trained_on(facts),
        "What it scores on unseen speakers": _scores(evaluations, results),
        "Known faults": _faults(facts),
        "Recipe": (
            "".join(f"    {command}\n" for command in facts.commands)
            + f"\n{facts.recipe} Training took {facts.spent_s / 60:.0f} min on "
            f"{facts.computed_on}, with torch {torch.__version__.split('+')[0]}, "
            f"on {datetime.now(timezone.utc):%Y-%m-%d}."
        ),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# {_TITLES[facts.kind]}: {labels}\n\n{body}\n"


def _trained_on(facts: TrainingFacts) -> str:
    sources = {
        f"{used.clip.corpus} {used.clip.licence}" for part in facts.parts.values() for used in part
    }
    credits = [credit for word, credit in _CREDITS.items() if any(word in text for text in sources)]
    trained = facts.parts.get("training", ())
    paragraphs = [
        _parts_table(facts.parts),
        "Speakers of the labelled speech were drawn at random within each label, by the seed, and "
        "none is in two parts. Clips of kinds that may not train were used for judging only, and "
        "only those of speakers that neither training nor development heard.",
    ]
    if any(used.clip.kind == "synthesised" for used in trained):
        paragraphs.append(
            "The accent of synthesised speech is that of the speaker whom the synthesiser "
            "imitates: probable, not certain."
        )
    if any(used.clip.kind == "kokoro" for used in trained):
        paragraphs.append(
            "Kokoro's clips are sentences of the project's own, spoken from phonemes of American "
            "and British varieties. Their speakers are blends of voices, half of which say the "
            "same sentence in both; all of them are in training."
        )
    if facts.kind == PROBE.kind:
        credits.append(_ENCODER_CREDIT)
    if facts.teacher:
        credits += _TEACHER_CREDITS
        paragraphs.append(
            "It also learned from two pretrained networks, neither of which is part of this "
            "folder: the encoder of a speech recogniser, under a small probe that was trained on "
            "the labelled part of the training clips, for the accent of each crop; and Google's "
            "speech_embedding for its sounds. Speech without labels was heard through them alone. "
            "The package that carries the latter calls it Apache-2.0 where it names its origin, "
            "and all models in the package CC BY-NC-SA where it explains that data of its wake "
            "words is restricted. What was decided: the licence of its maker holds, since Google "
            "published it under Apache-2.0 and the package's own training is not in it."
        )
    if credits:
        paragraphs.append("Credits:\n\n" + "\n".join(f"- {line}" for line in credits))
    paragraphs.append("No audio is part of this folder.")
    return "\n\n".join(paragraphs)


def _scores(evaluations: Mapping[str, Evaluation], results: Sequence[ClipResult]) -> str:
    if not evaluations:
        return "Nothing was judged: the data has no US and other clips of unseen speakers."
    first_name, first = next(iter(evaluations.items()))
    paragraphs = [
        _figures_table(evaluations),
        "AUC is for `us_confidence`, US against all others. Accents that are no label of the "
        "model count as not US and are left out of balanced accuracy"
        f"{_chance(first)}. Calibration error (ten bins) and Brier score are of "
        "`us_confidence` / 100; in brackets the Brier score of always answering with the share "
        f"of US clips. Intervals are of 95 %, from {BOOTSTRAP_ROUNDS} redraws of speakers. Few "
        "speakers stand behind these figures: differences inside the intervals mean nothing.",
        "`us_confidence` of everyone who was judged, by the accent that their list names, and "
        "AUC of US against that accent; then by corpus, channel and length, AUC of US against the "
        "rest within each. Medians are of US and of other clips:\n\n" + _group_table(results),
    ]
    if first.robustness:
        paragraphs.append(
            f"What microphones, lines and lengths do to it ({first_name}), in points of "
            "`us_confidence`:\n\n" + _robustness_table(first.robustness.values())
        )
    refused = ", ".join(f"{len(paths)} {code}" for code, paths in first.refusals.items())
    paragraphs.append(
        f"The server's own rules refused {refused or 'none'} of the {first.data.clips} clips."
    )
    return "\n\n".join(paragraphs)


def _faults(facts: TrainingFacts) -> str:
    others = ", ".join(label for label in facts.labels if label != US_LABEL)
    return "\n".join(
        f"- {fault}"
        for fault in (
            "It has heard few real voices with a label; a voice can score by its pitch, room or "
            "microphone.",
            f"The labels other than us ({others}) are coarse or weak: see the balanced accuracy "
            "above.",
            "US is mostly audiobooks and studios in its training, learners mostly phones.",
        )
    )


def _parts_table(parts: Mapping[str, Sequence[UsedClip]]) -> str:
    rows: list[list[str]] = []
    for part, all_used in parts.items():
        groups: dict[tuple[str, str, str], list[UsedClip]] = defaultdict(list)
        for used in all_used:
            clip = used.clip
            groups[clip.accent, clip.kind, clip.licence or "not stated"].append(used)
        for (accent, kind, licence), group in sorted(groups.items()):
            speakers = len({used.clip.speaker for used in group})
            hours = sum(used.duration_s for used in group) / _HOUR_S
            counts = [f"{speakers}", f"{len(group)}", f"{hours:.3f}"]
            rows.append([part, accent or "none", kind, *counts, licence])
    return markdown_table(["part", "accent", "kind", "speakers", "clips", "hours", "licence"], rows)


def _figures_table(evaluations: Mapping[str, Evaluation]) -> str:
    header = ["judged on", "clips", "speakers (US)", "AUC", "equal error rate"]
    header += ["balanced accuracy", "calibration error", "Brier"]
    return markdown_table(
        header,
        [
            [
                name,
                f"{found.data.clips - found.data.refused}",
                f"{found.data.speakers} ({found.data.us_speakers})",
                found.us.auc.text(),
                found.us.equal_error_rate.text(),
                found.labels.balanced_accuracy.text() if found.labels else UNKNOWN,
                found.calibration.expected_error.text(),
                f"{found.calibration.brier.text()} "
                f"({number(found.calibration.base_rate_brier, 3)})",
            ]
            for name, found in evaluations.items()
        ],
    )


def _chance(evaluation: Evaluation) -> str:
    return f", whose chance is {evaluation.labels.chance:.2f}" if evaluation.labels else ""


def _group_table(results: Sequence[ClipResult]) -> str:
    """By accent, corpus, channel and length: who was judged and how well."""
    judged = [r for r in results if r.us_score is not None and not r.distortion]
    us = [r for r in judged if r.clip.accent == US_LABEL]
    rows: list[list[str]] = []
    for title, name_of in _GROUPINGS.items():
        groups: dict[str, list[ClipResult]] = defaultdict(list)
        for result in judged:
            groups[name_of(result)].append(result)
        for name, group in sorted(groups.items()):
            beside = us if title == "accent" and name != US_LABEL else []
            rows.append([title, name or "not stated", *_group_cells(group, beside)])
    header = ["by", "group", "clips", "speakers (US)", "US median", "others' median", "AUC"]
    return markdown_table(header, rows)


_GROUPINGS: Final[Mapping[str, Callable[[ClipResult], str]]] = {
    "accent": lambda result: result.clip.spoken or result.clip.accent,
    "corpus": lambda result: result.clip.corpus or result.clip.kind,
    "channel": lambda result: result.clip.channel,
    "length": lambda result: duration_band(result.duration_s or 0.0),
}


def _group_cells(group: Sequence[ClipResult], beside: Sequence[ClipResult]) -> list[str]:
    both = [*group, *beside]
    scores = np.array([result.us_score for result in both], np.float64)
    positive = np.array([result.clip.accent == US_LABEL for result in both], np.bool_)
    speakers = [result.clip.speaker for result in both]
    auc = Estimate(
        area_under_roc(scores, positive), *bootstrap_auc(scores, positive, speakers, seed=0)
    )
    own = positive[: len(group)]
    heard = {result.clip.speaker: result.clip.accent == US_LABEL for result in group}
    medians = [
        number(100 * float(np.median(part)), 0) if part.size else UNKNOWN
        for part in (scores[: len(group)][own], scores[: len(group)][~own])
    ]
    known = not math.isnan(auc.value)
    cells = [f"{len(group)}", f"{len(heard)} ({sum(heard.values())})", *medians]
    return [*cells, auc.text() if known else UNKNOWN]


def _robustness_table(shifts: Iterable[Shift]) -> str:
    return markdown_table(
        ["distortion", "clips", "median shift", "95 % within", "AUC", "change of AUC"],
        [
            [
                shift.title,
                f"{shift.clips}",
                number(100 * shift.median, 1),
                number(100 * shift.p95, 1),
                number(shift.auc, 2),
                number(shift.auc_change, 3, signed=True),
            ]
            for shift in shifts
        ],
    )
