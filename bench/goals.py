"""The figures to reach, each held against what was measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.results import (
    ALONE,
    CROWD,
    CROWD_USERS,
    FRAMEWORKS,
    LENGTHS_S,
    ORIGINAL,
    SERVICE,
    SPEECHBRAIN,
    Measured,
    Spread,
)


@dataclass(frozen=True)
class Goal:
    """A figure to reach: `value` compared with `bound`, which it must not fall under, or exceed."""

    name: str
    subject: str
    value: Spread
    bound: float
    at_least: bool
    unit: str = "\u00d7"

    @property
    def reached(self) -> bool | None:
        """None where it was not measured."""
        if math.isnan(self.value.value):
            return None
        if self.at_least:
            return self.value.value >= self.bound
        return self.value.value <= self.bound


def goals(measured: Measured) -> list[Goal]:
    """The figures to reach, each for `auto` and, where they were measured, for each precision."""
    found: list[Goal] = []
    bounds = {"int8": 6.0, "bf16": 3.0, "fp32": 1.3}
    for precision, bound in bounds.items():
        names = [name for name in measured.engines() if name.endswith(precision)]
        ours = [name for name in names if name != SPEECHBRAIN]
        if ours and measured.has_peers:
            fastest = min(ours, key=lambda name: measured.engine_ms(name).value)
            speedup = _by_round(
                measured.engines_ms,
                lambda taken, fastest=fastest: (  # type: ignore[misc]
                    median(taken[SPEECHBRAIN]) / median(taken[fastest])
                ),
            )
            found.append(
                Goal("engine against SpeechBrain, one clip", fastest, speedup, bound, True)
            )
            if precision == "int8":
                # Who else is on the machine only ever adds: the fastest pass is held against
                # the fastest product.
                ratios = [
                    min(taken[fastest]) / (measured.gflop / rates["int8"] * 1000)
                    for taken, rates in zip(
                        measured.engines_ms, measured.products_gops, strict=False
                    )
                ]
                found.append(
                    Goal("engine against the int8 limit", fastest, Spread.of(ratios), 1.35, False)
                )
    services = [name for name in measured.contestants() if name.startswith(SERVICE)]
    for service in services:
        found += _service_goals(measured, service)
    return found


def _service_goals(measured: Measured, service: str) -> list[Goal]:
    subject = service if service != SERVICE else f"{service} (auto: {measured.auto})"
    engine = service.removeprefix(SERVICE).strip() or "auto"
    rivals = [
        measured.throughput(f"{name} + our engine").value
        for name in FRAMEWORKS
        if measured.of(f"{name} + our engine", CROWD)
    ]
    best = max((rate for rate in rivals if math.isfinite(rate)), default=math.nan)
    loop = Spread.of(measured.loops.get(engine, []))
    found = _goals_against_the_original(measured, service, subject) if measured.has_peers else []
    found.append(
        Goal(
            "service against our engine alone in a loop",
            subject,
            _ratio(measured.throughput(service), loop),
            0.90,
            True,
        )
    )
    if service != SERVICE:
        return found
    starts = measured.starts_s.get(service, [])
    return [
        *found,
        *_goals_besides_the_model(measured, subject),
        Goal(
            "service against the better of LitServe and Ray Serve with our engine",
            subject,
            _ratio(measured.throughput(service), Spread(best, best, best)),
            0.95,
            True,
        ),
        Goal(
            "whole service's memory",
            subject,
            _single(measured.peak_bytes(service) / 1e9 or math.nan),
            1.5,
            False,
            "GB",
        ),
        Goal(
            "second start to ready",
            subject,
            _single(starts[1] if len(starts) > 1 else math.nan),
            12.0,
            False,
            "s",
        ),
    ]


def _goals_besides_the_model(measured: Measured, subject: str) -> list[Goal]:
    """What a clip may cost beside its pass."""
    spent = measured.cpu_ms_by_part(SERVICE)
    both = [spent[part] for part in ("proxy", "TorchServe") if part in spent]
    lone_ms = measured.latency_s(SERVICE, ALONE, 50).times(1000)
    short, long = (Spread.of(measured.lengths_ms.get(f"{each:g}", [])) for each in LENGTHS_S)
    return [
        Goal(
            "p50 of a lone clip against the pass of 5 s on all cores",
            subject,
            _ratio(lone_ms, measured.engine_ms(measured.auto)),
            1.25,
            False,
        ),
        Goal(
            f"proxy and TorchServe at concurrency {CROWD_USERS}, of one core a clip",
            subject,
            Spread(
                *(
                    sum(getattr(part, name) for part in both) if len(both) == 2 else math.nan
                    for name in ("value", "low", "high")
                )
            ),
            2.5,
            False,
            "ms",
        ),
        Goal(
            f"a second of a {LENGTHS_S[0]:g} s clip against one of {LENGTHS_S[1]:g} s, of one core",
            f"a worker ({measured.auto})",
            _ratio(short, long),
            1.10,
            False,
        ),
    ]


def _goals_against_the_original(measured: Measured, service: str, subject: str) -> list[Goal]:
    crowd = f"concurrency {CROWD_USERS}"
    return [
        Goal(
            f"service against the original, {crowd}, clips a second",
            subject,
            _ratio(measured.throughput(service), measured.throughput(ORIGINAL)),
            6.0,
            True,
        ),
        Goal(
            f"service against the original, {crowd}, p99 latency",
            subject,
            _ratio(measured.latency_s(service, CROWD, 99), measured.latency_s(ORIGINAL, CROWD, 99)),
            1 / 6,
            False,
        ),
        Goal(
            "service against the original, concurrency 1, p50 latency",
            subject,
            _ratio(measured.latency_s(service, ALONE, 50), measured.latency_s(ORIGINAL, ALONE, 50)),
            1 / 4,
            False,
        ),
    ]


def _single(value: float) -> Spread:
    return Spread(value, value, value)


def _by_round(
    rounds: Sequence[Mapping[str, list[float]]],
    figure: Callable[[Mapping[str, list[float]]], float],
) -> Spread:
    return Spread.of([figure(taken) for taken in rounds])


def _ratio(above: Spread, below: Spread) -> Spread:
    """A ratio of medians, and the widest range that the ranges of both allow."""
    if not below.value > 0 or not below.low > 0:
        return _single(math.nan)
    return Spread(above.value / below.value, above.low / below.high, above.high / below.low)
