"""An evaluation and a calibration in a few lines, for the terminal."""

import math
from collections.abc import Sequence
from typing import Final

from accent.model import Calibration

from aurea.lab.calibration.fitting import CalibrationResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.tables import columns, number, percent, text_table

_MOST_PATHS: Final = 5


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """The figures that are read first, then every distortion, refusal and fault."""
    data, us, timing = evaluation.data, evaluation.us, evaluation.timing
    rows = [
        ("AUC US / rest", us.auc.text(3)),
        ("equal error rate", us.equal_error_rate.text(3)),
    ]
    rows += [
        (
            f"at {percent(point.max_false_accepts)} false accepts",
            f"{percent(point.true_accepts)} of US accepted "
            f"(threshold {number(100 * point.threshold, 1)})",
        )
        for point in us.operating_points
        if not math.isnan(point.threshold)
    ]
    if evaluation.labels is not None:
        rows += [
            ("accuracy", evaluation.labels.accuracy.text(3)),
            (
                "balanced accuracy",
                f"{evaluation.labels.balanced_accuracy.text(3)}, "
                f"chance {number(evaluation.labels.chance, 3)}",
            ),
        ]
    rows += [
        ("calibration error", evaluation.calibration.expected_error.text(3)),
        (
            "Brier score",
            f"{evaluation.calibration.brier.text(3)}, "
            f"base rate {number(evaluation.calibration.base_rate_brier, 3)}",
        ),
        ("calibration error, even", evaluation.calibration.expected_error_even.text(3)),
        ("Brier score, even", evaluation.calibration.brier_even.text(3)),
        (
            "time per clip",
            f"median {number(1000 * timing.latency_median_s, 0)} ms, "
            f"95 % within {number(1000 * timing.latency_p95_s, 0)} ms",
        ),
    ]
    rows += [
        (
            shift.title,
            f"moves the score by {number(100 * shift.median, 1)} (95 % within "
            f"{number(100 * shift.p95, 1)}), {shift.refused} refused"
            + (
                ""
                if math.isnan(shift.auc_change)
                else f", AUC {number(shift.auc_change, 3, signed=True)}"
            ),
        )
        for shift in evaluation.robustness.values()
        if shift.clips
    ]
    return [
        f"{evaluation.model.name}: {data.clips} clips, {data.speakers} speakers "
        f"({data.us_speakers} US), {data.hours:.2f} h; {data.refused} refused",
        *(f"  {line}" for line in columns(rows)),
        *(f"  {_files(code, paths)}" for code, paths in evaluation.refusals.items()),
        *(
            f"  no answer, {_files(fault, paths)}; the next run asks again"
            for fault, paths in evaluation.server_faults.items()
        ),
    ]


def _files(name: str, paths: Sequence[str]) -> str:
    more = len(paths) - _MOST_PATHS
    rest = f" and {more} more" if more > 0 else ""
    return f"{name}: {len(paths)} ({', '.join(paths[:_MOST_PATHS])}{rest})"


def calibration_text(calibration: Calibration) -> str:
    """A calibration in a few words."""
    bias = f", US bias {calibration.us_bias:+g}" if calibration.us_bias else ""
    return f"scale {calibration.scale:g}{bias}"


def calibration_lines(result: CalibrationResult) -> list[str]:
    """What was fitted and judged on which clips, before and after."""
    before, after = result.before, result.after
    rows = [
        (title, f"{old:.4g}", f"{new:.4g}")
        for title, old, new in (
            ("scale", before.calibration.scale, after.calibration.scale),
            ("US bias", before.calibration.us_bias, after.calibration.us_bias),
            ("surprise, even", before.surprise, after.surprise),
            (
                "calibration error",
                before.expected_calibration_error,
                after.expected_calibration_error,
            ),
            ("Brier score", before.brier, after.brier),
            (
                "calibration error, even",
                before.expected_calibration_error_even,
                after.expected_calibration_error_even,
            ),
            ("Brier score, even", before.brier_even, after.brier_even),
            ("AUC, US against the rest", before.auc, after.auc),
        )
    ]
    fitted, judged = result.fitted_on, result.judged_on
    return [
        f"fitted on {fitted.clips} clips of {fitted.speakers} speakers, "
        f"judged on {judged.clips} clips of {judged.speakers} others",
        *(f"  {line}" for line in text_table(["", "before", "after"], rows).splitlines()),
    ]
