"""Made-up measurements of a run, with as much in them as a test asks for."""

from typing import Any

from bench.results import ALONE, CROWD, ORIGINAL, RATE, SERVICE, Measured, Stretch


def record(sent_s: float, latency_s: float, clip: int = 0, wrong: str = "") -> dict[str, Any]:
    return {
        "sent_s": sent_s,
        "latency_s": latency_s,
        "clip": clip,
        "fault": wrong,
        "us_confidence": None if wrong else 50.0,
    }


def paced(contestant: str, kind: str, latency_s: float, users: int = 1, **more: Any) -> Stretch:
    """So many users that each get an answer every `latency_s`, in turns, for 10 s."""
    step_s = latency_s / users
    count = int(10.0 / step_s) - users
    records = [record(index * step_s, latency_s) for index in range(count)]
    return Stretch(contestant, kind, 0, 10.0, records, **more)


def measured_run(service_s: float = 0.04, memory_bytes: int = 1_200_000_000) -> Measured:
    """A run in which the original needs 0.2 s a clip, and the service `service_s` on two cores."""
    measured = Measured(
        [5.0],
        starts_s={SERVICE: [30.0, 9.0], ORIGINAL: [8.0]},
        loops={"auto": [2.2 / service_s / 2]},
        gflop=18.8,
        auto="openvino int8",
        within_bounds={"torch fp32": True, "openvino int8": True},
        deviations={"openvino int8": {"p99": 0.8, "max": 2.0, "max_on_these_clips": 0.5}},
    )
    for name, seconds in (
        (SERVICE, service_s),
        ("litserve + our engine", service_s * 1.01),
        ("ray + our engine", service_s * 1.4),
        (ORIGINAL, 0.2),
    ):
        measured.stretches += [
            paced(name, ALONE, seconds),
            paced(name, CROWD, 8 * seconds, users=8, peak_bytes=memory_bytes, load_cpu_s=0.2),
            paced(name, RATE, seconds, rate_per_s=1 / seconds),
        ]
    measured.engines_ms = [
        {"speechbrain fp32": [190.0, 200.0, 210.0], "torch fp32": [140.0], "openvino int8": [30.0]}
    ]
    measured.products_gops = [{"fp32": 160.0, "bf16": 400.0, "int8": 840.0}]
    return measured
