"""Every line of the log is one JSON object that tells what happened, and nothing private."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from aurea.paths import ROOT
from proxy.telemetry.logs import LOG_FILES_KEPT, JsonLines
from tests.contract.proxy_process import CLASSIFY, WAIT_S, Proxy
from tests.contract.standin import MODEL, VERSION, StandIn, refusal

TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z"
COMMON = ["time", "level", "logger", "request_id"]
REQUEST = [
    *("event", "method", "route", "status", "code", "model", "version"),
    *("duration_ms", "upload_ms", "model_ms", "bytes"),
]


def line_of(**record: object) -> dict[str, object]:
    line = JsonLines().format(logging.makeLogRecord({"levelname": "INFO", **record}))
    assert "\n" not in line
    return dict(json.loads(line))


def test_every_line_from_start_to_end_is_an_object_with_time_and_level(
    start: Callable[..., Proxy],
) -> None:
    proxy = start()
    proxy.classify(b"clip")
    proxy.terminate()
    assert proxy.await_end() == 0
    for line in proxy.lines:
        assert re.fullmatch(TIME, line["time"])
        assert line["level"] in {"INFO", "WARNING", "ERROR"}
        assert ("message" in line) != ("event" in line)
    assert {line["logger"] for line in proxy.lines} >= {"uvicorn.error", "proxy.envelope"}


def test_the_line_of_a_clip_tells_who_answered_how_and_how_long_it_took(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"silence"] = refusal(422, "no_speech")
    proxy.classify(b"clip", **{"X-Request-ID": "scored"})
    proxy.classify(b"silence", **{"X-Request-ID": "refused"})
    for request_id, status, code in (("scored", 200, "ok"), ("refused", 422, "no_speech")):
        line = proxy.await_event(request_id)
        assert list(line) == COMMON + REQUEST
        assert (line["status"], line["code"]) == (status, code)
        assert (line["model"], line["version"]) == (MODEL, VERSION)
        assert (line["method"], line["route"]) == ("POST", CLASSIFY)
        assert 0 <= line["upload_ms"] <= line["duration_ms"]
        assert 0 < line["model_ms"] <= line["duration_ms"]


def test_the_line_of_a_request_that_no_model_saw_names_none(proxy: Proxy) -> None:
    proxy.get("/healthz", **{"X-Request-ID": "no-model"})
    line = proxy.await_event("no-model")
    assert list(line) == COMMON + REQUEST
    assert (line["model"], line["version"]) == (None, None)
    assert (line["upload_ms"], line["model_ms"]) == (None, None)


def test_what_is_not_http_has_a_line_too(start: Callable[..., Proxy]) -> None:
    proxy = start()
    with proxy.connect() as connection:
        connection.sendall(b"PRIVATE\r\n\r\n")
        answer = connection.recv(65_536)
    request_id = re.search(rb"x-request-id: (\w+)", answer)
    assert request_id is not None
    line = proxy.await_event(request_id.group(1).decode())
    assert (line["status"], line["code"]) == (400, "malformed_request")
    assert "PRIVATE" not in proxy.log


def test_a_method_that_nobody_knows_is_not_written_down(proxy: Proxy) -> None:
    proxy.client.request("PRIVATE", "/healthz", headers={"X-Request-ID": "odd-method"})
    assert proxy.await_event("odd-method")["method"] == "other"
    assert '"PRIVATE"' not in proxy.log


def test_addresses_are_logged_only_where_that_is_wanted(start: Callable[..., Proxy]) -> None:
    for settings, told in (({}, False), ({"log_addresses": True}, True)):
        proxy = start(**settings)
        proxy.get("/healthz", **{"X-Request-ID": "address"})
        line = proxy.await_event("address")
        assert line.get("client") == ("127.0.0.1" if told else None)
        assert ("client" in line) == told


def test_a_message_of_many_lines_stays_one() -> None:
    line = line_of(msg='a\n"%s"\r\x00\udcff', args=("b",))
    assert line["message"] == 'a\n"b"\r\x00\udcff'
    assert "request_id" not in line


def test_an_exception_stays_on_the_line_of_its_message() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        line = line_of(msg="failed", exc_info=sys.exc_info())
    assert line["message"] == "failed"
    assert "ValueError: two\nlines" in str(line["exception"])


def test_the_log_file_is_bounded(tmp_path: Path) -> None:
    code = (
        "import logging, pathlib, sys\n"
        "from proxy.telemetry import logs\n"
        "logs.LOG_FILE_BYTES = 2000\n"
        "logs.configure_logging(pathlib.Path(sys.argv[1]))\n"
        "for number in range(500):\n"
        "    logging.getLogger('test').info('line %d', number)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "proxy.log"],
        check=True,
        timeout=WAIT_S,
        env={"PYTHONPATH": str(ROOT)},
    )
    files = list(tmp_path.iterdir())
    assert len(files) == 1 + LOG_FILES_KEPT
    assert all(file.stat().st_size <= 2000 for file in files)
    messages = [json.loads(line)["message"] for line in (tmp_path / "proxy.log").open()]
    assert messages[-1] == "line 499"


def test_a_line_for_a_file_is_made_once(tmp_path: Path) -> None:
    code = (
        "import logging, pathlib, sys\n"
        "from proxy.telemetry import logs\n"
        "made, make = [], logs.JsonLines.format\n"
        "logs.JsonLines.format = lambda *args: made.append(1) or make(*args)\n"
        "logs.configure_logging(pathlib.Path(sys.argv[1]))\n"
        "for text in ('one', 'two', 'two'):\n"
        "    logging.getLogger('test').info(text)\n"
        "print(len(made))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "proxy.log"],
        check=True,
        timeout=WAIT_S,
        capture_output=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert told.stdout.split() == [b"3"]
    lines = (tmp_path / "proxy.log").read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["one", "two", "two"]


def test_a_log_file_that_cannot_be_opened_hinders_nobody(tmp_path: Path) -> None:
    code = (
        "import logging, pathlib, sys\n"
        "from proxy.telemetry.logs import configure_logging\n"
        "configure_logging(pathlib.Path(sys.argv[1]))\n"
        "logging.getLogger('test').info('it goes on')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "nowhere" / "proxy.log"],
        check=True,
        timeout=WAIT_S,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    told = [json.loads(line)["message"] for line in ended.stderr.splitlines()]
    assert told[0].startswith("the log goes to standard error: ")
    assert told[1] == "it goes on"
