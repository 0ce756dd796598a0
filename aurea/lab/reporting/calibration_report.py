"""A calibration as a page."""

from pathlib import Path
from typing import Final

from aurea.lab.calibration.fitting import CalibrationResult
from aurea.lab.reporting.page import Card, Page, Section, Table, write_page
from aurea.lab.reporting.pictures import reliability_picture
from aurea.lab.reporting.terminal import calibration_text
from aurea.lab.statistics import SCALE_RANGE

PAGE_FILE: Final = "calibration.html"


def write_calibration_page(result: CalibrationResult, name: str, path: Path) -> Path:
    """Write the page on `result`, and return its path."""
    before, after = result.before, result.after
    pairs = [
        ("Surprise per clip, nats, even", before.surprise, after.surprise),
        (
            "Calibration error, %",
            100 * before.expected_calibration_error,
            100 * after.expected_calibration_error,
        ),
        ("Brier score", before.brier, after.brier),
        (
            "Calibration error, even, %",
            100 * before.expected_calibration_error_even,
            100 * after.expected_calibration_error_even,
        ),
        ("Brier score, even", before.brier_even, after.brier_even),
        ("AUC, US against the rest", before.auc, after.auc),
    ]
    page = Page(
        f"Can {name}'s percentages be believed?",
        f"Fitted on {result.fitted_on.speakers} speakers, judged on "
        f"{result.judged_on.speakers} others.",
        [
            Card(
                "Calibration",
                calibration_text(after.calibration),
                f"{calibration_text(before.calibration)} before",
            ),
            *(Card(title, f"{new:.3g}", f"{old:.3g} before") for title, old, new in pairs),
        ],
        [
            Section(
                "reliability",
                "Before and after, on voices that were not fitted",
                [
                    "Of the clips that score 70 %, seven in ten should be US. The scale stretches "
                    "or squeezes all scores alike; the bias makes US as a whole likelier or less "
                    "likely."
                ],
                reliability_picture(
                    {
                        f"before, {calibration_text(before.calibration)}": before.bins,
                        f"after, {calibration_text(after.calibration)}": after.bins,
                    }
                ),
            ),
            Section(
                "data",
                "What it rests on",
                tables=[
                    Table(
                        ["half", "clips", "speakers", "US clips", "US speakers"],
                        [
                            [
                                title,
                                f"{half.clips}",
                                f"{half.speakers}",
                                f"{half.us_clips}",
                                f"{half.us_speakers}",
                            ]
                            for title, half in (
                                ("fitted", result.fitted_on),
                                ("judged", result.judged_on),
                            )
                        ],
                    )
                ],
                notes=_notes(result),
            ),
        ],
        footer="No speaker is in both halves. US and all others weigh the same in the fit.",
    )
    return write_page(page, path)


def _notes(result: CalibrationResult) -> list[str]:
    notes = [
        "A scale fitted to voices that the model was trained on is too large: only voices that "
        "it never heard tell how sure it may be.",
        "The fit supposes US and other voices to be equally common, which the figures called "
        "even are of. Where US voices are rarer or commoner, calibration error stays.",
        "Between clips the order by us_confidence may change: what is left for US depends on how "
        "the other accents share the rest.",
    ]
    if result.after.calibration.scale in SCALE_RANGE:
        notes.append(
            "The fit stands at the end of the range that was tried: the model is at chance on "
            "this data, or the data is too little to tell."
        )
    if not result.improves:
        notes.append("The other half of the speakers is no likelier as calibrated.")
    return notes
