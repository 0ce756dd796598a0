"""The rows of the bench's tables, and what a reader has to know beside them."""

import math
from typing import Final

from aurea.tables import UNKNOWN, number
from bench.goals import goals
from bench.numbers import bound, ms, spread
from bench.results import (
    ALONE,
    CROWD,
    CROWD_USERS,
    ORIGINAL,
    RATE,
    SERVICE,
    SPEECHBRAIN,
    Measured,
    Spread,
)

Rows = list[list[str]]

SERVERS_HEAD: Final = (
    "",
    "clips/s at 8",
    "\u00d7 original",
    "p50 at 1, ms",
    "p95",
    "p99",
    "p50 at 8, ms",
    "p95",
    "p99",
    "memory, GB",
    "start, s",
    "again",
)
ENGINES_HEAD: Final = (
    "",
    "ms",
    "\u00d7 SpeechBrain",
    "\u00d7 limit",
    "p99 off",
    "largest off",
    "off here",
    "within bounds",
)
RATE_HEAD: Final = ("", "clips/s", "answered in time", "p50, ms", "p95", "p99")
GOALS_HEAD: Final = ("figure", "of", "measured", "goal", "")


def server_rows(measured: Measured) -> Rows:
    """A row for each server that load was put on."""
    rows = []
    base = measured.throughput(ORIGINAL).value
    for name in measured.contestants():
        rate = measured.throughput(name)
        starts = measured.starts_s.get(name, [])
        rows.append(
            [
                name if name != SERVICE else f"{name} (auto: {measured.auto})",
                spread(rate, 1),
                number(rate.value / base, 2) if base > 0 else UNKNOWN,
                *(ms(measured.latency_s(name, ALONE, share)) for share in (50, 95, 99)),
                *(ms(measured.latency_s(name, CROWD, share)) for share in (50, 95, 99)),
                number(measured.peak_bytes(name) / 1e9, 2),
                *(number(starts[index], 1) if len(starts) > index else UNKNOWN for index in (0, 1)),
            ]
        )
    for engine, rates in measured.loops.items():
        alone = Spread.of(rates)
        ratio = number(alone.value / base, 2) if base > 0 else UNKNOWN
        title = f"engine alone in a loop ({engine})"
        rows.append([title, spread(alone, 1), ratio, *[UNKNOWN] * (len(SERVERS_HEAD) - 3)])
    return rows


def engine_rows(measured: Measured) -> Rows:
    """A row for each engine that was timed, and the processor's own limits."""
    rows = []
    base = measured.engine_ms(SPEECHBRAIN).value
    for name in measured.engines():
        taken = measured.engine_ms(name)
        limit = measured.limit_ms(name.split()[-1]).value
        off = measured.deviations.get(name, {})
        within = measured.within_bounds.get(name)
        rows.append(
            [
                name,
                spread(taken, 1),
                number(base / taken.value, 2),
                number(taken.value / limit, 2),
                number(off.get("p99", math.nan), 2),
                number(off.get("max", math.nan), 2),
                number(off.get("max_on_these_clips", math.nan), 2),
                UNKNOWN if within is None else "yes" if within else "no",
            ]
        )
    counted = measured.products_gops if math.isfinite(measured.gflop) else []
    for precision in counted[0] if counted else ():
        fastest = measured.limit_ms(precision)
        rates = Spread.of([rates[precision] for rates in counted])
        rows.append(
            [
                f"limit, {precision} ({rates.value:.0f} GOP/s)",
                spread(fastest, 1),
                number(base / fastest.value, 2),
                *[UNKNOWN] * (len(ENGINES_HEAD) - 3),
            ]
        )
    return rows


def rate_rows(measured: Measured) -> Rows:
    """A row for each server that a fixed rate was offered to."""
    rows = []
    for name in measured.contestants():
        stretches = measured.of(name, RATE)
        if stretches:
            share = Spread.of([stretch.served_share() for stretch in stretches])
            rows.append(
                [
                    name,
                    number(stretches[0].rate_per_s or math.nan, 1),
                    spread(share.times(100), 0) + " %",
                    *(ms(measured.latency_s(name, RATE, each)) for each in (50, 95, 99)),
                ]
            )
    return rows


def goal_rows(measured: Measured) -> Rows:
    """A row for each figure to reach."""
    words = {True: "reached", False: "NOT REACHED", None: "not measured"}
    return [
        [
            goal.name,
            goal.subject,
            f"{spread(goal.value, 2)} {goal.unit}",
            bound(goal),
            words[goal.reached],
        ]
        for goal in goals(measured)
    ]


def notes(measured: Measured) -> list[str]:
    """What a reader has to know: wrong answers, failures, and what the load itself cost."""
    found = [f"{name} failed: {reason}" for name, reason in measured.failures.items()]
    found += [f"The limit is wrong: {reason}." for reason in measured.beaten_limits()]
    for name in measured.contestants():
        faults = measured.faults(name, ALONE, CROWD)
        if faults:
            listed = ", ".join(f"{reason} ({count})" for reason, count in faults.items())
            found.append(f"{name}, wrong answers at concurrency 1 and {CROWD_USERS}: {listed}")
        faults = measured.faults(name, RATE)
        if faults:
            listed = ", ".join(f"{reason} ({count})" for reason, count in faults.items())
            found.append(f"{name}, wrong answers at the fixed rate: {listed}")
    parts = measured.cpu_ms_by_part(SERVICE)
    if parts:
        listed = ", ".join(f"{part} {spread(spent, 1)}" for part, spent in parts.items())
        stages = ", ".join(f"{stage} {number(ms, 1)}" for stage, ms in measured.stages_ms.items())
        found.append(
            f"Where the service's time goes, in milliseconds of one core for 5 s of speech at "
            f"concurrency {CROWD_USERS}: {listed}. A worker's stages, alone on one core: {stages}."
        )
    crowds = [stretch for stretch in measured.stretches if stretch.kind == CROWD]
    if crowds:
        shares = Spread.of([100 * each.load_cpu_s / each.duration_s for each in crowds])
        idle = Spread.of([100 * each.others_cpu_s / each.duration_s for each in crowds])
        found.append(
            f"Locust took {spread(shares, 0)} % of one core at concurrency {CROWD_USERS}; "
            f"the servers that waited their turn took {spread(idle, 0)} %."
        )
    return found
