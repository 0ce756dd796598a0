import pytest

from aurea.versions.comparison import Comparison, compare, quantile, samples, since

PROXY = """\
# HELP aurea_proxy_requests_total Requests.
# TYPE aurea_proxy_requests_total counter
aurea_proxy_requests_total{status="200",code="ok",version="1.0"} 88.0
aurea_proxy_requests_total{status="422",code="no_speech",version="1.0"} 2.0
aurea_proxy_requests_total{status="200",code="ok",version="2.0"} 8.0
aurea_proxy_requests_total{status="500",code="internal",version="2.0"} 2.0
aurea_proxy_requests_total{status="503",code="overloaded",version="none"} 3.0
aurea_proxy_requests_total{status="404",code="not_found",version="none"} 7.0
# HELP aurea_proxy_request_duration_seconds Seconds.
# TYPE aurea_proxy_request_duration_seconds histogram
aurea_proxy_request_duration_seconds_bucket{route="/classify-us-accent",code="ok",version="1.0",le="0.1"} 44.0
aurea_proxy_request_duration_seconds_bucket{route="/classify-us-accent",code="ok",version="1.0",le="0.2"} 88.0
aurea_proxy_request_duration_seconds_bucket{route="/classify-us-accent",code="ok",version="1.0",le="+Inf"} 88.0
aurea_proxy_request_duration_seconds_bucket{route="/readyz",code="ok",version="1.0",le="0.1"} 0.0
aurea_proxy_request_duration_seconds_bucket{route="/readyz",code="ok",version="1.0",le="+Inf"} 999.0
"""  # noqa: E501

# As TorchServe prints it, down to the comma before the bracket.
TORCHSERVE = """\
# HELP accent_us_confidence_clips_total Torchserve prometheus counter metric with unit: Count
# TYPE accent_us_confidence_clips_total counter
accent_us_confidence_clips_total{band="00-10",model="small",version="1.0",Hostname="vm",} 80.0
accent_us_confidence_clips_total{band="90-100",model="small",version="1.0",Hostname="vm",} 8.0
accent_us_confidence_clips_total{band="40-50",model="small",version="2.0",Hostname="vm",} 8.0
# HELP accent_us_confidence_tenths Torchserve prometheus histogram metric with unit: Tenths
# TYPE accent_us_confidence_tenths histogram
accent_us_confidence_tenths_count{model="small",version="1.0",Hostname="vm",} 88.0
accent_us_confidence_tenths_sum{model="small",version="1.0",Hostname="vm",} 176.0
# HELP accent_stage_seconds Torchserve prometheus histogram metric with unit: Seconds
# TYPE accent_stage_seconds histogram
accent_stage_seconds_count{stage="whole",model="small",version="1.0",Hostname="vm",} 88.0
accent_stage_seconds_sum{stage="whole",model="small",version="1.0",Hostname="vm",} 4.4
accent_stage_seconds_count{stage="forward",model="small",version="1.0",Hostname="vm",} 88.0
accent_stage_seconds_sum{stage="forward",model="small",version="1.0",Hostname="vm",} 1.1
"""


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(samples(PROXY), samples(TORCHSERVE), ["1.0", "2.0", "3.0"])


def test_shares_are_of_all_that_a_version_answered(comparison: Comparison) -> None:
    assert [each.requests for each in comparison.versions] == [90, 10, 0]
    assert [each.share_percent for each in comparison.versions] == [90.0, 10.0, 0.0]


def test_the_clips_fault_and_the_servers_are_told_apart(comparison: Comparison) -> None:
    assert [(each.refused, each.errors) for each in comparison.versions] == [(2, 0), (0, 2), (0, 0)]


def test_what_failed_before_a_version_answered_is_counted_apart(comparison: Comparison) -> None:
    assert comparison.unanswered == 3


def test_latencies_are_those_of_scored_clips(comparison: Comparison) -> None:
    first, second, _ = comparison.versions
    assert first.p50_s == pytest.approx(0.1)
    assert first.p95_s == pytest.approx(0.19)
    assert first.p99_s == pytest.approx(0.198)
    assert second.p50_s is None


def test_model_time_and_score_are_means(comparison: Comparison) -> None:
    first, second, _ = comparison.versions
    assert first.mean_model_s == pytest.approx(0.05)
    assert first.mean_us_confidence == pytest.approx(20.0)
    assert second.mean_us_confidence is None


def test_a_distribution_is_ten_characters_from_0_to_100(comparison: Comparison) -> None:
    assert [each.sparkline for each in comparison.versions] == [
        "█········▁",
        "····█·····",
        "··········",
    ]


def test_between_two_scrapes_only_the_difference_counts() -> None:
    earlier = samples(PROXY.replace("88.0", "80.0").replace("44.0", "44.0"))
    (first,) = compare(since(earlier, samples(PROXY)), {}, ["1.0"]).versions
    assert (first.requests, first.refused) == (8, 0)
    assert first.p50_s == pytest.approx(0.15)


def test_a_counter_that_began_anew_counts_in_full() -> None:
    line = 'aurea_proxy_requests_total{{status="200",code="ok",version="1.0"}} {}\n'
    difference = since(samples(line.format(88)), samples(line.format(5)))
    assert list(difference.values()) == [5.0]


@pytest.mark.parametrize(
    ("buckets", "q", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0, float("inf"): 0}, 0.5, None),
        ({1.0: 10, float("inf"): 10}, 0.5, 0.5),
        ({1.0: 0, 2.0: 10, float("inf"): 10}, 0.1, 1.1),
        ({1.0: 5, float("inf"): 10}, 0.99, 1.0),
        ({1.0: 5, 2.0: 5, 3.0: 10, float("inf"): 10}, 0.5, 1.0),
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(
    buckets: dict[float, float], q: float, expected: float | None
) -> None:
    assert quantile(buckets, q) == (None if expected is None else pytest.approx(expected))
