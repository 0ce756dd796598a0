"""`make calibrate`: labelled speech -> the calibration at which a model's percentages hold."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from accent.errors import ModelFolderError
from accent.model import Calibration
from pydantic import Field, field_validator

from aurea.archive.build import PackagingError
from aurea.archive.layout import CALIBRATION_FILE
from aurea.command_line import CommandLine, read
from aurea.lab.calibration.fitting import fit
from aurea.lab.calibration.model_folder import calibration_document, write_calibration
from aurea.lab.corpus import read_clips
from aurea.lab.evaluation.answer_log import RESULTS_FILE
from aurea.lab.evaluation.engine import evaluate_clips
from aurea.lab.evaluation.model_facts import ModelFacts, model_facts
from aurea.lab.evaluation.outputs import default_out, write_json
from aurea.lab.reporting.calibration_report import PAGE_FILE, write_calibration_page
from aurea.lab.reporting.terminal import calibration_lines, calibration_text
from aurea.models.choice import DEFAULT_CACHE, DEFAULT_EMBEDDED, ModelUnavailable, choose_model


class CalibrateOptions(CommandLine):
    """Fit a model's scale and US bias on labelled speech."""

    model: str
    """commonaccent, commonaccent-xlsr, embedded, embedded-ecapa or a folder."""

    data: str
    """Folders and CSV files, with spaces between them."""

    into: Path | None = None
    """New folder for a calibrated copy of the model; the model itself by default."""

    out: Path | None = None
    """Folder for the page and all answers; one for each state of a model by default."""

    jobs: int = Field(default=0, ge=0)
    """Processes; 0: one a core."""

    seed: int = Field(default=0, ge=0)
    """Halves the speakers."""

    dry_run: bool = False
    """Show, and write to no model."""

    @field_validator("data")
    @classmethod
    def _names_data(cls, data: str) -> str:
        if not data.split():
            raise ValueError(
                "DATA is needed: a folder with one sub-folder per accent, or a CSV file"
            )
        return data


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, show, and write unless told otherwise; the exit status is 1 if nothing is gained."""
    options = read(CalibrateOptions, arguments)
    sources = options.data.split()
    try:
        choice = choose_model(options.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
        if choice.notice:
            print(choice.notice)
        _refuse_unwritable(choice.folder, options.into, dry_run=options.dry_run)
        model = model_facts(choice.folder, choice.name)
        out = options.out or default_out(model.name, model.digest)
        clips = read_clips([Path(source) for source in sources])
        results = evaluate_clips(choice.folder, clips, jobs=options.jobs, log=out / RESULTS_FILE)
        result = fit(results, model.labels, _known(model), options.seed)
        page = write_calibration_page(result, model.name, out / PAGE_FILE)
        print("\n".join(calibration_lines(result)))
        print(page)
        if options.dry_run:
            return 0
        if not result.improves:
            print("Nothing was written: the other half of the speakers is no likelier than before.")
            return 1
        target = options.into or choice.folder
        if options.into:
            shutil.copytree(
                choice.folder, target, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True
            )
        written = write_calibration(target, result.after.calibration)
        write_json(
            target / CALIBRATION_FILE, calibration_document(result, target, sources, options.seed)
        )
    except (ModelUnavailable, ModelFolderError, PackagingError) as error:
        raise SystemExit(f"{error}") from None
    print(f"{written}: {calibration_text(result.after.calibration)}")
    print(target / CALIBRATION_FILE)
    return 0


def _known(model: ModelFacts) -> Calibration:
    if model.calibration is None:
        raise TypeError("a folder's model has a calibration")
    return model.calibration


def _refuse_unwritable(folder: Path, into: Path | None, *, dry_run: bool) -> None:
    if into is not None:
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise SystemExit(f"{into} is there already: name a new folder with INTO=.")
    elif not dry_run and folder.resolve().is_relative_to(DEFAULT_CACHE.resolve()):
        raise SystemExit(
            f"{folder} holds the pretrained model, whose files are pinned by their hashes: with "
            "another calibration in it, it would be fetched anew. Calibrate a copy with "
            "INTO=folder and serve that with MODEL=folder, or add DRY_RUN=1 to look only."
        )


if __name__ == "__main__":
    sys.exit(main())
