"""Every figure that a report or a model card shows, and their names for gates and JSON."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from aurea.lab.evaluation.model_facts import ModelFacts
from aurea.lab.statistics import OperatingPoint, ReliabilityBin
from aurea.tables import interval


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval over speakers; all NaN where it cannot be told."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """As people read it: `0.80 [0.75, 0.85]`."""
        return interval(self.value, self.low, self.high, digits)


@dataclass(frozen=True)
class DataFacts:
    """What was judged. `outside` are accents that are no label of the model."""

    sources: tuple[str, ...]
    clips: int
    refused: int
    speakers: int
    clips_of_unknown_speakers: int
    us_clips: int
    us_speakers: int
    hours: float
    speech_hours: float
    kinds: dict[str, int]
    accents: dict[str, int]
    outside: tuple[str, ...]


@dataclass(frozen=True)
class UsFigures:
    """US against the rest, by the posterior at US. The curve has at most 500 points."""

    auc: Estimate
    equal_error_rate: Estimate
    operating_points: tuple[OperatingPoint, ...]
    roc_false_accepts: tuple[float, ...]
    roc_true_accepts: tuple[float, ...]


@dataclass(frozen=True)
class LabelFigures:
    """Guesses among all labels of the model, for clips whose accent is one of them.

    `confusion` has a row for each accent in the data, a column for each label of the model.
    """

    clips: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    chance: float
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    negative_log_likelihood: float


@dataclass(frozen=True)
class CalibrationFigures:
    """How far the posterior at US can be taken at its word.

    `base_rate_brier` is the Brier score of always answering with the share of US clips. Those
    `_even` are as if US and other clips were equally many.
    """

    expected_error: Estimate
    brier: Estimate
    expected_error_even: Estimate
    brier_even: Estimate
    base_rate_brier: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Group:
    """Clips that share an accent, a length, a format or a kind. Scores are in [0, 1].

    `auc` is US against the rest within the group; for an accent, US against that accent.
    `accuracy` is over clips whose accent is a label of the model. `accepted` is the share
    that passes for US at the threshold for 5 % false accepts.
    """

    name: str
    clips: int
    refused: int
    speakers: int
    us_clips: int
    mean_score: float
    median_score: float
    auc: float
    accuracy: float
    accepted: float


@dataclass(frozen=True)
class Timing:
    """Seconds from bytes to answer, and those by second of audio, of clips that got a score."""

    jobs: int
    latency_median_s: float
    latency_p95_s: float
    real_time_factor_median: float
    real_time_factor_p95: float
    latencies_s: tuple[float, ...]
    real_time_factors: tuple[float, ...]


@dataclass(frozen=True)
class Shift:
    """What a distortion does to the clips that get a score with and without it.

    `median` and `p95` are of the score's absolute change, `drift` is its mean with its sign,
    all on the scale from 0 to 1. `auc_change` is of the same clips, so `auc_before` need not
    be that of all clips. `unchanged` clips were too short to be cut and count nowhere.
    """

    title: str
    group: str
    clips: int
    refused: int
    unchanged: int
    median: float
    p95: float
    drift: float
    auc_before: float
    auc: float
    auc_change: float


@dataclass(frozen=True)
class Evaluation:
    """Everything that a report or a model card says of a model on some data.

    `refusals` has the files by the refusal's code, `scores` the posteriors at US by accent,
    `notes` what a reader must know to take the figures for what they are. `server_faults` has
    the files that got no answer, by what the server said; they count in no figure.
    """

    model: ModelFacts
    data: DataFacts
    us: UsFigures
    labels: LabelFigures | None
    calibration: CalibrationFigures
    by_accent: tuple[Group, ...]
    by_duration: tuple[Group, ...]
    by_format: tuple[Group, ...]
    by_kind: tuple[Group, ...]
    timing: Timing
    refusals: dict[str, tuple[str, ...]]
    robustness: dict[str, Shift]
    scores: dict[str, tuple[float, ...]]
    notes: tuple[str, ...]
    server_faults: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def unanswered(self) -> int:
        """How many clips got neither a score nor a refusal."""
        return sum(map(len, self.server_faults.values()))

    def to_json(self) -> dict[str, Any]:
        """Plain data with 6 digits; what is not a number is null."""
        return dict(_plain(asdict(self)))

    def figures(self) -> dict[str, float]:
        """Each figure that a gate can name. Intervals end in `.low` and `.high`."""
        estimates = {
            "auc": self.us.auc,
            "eer": self.us.equal_error_rate,
            "ece": self.calibration.expected_error,
            "brier": self.calibration.brier,
            "ece_even": self.calibration.expected_error_even,
            "brier_even": self.calibration.brier_even,
        }
        named: dict[str, float] = {}
        if self.labels is not None:
            estimates |= {
                "accuracy": self.labels.accuracy,
                "balanced_accuracy": self.labels.balanced_accuracy,
            }
            named["nll"] = self.labels.negative_log_likelihood
        for name, estimate in estimates.items():
            named |= {
                name: estimate.value,
                f"{name}.low": estimate.low,
                f"{name}.high": estimate.high,
            }
        for point in self.us.operating_points:
            named[f"true_accepts.{100 * point.max_false_accepts:g}pct"] = point.true_accepts
        named |= {
            "clips": float(self.data.clips),
            "refused": float(self.data.refused),
            "unanswered": float(self.unanswered),
            "latency.median": self.timing.latency_median_s,
            "latency.p95": self.timing.latency_p95_s,
            "rtf.median": self.timing.real_time_factor_median,
            "rtf.p95": self.timing.real_time_factor_p95,
        }
        for group in self.by_accent:
            named[f"accuracy.{group.name}"] = group.accuracy
        for key, shift in self.robustness.items():
            for part in ("median", "p95", "drift", "auc", "auc_change", "refused"):
                named[f"shift.{key}.{part}"] = float(getattr(shift, part))
        return named


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
