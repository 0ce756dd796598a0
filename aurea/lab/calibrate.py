"""`make calibrate`: labelled speech -> the softmax scale at which a model's percentages hold.

The scale alone is fitted, on half of the speakers, and judged on the other half. It can change
no ranking of accents within a clip. What it rests on is written beside it.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from accent.errors import ModelFolderError
from accent.layout import CLASSIFIER_FILE, EMBEDDING_FILE, HYPERPARAMS_FILE, LABELS_FILE, US_LABEL
from accent.scoring import posterior
from accent.specification import read_spec

from aurea.archive.build import PackagingError
from aurea.archive.layout import CALIBRATION_FILE
from aurea.files import whole_file
from aurea.lab.corpus import halve_by_speaker, read_clips
from aurea.lab.evaluate import (
    RESULTS_FILE,
    default_out,
    evaluate_clips,
    model_facts,
    write_json,
)
from aurea.lab.figures import ClipResult, label_rows
from aurea.lab.reporting.report import Card, Page, Section, Table, reliability_picture, write_page
from aurea.lab.statistics import (
    SCALE_RANGE,
    Floats,
    Integers,
    ReliabilityBin,
    area_under_roc,
    brier_score,
    calibration_error,
    fit_scale,
    negative_log_likelihood,
    reliability,
)
from aurea.models.choice import DEFAULT_CACHE, DEFAULT_EMBEDDED, ModelUnavailable, choose_model

PAGE_FILE: Final = "calibration.html"


@dataclass(frozen=True)
class Half:
    """Which clips stand behind a figure; all have an accent that is a label of the model."""

    clips: int
    speakers: int
    us_clips: int
    us_speakers: int
    clips_by_label: dict[str, int]


@dataclass(frozen=True)
class Belief:
    """How far scores at one scale can be believed, on the half that was not fitted.

    Likelihood is of all labels, each weighing the same, in nats a clip; calibration error,
    Brier score and AUC are of the posterior at US. AUC moves a little, since what is left
    for US in a clip depends on how the other accents share.
    """

    softmax_scale: float
    negative_log_likelihood: float
    expected_calibration_error: float
    brier: float
    auc: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Evidence:
    """A fitted scale and what it rests on."""

    before: Belief
    after: Belief
    fitted_on: Half
    judged_on: Half

    @property
    def improves(self) -> bool:
        """Whether voices that were not fitted are likelier at the new scale."""
        return self.after.negative_log_likelihood < self.before.negative_log_likelihood


def fit(
    results: Sequence[ClipResult], labels: Sequence[str], softmax_scale: float, seed: int
) -> Evidence:
    """Fit a scale on half of the speakers in `results` and judge both on the other half.

    Clips that were refused or whose accent is no label of the model are left out.

    Raises `SystemExit` unless US and other clips are in both halves.
    """
    known, _, _ = label_rows(results, labels)
    first, _ = halve_by_speaker([result.clip for result in known], seed)
    fitted = {clip.speaker for clip in first}
    halves = [
        [result for result in known if (result.clip.speaker in fitted) == wanted]
        for wanted in (True, False)
    ]
    for half in halves:
        if {result.clip.accent == US_LABEL for result in half} != {True, False}:
            raise SystemExit(
                "Too few speakers: US and other voices with accents that the model knows "
                f"({', '.join(labels)}) are needed in both halves, at least two speakers each."
            )
    _, cosines, targets = label_rows(halves[0], labels)
    scale = fit_scale(cosines, targets)
    _, cosines, targets = label_rows(halves[1], labels)
    us = labels.index(US_LABEL)
    return Evidence(
        _belief(cosines, targets, us, softmax_scale),
        _belief(cosines, targets, us, scale),
        _half(halves[0], labels),
        _half(halves[1], labels),
    )


def _belief(cosines: Floats, targets: Integers, us: int, scale: float) -> Belief:
    posteriors = posterior(cosines, scale)
    scores, positive = posteriors[:, us], targets == us
    return Belief(
        scale,
        negative_log_likelihood(posteriors, targets),
        calibration_error(scores, positive),
        brier_score(scores, positive),
        area_under_roc(scores, positive),
        tuple(reliability(scores, positive)),
    )


def _half(results: Sequence[ClipResult], labels: Sequence[str]) -> Half:
    us = [result for result in results if result.clip.accent == US_LABEL]
    counts = {label: sum(r.clip.accent == label for r in results) for label in labels}
    return Half(
        len(results),
        len({result.clip.speaker for result in results}),
        len(us),
        len({result.clip.speaker for result in us}),
        {label: count for label, count in counts.items() if count},
    )


def write_scale(model_folder: Path, softmax_scale: float) -> None:
    """Set the scale in `model_folder`'s hyperparams.yaml, whole or not at all, and only that.

    The entry is added at the top where there is none.

    Raises `ModelFolderError` if the file would say anything else than before.
    """
    path = model_folder / HYPERPARAMS_FILE
    before = read_spec(path)
    text = path.read_bytes().decode()
    entry = f"softmax_scale: {softmax_scale:g}"
    text, found = re.subn(r"(?m)^softmax_scale:[^\r\n]*", entry, text, count=1)
    if not found:
        line_end = "\r\n" if "\r\n" in text else "\n"
        start = re.match(r"(?:%[^\n]*\n)*---[^\n]*\n", text)
        place = start.end() if start else 0
        text = f"{text[:place]}{entry}{line_end}{text[place:]}"
    with whole_file(path) as part:
        part.write_bytes(text.encode())
        if read_spec(part) != replace(before, softmax_scale=float(f"{softmax_scale:g}")):
            raise ModelFolderError(f"{path}: the entry softmax_scale could not be set by itself.")


def document(
    evidence: Evidence, model_folder: Path, sources: Sequence[str], seed: int
) -> dict[str, Any]:
    """What calibration.json says; the weights' hash tells which model the scale belongs to."""
    digest = hashlib.sha256()
    for name in (EMBEDDING_FILE, CLASSIFIER_FILE, LABELS_FILE):
        digest.update((model_folder / name).read_bytes())
    return {
        "softmax_scale": evidence.after.softmax_scale,
        "weights_sha256": digest.hexdigest(),
        "data": [Path(source).name for source in sources],
        "seed": seed,
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        **json.loads(json.dumps(asdict(evidence)), parse_float=lambda text: round(float(text), 6)),
    }


def write_calibration_page(evidence: Evidence, name: str, path: Path) -> Path:
    """Write the page on `evidence`, and return its path."""
    before, after = evidence.before, evidence.after
    pairs = [
        (
            "Surprise per clip, nats",
            before.negative_log_likelihood,
            after.negative_log_likelihood,
        ),
        (
            "Calibration error, %",
            100 * before.expected_calibration_error,
            100 * after.expected_calibration_error,
        ),
        ("Brier score", before.brier, after.brier),
        ("AUC, US against the rest", before.auc, after.auc),
    ]
    page = Page(
        f"Can {name}'s percentages be believed?",
        f"Fitted on {evidence.fitted_on.speakers} speakers, judged on "
        f"{evidence.judged_on.speakers} others.",
        [
            Card("Softmax scale", f"{after.softmax_scale:g}", f"{before.softmax_scale:g} before"),
            *(Card(title, f"{new:.3g}", f"{old:.3g} before") for title, old, new in pairs),
        ],
        [
            Section(
                "reliability",
                "Before and after, on voices that were not fitted",
                [
                    "Of the clips that score 70 %, seven in ten should be US. The scale stretches "
                    "or squeezes all scores alike and changes no clip's order of accents."
                ],
                reliability_picture(
                    {
                        f"before, scale {before.softmax_scale:g}": before.bins,
                        f"after, scale {after.softmax_scale:g}": after.bins,
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
                                ("fitted", evidence.fitted_on),
                                ("judged", evidence.judged_on),
                            )
                        ],
                    )
                ],
                notes=_notes(evidence),
            ),
        ],
        footer="No speaker is in both halves. Each accent weighs the same in the fit.",
    )
    return write_page(page, path)


def _notes(evidence: Evidence) -> list[str]:
    notes = [
        "A scale fitted to voices that the model was trained on is too large: only voices that "
        "it never heard tell how sure it may be.",
        "The posterior supposes each of the model's accents to be equally common. Where US "
        "voices are rarer or commoner than that, calibration error stays.",
        "Between clips the order by us_confidence may change: what is left for US depends on how "
        "the other accents share the rest.",
    ]
    if evidence.after.softmax_scale in SCALE_RANGE:
        notes.append(
            "The fit stands at the end of the range that was tried: the model is at chance on "
            "this data, or the data is too little to tell."
        )
    if not evidence.improves:
        notes.append("The other half of the speakers is no likelier at the new scale.")
    return notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, show, and write unless told otherwise; the exit status is 1 if nothing is gained."""
    parser = argparse.ArgumentParser(prog="calibrate", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="commonaccent, embedded or a folder")
    parser.add_argument("--data", required=True, help="folders and CSV files, with spaces")
    parser.add_argument("--into", type=Path, help="new folder for a calibrated copy of the model")
    parser.add_argument("--out", type=Path, help="folder for the page and all answers")
    parser.add_argument("--jobs", type=int, default=0, help="processes; one a core by default")
    parser.add_argument("--seed", type=int, default=0, help="halves the speakers")
    parser.add_argument("--dry-run", action="store_true", help="show, and write to no model")
    options = parser.parse_args(arguments)
    sources = options.data.split()
    if not sources:
        parser.error("DATA is needed: a folder with one sub-folder per accent, or a CSV file")
    try:
        choice = choose_model(options.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
        if choice.notice:
            print(choice.notice)
        _refuse_unwritable(choice.folder, options.into, dry_run=options.dry_run)
        model = model_facts(choice.folder, choice.name)
        out = options.out or default_out(model.name, model.digest)
        clips = [
            clip
            for clip in read_clips([Path(source) for source in sources])
            if clip.accent in model.labels
        ]
        results = evaluate_clips(choice.folder, clips, jobs=options.jobs, log=out / RESULTS_FILE)
        evidence = fit(results, model.labels, model.softmax_scale, options.seed)
        page = write_calibration_page(evidence, model.name, out / PAGE_FILE)
        print(_table(evidence))
        print(page)
        if options.dry_run:
            return 0
        if not evidence.improves:
            print("Nothing was written: the other half of the speakers is no likelier than before.")
            return 1
        target = options.into or choice.folder
        if options.into:
            shutil.copytree(
                choice.folder, target, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True
            )
        write_scale(target, evidence.after.softmax_scale)
        write_json(target / CALIBRATION_FILE, document(evidence, target, sources, options.seed))
    except (ModelUnavailable, ModelFolderError, PackagingError) as error:
        raise SystemExit(f"{error}") from None
    print(f"{target / HYPERPARAMS_FILE}: softmax_scale: {evidence.after.softmax_scale:g}")
    print(target / CALIBRATION_FILE)
    return 0


def _refuse_unwritable(folder: Path, into: Path | None, *, dry_run: bool) -> None:
    if into is not None:
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise SystemExit(f"{into} is there already: name a new folder with INTO=.")
    elif not dry_run and folder.resolve().is_relative_to(DEFAULT_CACHE.resolve()):
        raise SystemExit(
            f"{folder} holds the pretrained model, whose files are pinned by their hashes: with "
            "another scale in it, it would be fetched anew. Calibrate a copy with INTO=folder "
            "and serve that with MODEL=folder, or add DRY_RUN=1 to look only."
        )


def _table(evidence: Evidence) -> str:
    lines = [
        f"fitted on {evidence.fitted_on.clips} clips of {evidence.fitted_on.speakers} speakers, "
        f"judged on {evidence.judged_on.clips} clips of {evidence.judged_on.speakers} others",
        f"  {'':<26}{'before':>9}{'after':>9}",
    ]
    for title, name in (
        ("softmax scale", "softmax_scale"),
        ("negative log-likelihood", "negative_log_likelihood"),
        ("calibration error", "expected_calibration_error"),
        ("Brier score", "brier"),
        ("AUC, US against the rest", "auc"),
    ):
        old, new = (getattr(belief, name) for belief in (evidence.before, evidence.after))
        lines.append(f"  {title:<26}{old:>9.4g}{new:>9.4g}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
