"""`make evaluate`: labelled speech through the engine that serves -> what its scores are worth.

Each answer is written down at once, so that a run that was killed goes on where it stood.
"""

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from accent.cores import available_cores
from accent.errors import ModelFolderError
from pydantic import Field, ValidationInfo, field_validator

from aurea.archive.build import PackagingError
from aurea.archive.distort import DISTORTIONS
from aurea.command_line import CommandLine, read
from aurea.lab.corpus import Clip, read_clips
from aurea.lab.evaluation.answer_log import RESULTS_FILE
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.engine import evaluate_clips
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.evaluation.gates import Gate, check_names, gate_lines, parse_gates
from aurea.lab.evaluation.model_facts import ModelFacts, model_facts
from aurea.lab.evaluation.outputs import default_out, write_json
from aurea.lab.evaluation.service import DEFAULT_JOBS, evaluate_service
from aurea.lab.evaluation.summary import summarise
from aurea.lab.reporting.evaluation_report import write_report
from aurea.lab.reporting.terminal import evaluation_lines
from aurea.models.choice import DEFAULT_CACHE, DEFAULT_EMBEDDED, ModelUnavailable, choose_model

JSON_FILE: Final = "evaluation.json"


class EvaluateOptions(CommandLine):
    """Judge a model, or a service that runs, on labelled speech."""

    model: str = "auto"
    """auto, commonaccent, commonaccent-xlsr, embedded, embedded-ecapa or a folder."""

    url: str = ""
    """A service that runs, in place of a model."""

    data: str
    """Folders and CSV files, with spaces between them."""

    out: Path | None = None
    """Folder for the report and all answers; one for each state of a model by default."""

    jobs: int = Field(default=0, ge=0)
    """Processes; 0: one a core, or four requests at a time to a service."""

    seed: int = Field(default=0, ge=0)
    """Draws speakers, noise and clips."""

    robustness: bool = False
    """Distort the clips as well."""

    robustness_clips: int = Field(default=300, ge=0)
    """How many clips to distort at most."""

    fail_under: str = ""
    """NAME=NUMBER,...: fail unless these figures are at least that much."""

    fail_over: str = ""
    """NAME=NUMBER,...: fail unless these figures are at most that much."""

    @field_validator("data")
    @classmethod
    def _names_data(cls, data: str) -> str:
        if not data.split():
            raise ValueError(
                "DATA is needed: a folder with one sub-folder per accent, or a CSV file"
            )
        return data

    @field_validator("robustness")
    @classmethod
    def _is_of_a_model(cls, robustness: bool, others: ValidationInfo) -> bool:
        if robustness and others.data.get("url"):
            raise ValueError("robustness is measured on a model, not on a service that others use")
        return robustness

    @field_validator("fail_under", "fail_over")
    @classmethod
    def _are_gates(cls, text: str) -> str:
        parse_gates(text, at_most=False)
        return text

    @property
    def gates(self) -> list[Gate]:
        """All that must hold."""
        under = parse_gates(self.fail_under, at_most=False)
        return [*under, *parse_gates(self.fail_over, at_most=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, write the report and hold the gates; the exit status is 1 if one fails."""
    options = read(EvaluateOptions, arguments)
    sources = options.data.split()
    clips = read_clips([Path(source) for source in sources])
    jobs = options.jobs or (DEFAULT_JOBS if options.url else available_cores())
    started = time.monotonic()
    try:
        answered = _ask_service if options.url else _ask_model
        out, model, results = answered(options, clips, jobs)
    except (ModelUnavailable, ModelFolderError, PackagingError) as error:
        raise SystemExit(f"{error}") from None
    print(f"answered after {time.monotonic() - started:.0f} s")
    evaluation = summarise(results, model, sources=sources, jobs=jobs, seed=options.seed)
    write_json(out / JSON_FILE, evaluation.to_json())
    page = write_report(evaluation, out)
    print("\n".join(evaluation_lines(evaluation)))
    print(f"{page}\n{out / JSON_FILE}")
    return _held(options.gates, evaluation)


def _ask_service(
    options: EvaluateOptions, clips: Sequence[Clip], jobs: int
) -> tuple[Path, ModelFacts, list[ClipResult]]:
    digest = hashlib.sha256(options.url.encode()).hexdigest()
    out = options.out or default_out("service", digest)
    return out, *evaluate_service(options.url, clips, jobs=jobs, log=out / RESULTS_FILE)


def _ask_model(
    options: EvaluateOptions, clips: Sequence[Clip], jobs: int
) -> tuple[Path, ModelFacts, list[ClipResult]]:
    choice = choose_model(options.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
    if choice.notice:
        print(choice.notice)
    model = model_facts(choice.folder, choice.name)
    out = options.out or default_out(model.name, model.digest)
    results = evaluate_clips(
        choice.folder,
        clips,
        jobs=jobs,
        log=out / RESULTS_FILE,
        distortions=tuple(DISTORTIONS) if options.robustness else (),
        distorted_clips=options.robustness_clips,
        seed=options.seed,
    )
    return out, model, results


def _held(gates: Sequence[Gate], evaluation: Evaluation) -> int:
    """The exit status: 1 if a gate fails, or its figures lack clips that the server failed on."""
    if not gates:
        return 0
    figures = evaluation.figures()
    check_names(gates, figures)
    print(gate_lines(gates, figures))
    if evaluation.unanswered:
        print(f"  FAILED  {evaluation.unanswered} clips have no answer yet: run it again")
        return 1
    return 0 if all(gate.holds(figures) for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
