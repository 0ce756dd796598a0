"""What people read of a judgement: a section of the model's card, and a table on the terminal."""

from collections.abc import Sequence

from accent.bounds import MAX_P99_POINTS, MAX_POINTS
from accent.ecapa.compiled import processor_name
from tabulate import tabulate

from aurea.archive.judging import JudgedEngine, Judgement


def card_section(judgement: Judgement, packed: Sequence[JudgedEngine]) -> str:
    """What the packaged model card says of precision, in Markdown."""
    rows = [
        [
            engine.packed.name,
            *_deviation_cells(engine),
            "yes" if engine.packed.within_bounds else "no",
            "yes" if engine in packed else "no",
        ]
        for engine in judgement.engines
    ]
    headers = ["engine", "p50", "p99", "largest", "same top accent", "within bounds", "packed"]
    # What was not timed is in the order in which processors usually compute it the fastest.
    first = "first of the table" if judgement.engines[0].pass_s is None else "fastest"
    return "\n".join(
        [
            "## How exactly it is computed",
            "",
            f"Deviation of `us_confidence` from {judgement.reference.name}, in points, over "
            f"{len(judgement.clips)} clips of synthesised speech and its telephone, noisy, quiet "
            f"and short copies, none of them seen by the quantizer; scale "
            f"{judgement.calibration.scale:g}, US bias {judgement.calibration.us_bias:g}. `auto` "
            f"takes the {first} with p99 up to {MAX_P99_POINTS:g} and largest up to {MAX_POINTS:g} "
            "that a processor has instructions for. Measured when this archive was built, on "
            f"{processor_name()}; a GPU computes in torch, which was not measured.",
            "",
            tabulate(rows, headers, tablefmt="github", disable_numparse=True),
        ]
    )


def terminal_table(judgement: Judgement, packed: Sequence[JudgedEngine]) -> str:
    """The engines with their deviations and speed, and which of them are left out and why."""
    rows = [
        [
            "",
            engine.packed.name,
            *_deviation_cells(engine),
            "" if engine.pass_s is None else f"{1000 * engine.pass_s:.1f}",
            "" if engine in packed else "left out",
            "" if engine.deviations.within_bounds else "beyond the bounds",
        ]
        for engine in judgement.engines
    ]
    headers = ["", "", "p50", "p99", "max", "top accent", "ms for 5 s", "", ""]
    alignment = ["left", "left", *["right"] * 5, "left", "left"]
    table = tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=alignment)
    title = (
        f"engines over {len(judgement.clips)} clips; us_confidence against "
        f"{judgement.reference.name}, in points"
    )
    return "\n".join([title, *(line.rstrip() for line in table.splitlines())])


def _deviation_cells(engine: JudgedEngine) -> list[str]:
    deviations = engine.deviations
    return [
        f"{deviations.p50:.2f}",
        f"{deviations.p99:.2f}",
        f"{deviations.max:.2f}",
        f"{100 * deviations.top_accent_agreement:.1f} %",
    ]
