"""Clips to a service: which model answers, what is kept, and what is asked for again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aurea.archive.reference import reference_files
from aurea.lab.corpus import Clip
from aurea.lab.evaluation import service
from aurea.lab.evaluation.answer_log import RESULTS_FILE
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.service import evaluate_service
from tests.contract.proxy_process import Proxy
from tests.contract.standin import Prediction, StandIn, document, queue_full, refusal
from tests.results import evaluation_of
from tests.unit.lab.evaluation.served import Reply, Served


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    server = served.start()
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def some(tmp_path: Path) -> list[Clip]:
    """Files that only the stand-in service understands."""
    clips = []
    for number in range(4):
        path = tmp_path / "clips" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"clip {number}".encode())
        clips.append(Clip(path, "us" if number % 2 else "england", f"p{number}", "recorded", ""))
    return clips


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / RESULTS_FILE


def times_asked(served: Served, clips: list[Clip]) -> list[int]:
    return [served.asked[clip.path.read_bytes()] for clip in clips]


def test_each_answer_is_asked_for_once_and_kept(
    served: Served, some: list[Clip], log: Path
) -> None:
    model, results = evaluate_service(served.url + "/", some, log=log)
    assert model.name == "accent/1.0"
    assert [r.us_score for r in results] == [
        pytest.approx(served.score(clip.path.read_bytes()) / 100) for clip in some
    ]
    assert evaluate_service(served.url, some, log=log) == (model, results)
    assert times_asked(served, some) == [1] * 4


def test_another_model_under_the_same_name_and_version_is_asked_anew(
    served: Served, some: list[Clip], log: Path
) -> None:
    first, before = evaluate_service(served.url, some, log=log)
    served.model = "second"
    second, after = evaluate_service(served.url, some, log=log)
    assert second.name == first.name
    assert second.digest != first.digest
    for old, new, clip in zip(before, after, some, strict=True):
        assert new.us_score == pytest.approx(served.score(clip.path.read_bytes()) / 100)
        assert new.us_score != old.us_score
    served.model = "first"
    assert evaluate_service(served.url, some, log=log) == (first, before)
    assert times_asked(served, some) == [2] * 4


@pytest.mark.parametrize("changed", ["name", "limits"])
def test_another_version_or_other_limits_are_asked_anew(
    served: Served, some: list[Clip], log: Path, changed: str
) -> None:
    clip = some[0].path.read_bytes()
    served.always(clip, 413, "audio_too_long")
    assert evaluate_service(served.url, some, log=log)[1][0].refusal == "audio_too_long"
    del served.replies[clip]
    if changed == "name":
        served.name = "accent/2.0"
    else:
        served.limits = {"max_audio_s": 600.0}
    assert evaluate_service(served.url, some, log=log)[1][0].us_score is not None


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_the_service_says_of_a_clip_is_kept(
    served: Served, some: list[Clip], log: Path, status: int
) -> None:
    clip = some[1].path.read_bytes()
    served.always(clip, status, "so_it_is")
    _, results = evaluate_service(served.url, some, log=log)
    assert (results[1].refusal, results[1].detail) == ("so_it_is", "So it is.")
    assert not results[1].server_fault
    del served.replies[clip]
    assert evaluate_service(served.url, some, log=log)[1] == results
    assert served.asked[clip] == 1


def problem(status: int, code: str) -> Callable[[int], Reply]:
    return lambda _: (status, {"code": code, "detail": "So it is."})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (problem(500, "internal"), "500 internal"),
        (problem(503, "overloaded"), "503 overloaded"),
        (problem(504, "timeout"), "504 timeout"),
        (problem(404, "not_found"), "404 not_found"),
        (lambda _: (502, "<html>Bad gateway</html>"), "502 without an answer of the service"),
        (lambda _: (413, "<html>Too large</html>"), "413 without an answer of the service"),
        (lambda _: (200, "<html>Log in</html>"), "200 without an answer of the service"),
        (lambda _: (200, {"us_confidence": None}), "200 without an answer of the service"),
        (lambda _: "cut", "no answer (RemoteProtocolError)"),
        (lambda _: "hang", "no answer (ReadTimeout)"),
    ],
)
def test_a_fault_of_the_server_is_no_refusal_and_is_asked_again_by_the_next_run(
    served: Served,
    some: list[Clip],
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    reply: Callable[[int], Reply | str],
    fault: str,
) -> None:
    monkeypatch.setattr(service, "_TIMEOUT_S", 0.3)
    clip = some[2].path.read_bytes()
    served.replies[clip] = reply
    _, results = evaluate_service(served.url, some, log=log)
    assert (results[2].us_score, results[2].refusal) == (None, "")
    assert results[2].server_fault == fault
    assert all(result.us_score is not None for result in results if result is not results[2])
    del served.replies[clip]
    _, results = evaluate_service(served.url, some, log=log)
    assert results[2].us_score == pytest.approx(served.score(clip) / 100)
    assert [n for n in times_asked(served, some) if n == 1] == [1] * 3


def test_a_busy_service_is_asked_until_it_has_time(
    served: Served, some: list[Clip], log: Path
) -> None:
    clip = some[0].path.read_bytes()
    served.replies[clip] = lambda attempt: (
        (503, {"code": "overloaded", "detail": ""}) if attempt < 5 else (200, {"us_confidence": 50})
    )
    _, results = evaluate_service(served.url, some, log=log)
    assert results[0].us_score == 0.5
    assert served.asked[clip] == 5


def test_what_a_canary_answers_is_asked_for_again(
    served: Served, some: list[Clip], log: Path
) -> None:
    served.answering = lambda total: "accent/2.0" if total % 3 == 0 else "accent/1.0"
    model, results = evaluate_service(served.url, some, log=log)
    assert model.name == "accent/1.0"
    assert all(result.us_score is not None for result in results)
    served.answering = lambda _: "accent/2.0"
    with pytest.raises(SystemExit, match=r"lets accent/2\.0 answer, and accent/1\.0 was to be"):
        evaluate_service(served.url, some, log=log)


def test_a_model_that_changes_during_a_run_costs_that_run_and_nothing_else(
    served: Served, some: list[Clip], log: Path
) -> None:
    _, first = evaluate_service(served.url, some[:2], log=log)
    kept = log.read_bytes()
    clip = some[3].path.read_bytes()

    def changes(_: int) -> Reply:
        served.model = "second"
        return 200, {"us_confidence": served.score(clip)}

    served.replies[clip] = changes
    with pytest.raises(SystemExit, match="has changed while it was asked"):
        evaluate_service(served.url, some, log=log)
    assert log.read_bytes() == kept
    served.model = "first"
    assert evaluate_service(served.url, some[:2], log=log)[1] == first


def test_a_service_that_fails_on_known_speech_is_not_judged(
    served: Served, some: list[Clip]
) -> None:
    served.always(reference_files("verification")[0].read_bytes(), 500, "internal")
    with pytest.raises(SystemExit, match="fails on the speech that it is recognised by: 500"):
        evaluate_service(served.url, some)
    assert times_asked(served, some) == [0] * 4


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:9/", "127.0.0.1:9"])
def test_a_service_that_does_not_answer_is_named(some: list[Clip], url: str) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate_service(url, some)
    assert "127.0.0.1:9 does not answer" in str(ended.value)


def test_files_that_cannot_be_read_are_not_asked_for(
    served: Served, some: list[Clip], log: Path
) -> None:
    some[0].path.unlink()
    _, results = evaluate_service(served.url, some, log=log)
    assert results[0] == ClipResult(
        some[0], refusal="unreadable_file", detail="No such file or directory"
    )


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandIn]:
    standin = StandIn(tmp_path)
    yield standin
    standin.close()


@pytest.fixture
def proxy(standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(standin, retry_after_s=1)
    yield proxy
    proxy.close()


@pytest.mark.slow
def test_a_running_service_is_judged_by_its_public_contract(
    standin: StandIn, proxy: Proxy, clips: list[Clip], tmp_path: Path
) -> None:
    audible = [clip for clip in clips if clip.path.suffix in (".flac", ".webm")]
    us = {clip.path.read_bytes() for clip in audible if clip.accent == "us"}
    busy, silent = audible[0].path.read_bytes(), audible[1].path.read_bytes()

    async def score(prediction: Prediction) -> object:
        # The proxy asks a second time on its own.
        if prediction.body == busy and prediction.attempt < 4:
            return queue_full()
        return document(us_confidence=80.5 if prediction.body in us else 20.1)

    standin.default_behaviour = score
    standin.behaviours[silent] = refusal(422, "no_speech")
    log = tmp_path / RESULTS_FILE
    facts, results = evaluate_service(proxy.url, audible, log=log)
    evaluation = evaluation_of(results, facts)
    assert evaluation.model.name == "standin/1.2"
    assert evaluation.us.auc.value == 1.0
    assert evaluation.labels is None
    assert evaluation.refusals == {"no_speech": (str(audible[1].path),)}
    assert {result.us_score for result in results} == {0.805, 0.201, None}
    assert evaluation.by_format

    def asked_of_data() -> int:
        data = {clip.path.read_bytes() for clip in audible}
        return sum(prediction.body in data for prediction in standin.predictions)

    seen = asked_of_data()
    assert evaluate_service(proxy.url, audible, log=log)[1] == results
    assert asked_of_data() == seen
