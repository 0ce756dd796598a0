"""What was measured -> what it comes to: pure functions over records."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import numpy as np

ALONE: Final = "alone"
CROWD: Final = "crowd"
RATE: Final = "rate"
CROWD_USERS: Final = 8

SERVICE: Final = "service"
ORIGINAL: Final = "original"
SPEECHBRAIN: Final = "speechbrain fp32"
FRAMEWORKS: Final = ("litserve", "ray")

CLIP_S: Final = 5.0
LENGTHS_S: Final = (2.0, 10.0)
"""A short clip and a long one, whose costs a second of audio are compared."""

# An answer that was under way when the load ended is late, not lost.
_LATE_S: Final = 0.5


@dataclass(frozen=True)
class Spread:
    """The median of several rounds and their range. All three are nan where there was none."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Spread":
        """The same in another unit."""
        return Spread(factor * self.value, factor * self.low, factor * self.high)

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Of what is finite among `values`."""
        known = [value for value in values if math.isfinite(value)]
        if not known:
            return Spread(math.nan, math.nan, math.nan)
        return Spread(median(known), min(known), max(known))


@dataclass(frozen=True)
class Stretch:
    """One stretch of load on one contestant.

    `records` are the load generator's: `sent_s` after the start, `latency_s`, `clip`, `fault`
    (why the answer is wrong, "" if right) and `us_confidence`.
    """

    contestant: str
    kind: str
    round: int
    duration_s: float
    records: Sequence[Mapping[str, Any]]
    cpu_s: float = 0.0
    others_cpu_s: float = 0.0
    load_cpu_s: float = 0.0
    peak_bytes: int = 0
    rate_per_s: float | None = None
    cpu_s_by_part: Mapping[str, float] = field(default_factory=dict)

    def clips_per_s(self, durations_s: Sequence[float]) -> float:
        """Right answers a second, as so many clips of 5 s; nan for fewer than three.

        From the first answer to the last one within the stretch, so that neither the start
        nor what was under way at the end counts for or against anyone.
        """
        done = sorted(
            (record["sent_s"] + record["latency_s"], durations_s[record["clip"]])
            for record in self.records
            if not record["fault"] and record["sent_s"] + record["latency_s"] <= self.duration_s
        )
        if len(done) < 3:
            return math.nan
        audio_s: float = sum(duration_s for _, duration_s in done[1:])
        return float(audio_s / CLIP_S / (done[-1][0] - done[0][0]))

    def latencies_s(self) -> list[float]:
        """Of right answers."""
        return [record["latency_s"] for record in self.records if not record["fault"]]

    def percentile_s(self, share: float) -> float:
        """A percentile of the latencies, 0 to 100; nan without any."""
        latencies = self.latencies_s()
        return float(np.percentile(latencies, share)) if latencies else math.nan

    def faults(self) -> Counter[str]:
        """How many answers were wrong, by why."""
        return Counter(record["fault"] for record in self.records if record["fault"])

    def served_share(self) -> float:
        """Of what a fixed rate offers, the share that was answered rightly by the end."""
        if not self.rate_per_s:
            return math.nan
        served = [
            record
            for record in self.records
            if not record["fault"]
            and record["sent_s"] + record["latency_s"] <= self.duration_s + _LATE_S
        ]
        return min(1.0, len(served) / (self.rate_per_s * self.duration_s))


@dataclass
class Measured:
    """All that a run has measured so far; a rival that failed has its reason in `failures`."""

    durations_s: Sequence[float]
    stretches: list[Stretch] = field(default_factory=list)
    starts_s: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    loops: dict[str, list[float]] = field(default_factory=dict)
    """Clips of 5 s a second of an engine alone on all cores, a value a round."""

    engines_ms: list[dict[str, list[float]]] = field(default_factory=list)
    """Milliseconds for 5 s of speech by engine, a mapping a round."""

    products_gops: list[dict[str, float]] = field(default_factory=list)
    """Billions of operations a second of the processor by precision, a mapping a round."""

    gflop: float = math.nan
    """Billions of operations that the products of 5 s take at least; nan where not counted."""

    stages_ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds of one core that a worker spends on 5 s of speech by stage, on its own."""

    lengths_ms: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds of one core that a worker spends on a second of audio, by seconds of a clip."""

    deviations: dict[str, dict[str, Any]] = field(default_factory=dict)
    within_bounds: dict[str, bool] = field(default_factory=dict)
    auto: str = ""
    """The engine that `auto` is here."""

    reference: str = ""
    """The engine that the others are held against."""

    has_peers: bool = True
    """Whether SpeechBrain, and so the original, computes this kind of model."""

    def of(self, contestant: str, kind: str) -> list[Stretch]:
        """Stretches of a kind, in the order of their rounds."""
        return [
            stretch
            for stretch in self.stretches
            if stretch.contestant == contestant and stretch.kind == kind
        ]

    def contestants(self) -> list[str]:
        """All that load was put on, in the order of their first stretches."""
        return list(dict.fromkeys(stretch.contestant for stretch in self.stretches))

    def throughput(self, contestant: str, kind: str = CROWD) -> Spread:
        """Clips of 5 s a second."""
        return Spread.of(
            [stretch.clips_per_s(self.durations_s) for stretch in self.of(contestant, kind)]
        )

    def latency_s(self, contestant: str, kind: str, share: float) -> Spread:
        """A percentile of latency: the value of all rounds' answers, the range of the rounds'.

        High percentiles of few answers are drawn towards the middle, so the value can lie
        beyond every round's own; the range then reaches as far as it.
        """
        stretches = self.of(contestant, kind)
        rounds = Spread.of([stretch.percentile_s(share) for stretch in stretches])
        every = [latency for stretch in stretches for latency in stretch.latencies_s()]
        if not every:
            return rounds
        value = float(np.percentile(every, share))
        return Spread(value, min(rounds.low, value), max(rounds.high, value))

    def peak_bytes(self, contestant: str) -> int:
        """The most memory of all its processes together."""
        return max(
            (each.peak_bytes for each in self.stretches if each.contestant == contestant),
            default=0,
        )

    def cpu_ms_by_part(self, contestant: str) -> dict[str, Spread]:
        """Milliseconds of one core for 5 s of speech in a crowd, by part of the service."""
        found: dict[str, list[float]] = {}
        for stretch in self.of(contestant, CROWD):
            # What was under way at the end was paid for as well.
            clips = sum(self.durations_s[each["clip"]] for each in stretch.records) / CLIP_S
            for part, spent_s in stretch.cpu_s_by_part.items():
                found.setdefault(part, []).append(1000 * spent_s / clips if clips else math.nan)
        return {part: Spread.of(values) for part, values in found.items()}

    def faults(self, contestant: str, *kinds: str) -> Counter[str]:
        """Wrong answers by why."""
        found: Counter[str] = Counter()
        for kind in kinds:
            for stretch in self.of(contestant, kind):
                found += stretch.faults()
        return found

    def engine_ms(self, engine: str) -> Spread:
        """Medians of the rounds."""
        return Spread.of([median(taken[engine]) for taken in self.engines_ms if engine in taken])

    def engines(self) -> list[str]:
        """All that were timed."""
        return list(dict.fromkeys(name for taken in self.engines_ms for name in taken))

    def limit_ms(self, precision: str) -> Spread:
        """What a clip of 5 s takes if nothing but its products were computed, at full rate."""
        rates = [rates[precision] for rates in self.products_gops if precision in rates]
        return Spread.of([self.gflop / rate * 1000 for rate in rates])

    def beaten_limits(self) -> list[str]:
        """Engines that were faster than "nothing can be": then the limit was measured wrong."""
        found = []
        for engine in self.engines():
            precision = engine.split()[-1]
            rates = [rates[precision] for rates in self.products_gops if precision in rates]
            fastest = min(min(taken[engine]) for taken in self.engines_ms if engine in taken)
            least_ms = 1000 * self.gflop / max(rates, default=math.nan)
            if fastest < least_ms:
                found.append(
                    f"{engine} took {fastest:.1f} ms for what no product of {precision} here "
                    f"could do in less than {least_ms:.1f} ms"
                )
        return found
