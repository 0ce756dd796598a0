"""An evaluation as a page, and every section of it."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from aurea.lab.evaluation.figures import Estimate, Evaluation, Group, LabelFigures
from aurea.lab.reporting.page import Card, Page, Section, Table, write_page
from aurea.lab.reporting.pictures import (
    reliability_picture,
    robustness_picture,
    roc_picture,
    scores_picture,
    timing_picture,
)
from aurea.lab.reporting.terminal import calibration_text
from aurea.tables import number, percent

PAGE_FILE: Final = "report.html"


def write_report(evaluation: Evaluation, out: Path) -> Path:
    """Write the page on `evaluation` into the folder `out`, and return its path."""
    model, data = evaluation.model, evaluation.data
    hours = f"{data.hours:.1f} hours" if data.hours >= 1 else f"{60 * data.hours:.0f} minutes"
    lead = (
        f"{data.clips} clips, {hours}, {_speakers(data.speakers, data.clips_of_unknown_speakers)}; "
        f"{data.us_clips} clips of {data.us_speakers} US speakers"
        + (f"; {data.refused} refused." if data.refused else ".")
    )
    sections = [
        _scores_section(evaluation),
        _ranking_section(evaluation),
        _calibration_section(evaluation),
        *([_labels_section(evaluation.labels)] if evaluation.labels is not None else []),
        _groups_section(evaluation),
        *([_robustness_section(evaluation)] if evaluation.robustness else []),
        _timing_section(evaluation),
        _refusals_section(evaluation),
        _data_section(evaluation),
    ]
    labels = f" Labels: {', '.join(model.labels)}." if model.labels else ""
    scale = f" Calibration: {calibration_text(model.calibration)}." if model.calibration else ""
    page = Page(
        f"How well does {model.name} know a US voice?",
        lead,
        _cards(evaluation),
        sections,
        [note for note in evaluation.notes if note.startswith(("Only", "US and other"))],
        f"Model {model.name}, state {model.digest[:12]}.{labels}{scale}",
    )
    return write_page(page, out / PAGE_FILE)


def _cards(evaluation: Evaluation) -> list[Card]:
    us, calibration, timing = evaluation.us, evaluation.calibration, evaluation.timing
    cards = [
        Card("AUC, US against the rest", number(us.auc.value, 2), _range(us.auc)),
        Card(
            "Equal error rate",
            percent(us.equal_error_rate.value),
            _range(us.equal_error_rate, as_percent=True),
        ),
    ]
    if evaluation.labels is not None:
        found = evaluation.labels
        cards.append(
            Card(
                "Balanced accuracy",
                percent(found.balanced_accuracy.value),
                f"{_range(found.balanced_accuracy, as_percent=True)}; "
                f"chance {percent(found.chance)}; accuracy {percent(found.accuracy.value)}",
            )
        )
    cards += [
        Card(
            "Calibration error",
            percent(calibration.expected_error.value),
            _range(calibration.expected_error, as_percent=True),
        ),
        Card(
            "Brier score",
            number(calibration.brier.value, 3),
            f"{number(calibration.base_rate_brier, 3)} by guessing the share of US clips",
        ),
        Card(
            "Time per clip",
            f"{number(1000 * timing.latency_median_s, 0)} ms",
            f"95 % within {number(1000 * timing.latency_p95_s, 0)} ms; "
            f"{number(timing.real_time_factor_median, 3)} s per second of audio",
        ),
    ]
    return cards


def _scores_section(evaluation: Evaluation) -> Section:
    threshold = evaluation.us.operating_points[-1].threshold
    return Section(
        "scores",
        "Scores by accent",
        ["Each dot is a clip. The further right of the others the US row stands, the better."],
        scores_picture(evaluation.scores, threshold),
    )


def _ranking_section(evaluation: Evaluation) -> Section:
    us = evaluation.us
    rows = [
        [
            f"at most {percent(point.max_false_accepts)}",
            _threshold(point.threshold),
            percent(point.false_accepts, 1),
            percent(point.true_accepts, 1),
        ]
        for point in us.operating_points
    ]
    return Section(
        "ranking",
        "US against the rest",
        [
            f"Of a US clip and another one, the US clip has the higher score in "
            f"{percent(us.auc.value)} of all pairs: AUC {_with_range(us.auc)}. Chance is 0.5."
        ],
        roc_picture(evaluation),
        [
            Table(
                ["others taken for US", "threshold, %", "false accepts", "US accepted"],
                rows,
                "Operating points, chosen on these same clips",
            )
        ],
    )


def _calibration_section(evaluation: Evaluation) -> Section:
    calibration = evaluation.calibration
    return Section(
        "calibration",
        "Can the percentage be believed?",
        [
            "Of the clips that score 70 %, seven in ten should be US. The mean distance from that "
            f"is {_with_range(calibration.expected_error, as_percent=True)}. The Brier score is "
            f"{number(calibration.brier.value, 3)}; always answering with the share of US clips "
            f"has {number(calibration.base_rate_brier, 3)}. As if US and other voices were equally "
            f"many, the error is {_with_range(calibration.expected_error_even, as_percent=True)} "
            f"and the Brier score {number(calibration.brier_even.value, 3)}, against 0.25."
        ],
        reliability_picture({"": calibration.bins}),
    )


def _labels_section(labels: LabelFigures) -> Section:
    rows: list[list[str]] = []
    shades: list[list[int]] = []
    for name, counts in zip(labels.rows, labels.confusion, strict=True):
        total = sum(counts)
        right = counts[labels.columns.index(name)]
        rows.append([name, *map(str, counts), percent(right / total)])
        shades.append([*(round(75 * count / total) for count in counts), 0])
    return Section(
        "labels",
        "Which accent it hears",
        [
            f"Over the {labels.clips} clips whose accent the model has a label for, accuracy is "
            f"{_with_range(labels.accuracy, as_percent=True)}; with each accent weighing the same, "
            f"{_with_range(labels.balanced_accuracy, as_percent=True)}. "
            f"Guessing blindly gets {percent(labels.chance)}."
        ],
        tables=[
            Table(
                ["", *labels.columns, "right"],
                rows,
                "Rows are the speakers' accents, columns what the model says",
                shades,
            )
        ],
    )


def _groups_section(evaluation: Evaluation) -> Section:
    return Section(
        "groups",
        "By accent, length, format and kind",
        [
            "AUC is US against the rest of the group, in the first table against that accent "
            "alone. Accepted is the share that passes for US at 5 % false accepts."
        ],
        tables=[
            _group_table("accent", evaluation.by_accent),
            _group_table("length", evaluation.by_duration),
            _group_table("format", evaluation.by_format),
            _group_table("kind", evaluation.by_kind),
        ],
    )


def _group_table(name: str, groups: Iterable[Group]) -> Table:
    return Table(
        [
            name,
            "clips",
            "refused",
            "speakers",
            "US clips",
            "median score",
            "AUC",
            "accuracy",
            "accepted",
        ],
        [
            [
                group.name,
                f"{group.clips}",
                f"{group.refused}",
                f"{group.speakers}",
                f"{group.us_clips}",
                number(100 * group.median_score, 1),
                number(group.auc, 2),
                percent(group.accuracy),
                percent(group.accepted),
            ]
            for group in groups
        ],
    )


def _robustness_section(evaluation: Evaluation) -> Section:
    rows = [
        [
            shift.title,
            f"{shift.clips}",
            f"{shift.refused}",
            number(100 * shift.median, 1),
            number(100 * shift.p95, 1),
            number(100 * shift.drift, 1, signed=True),
            number(shift.auc, 3),
            number(shift.auc_change, 3, signed=True),
        ]
        for shift in evaluation.robustness.values()
    ]
    return Section(
        "robustness",
        "What a phone, a codec or a room does to the score",
        [
            "The same clips again: quieter and louder, compressed, over the telephone, in noise, "
            "and cut short. Shifts are in points of us_confidence, without regard to direction; "
            "drift is their mean with its sign. Clips too short to be cut are left out."
        ],
        robustness_picture(evaluation),
        [
            Table(
                [
                    "distortion",
                    "clips",
                    "refused",
                    "median shift",
                    "95 % within",
                    "drift",
                    "AUC",
                    "AUC change",
                ],
                rows,
            )
        ],
    )


def _timing_section(evaluation: Evaluation) -> Section:
    timing = evaluation.timing
    return Section(
        "time",
        "How long it takes",
        [
            f"From the file's bytes to the answer, with {timing.jobs} at a time on this machine: "
            f"{number(1000 * timing.latency_median_s, 0)} ms in the median, 95 % within "
            f"{number(1000 * timing.latency_p95_s, 0)} ms. Per second of audio that is "
            f"{number(timing.real_time_factor_median, 3)} s, 95 % within "
            f"{number(timing.real_time_factor_p95, 3)} s. What else ran on the machine is in it."
        ],
        timing_picture(timing.latencies_s, timing.real_time_factors),
    )


def _refusals_section(evaluation: Evaluation) -> Section:
    text = (
        "These clips got no score and count in no figure above. A real voice among them that was "
        "refused as no_speech is a fault of the speech gate."
        if evaluation.refusals
        else "Every clip was read and got a score."
    )
    return Section("refused", "Refused clips", [text], lists=evaluation.refusals)


def _data_section(evaluation: Evaluation) -> Section:
    data = evaluation.data
    speech = (
        f", {60 * data.speech_hours:.0f} of {60 * data.hours:.0f} minutes speech"
        if data.speech_hours
        else ""
    )
    rows = [
        ["sources", " ".join(data.sources)],
        ["clips", f"{data.clips}, {data.refused} of them refused{speech}"],
        ["speakers", _speakers(data.speakers, data.clips_of_unknown_speakers)],
        ["kinds", _counts(data.kinds)],
        ["accents", _counts(data.accents)],
    ]
    return Section(
        "data",
        "What was judged, and how to read it",
        tables=[Table(["", ""], rows, words=True)],
        notes=evaluation.notes,
    )


def _speakers(known: int, unknown_clips: int) -> str:
    if not unknown_clips:
        return f"{known} speakers"
    if not known:
        return "speakers unknown"
    return f"{known} speakers and {unknown_clips} clips of unknown ones"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _range(estimate: Estimate, *, as_percent: bool = False) -> str:
    if math.isnan(estimate.low):
        return "no interval"
    if as_percent:
        return f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} % (95 %)"
    return f"{estimate.low:.2f} to {estimate.high:.2f} (95 %)"


def _with_range(estimate: Estimate, *, as_percent: bool = False) -> str:
    value = percent(estimate.value) if as_percent else number(estimate.value, 2)
    return f"{value}, {_range(estimate, as_percent=as_percent)}"


def _threshold(share: float) -> str:
    # Where the best score is another's, only accepting nobody keeps the limit.
    return "nobody" if math.isinf(share) else number(100 * share, 1)
