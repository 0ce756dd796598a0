import json
import logging
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from accent.ecapa.loading import load_model
from accent.engine import EngineError
from accent.errors import ModelFolderError
from accent.openvino_runtime import openvino
from accent_handler import AccentHandler
from ts.context import Context, RequestProcessor  # type: ignore[import-untyped]

from aurea.archive.graph import build_graph
from aurea.paths import ROOT
from tests import sounds
from tests.clips import encode, voice

CONFIG = ROOT / "handler" / "model-config.yaml"
DOCUMENT = {"us_confidence", "accents", "windows", "audio", "model", "timings"}


def context_of(folder: Path, requests: int = 1, **settings: Any) -> Context:
    """TorchServe's own context, as a worker makes it for a batch of `requests`."""
    config = yaml.safe_load(CONFIG.read_text())
    config["accent"] |= {"threads_per_worker": 1, **settings}
    context = Context(
        model_name="small",
        model_dir=str(folder),
        manifest={"model": {"modelName": "small", "modelVersion": "3.1"}},
        batch_size=requests,
        gpu=None,
        mms_version="0.12.0",
        model_yaml_config=config,
    )
    context.request_processor = [RequestProcessor({}) for _ in range(requests)]
    return context


@pytest.fixture(scope="module")
def handler(small_folder: Path) -> AccentHandler:
    handler = AccentHandler()
    handler.initialize(context_of(small_folder))
    return handler


def clip(duration_s: float = 1.0, encoding: str = "wav-s16", seed: int = 0) -> bytes:
    return encode(voice(duration_s, seed=seed), 16_000, encoding)


@pytest.mark.slow
def test_each_item_of_a_mixed_batch_has_its_own_status_and_document(
    handler: AccentHandler, small_folder: Path
) -> None:
    too_long = encode(np.tile(voice(1.0), 301), 16_000, "flac")
    batch: list[tuple[dict[str, Any], int, str | None]] = [
        ({"body": bytearray(clip())}, 200, None),
        ({"body": bytearray(b"")}, 400, "empty_file"),
        ({"file": clip(encoding="flac", seed=1)}, 200, None),
        ({"body": bytearray(b"hello")}, 415, "unsupported_audio"),
        ({"body": {"a": "JSON body"}}, 415, "unsupported_audio"),
        ({"body": "a form body"}, 415, "unsupported_audio"),
        ({"body": None}, 415, "unsupported_audio"),
        ({"other": clip()}, 400, "empty_file"),
        ({"body": bytearray(clip(0.4))}, 422, "audio_too_short"),
        ({"body": bytearray(too_long)}, 413, "audio_too_long"),
        ({"body": bytearray(encode(voice(1.0) * 0, 16_000, "flac"))}, 422, "no_speech"),
        ({"body": bytearray(encode(sounds.white(2.0, 0), 16_000, "flac"))}, 422, "no_speech"),
        ({"body": bytearray(encode(sounds.band(2.0, 0), 16_000, "mp3"))}, 422, "no_speech"),
        ({"body": bytearray(clip(12.0, "mp3", 2))}, 200, None),
    ]
    context = context_of(small_folder, len(batch))
    documents = handler.handle([row for row, _, _ in batch], context)

    assert len(documents) == len(batch)
    for index, ((_, status, code), document) in enumerate(zip(batch, documents, strict=True)):
        assert context.get_response_status(index)[0] == status
        assert context.get_response_content_type(index) == "application/json"
        assert set(document) == ({"code", "detail", "model"} if code else DOCUMENT)
        assert document.get("code") == code
        assert json.loads(json.dumps(document, allow_nan=False)) == document
    models = [document["model"] for document in documents]
    # A refusal is not of a model: only what was scored tells its kind.
    assert models == [
        {"name": "small", "version": "3.1", **({} if code else {"kind": "ecapa"})}
        for _, _, code in batch
    ]


def test_a_request_gets_as_much_as_its_header_asks_for(
    handler: AccentHandler, small_folder: Path
) -> None:
    wanted = [None, "recording", "timeline", "anything"]
    context = context_of(small_folder, len(wanted))
    context.request_processor = [
        RequestProcessor({"X-Aurea-Detail": each} if each else {}) for each in wanted
    ]
    documents = handler.handle([{"body": clip(4.0)} for _ in wanted], context)
    assert ["advice" in each["audio"] for each in documents] == [False, True, True, False]
    assert ["timeline" in each for each in documents] == [False, False, True, False]
    assert len({each["us_confidence"] for each in documents}) == 1


def test_a_neighbour_changes_nothing(handler: AccentHandler, small_folder: Path) -> None:
    good, bad = {"body": clip(seed=3)}, {"body": b"\xff" * 1_000}
    (alone,) = handler.handle([good], context_of(small_folder))
    together = handler.handle([bad, good, bad], context_of(small_folder, 3))[1]
    assert together["accents"] == alone["accents"]


def test_an_empty_batch_has_no_answers(handler: AccentHandler, small_folder: Path) -> None:
    assert handler.handle([], context_of(small_folder, 0)) == []


def test_the_stages_in_turn_are_what_handle_does(
    handler: AccentHandler, small_folder: Path
) -> None:
    row = {"body": clip()}
    (answer,) = handler.postprocess(handler.inference(handler.preprocess([row])))
    (document,) = handler.handle([row], context_of(small_folder))
    assert answer.status == 200
    assert answer.document["accents"] == document["accents"]


def test_the_limits_come_from_the_archives_settings(small_folder: Path) -> None:
    handler = AccentHandler()
    handler.initialize(context_of(small_folder, max_audio_s=2.0, windows_per_pass=4))
    context = context_of(small_folder)
    (document,) = handler.handle([{"body": clip(3.0)}], context)
    assert context.get_response_status(0)[0] == 413
    assert document["detail"] == "The clip lasts more than 2 s."


@pytest.mark.slow
def test_the_speech_a_clip_needs_comes_from_the_archives_settings(small_folder: Path) -> None:
    noise = {"body": encode(sounds.white(2.0, 0), 16_000, "flac")}
    for settings, status in (({}, 422), ({"min_speech_s": 0}, 200)):
        handler = AccentHandler()
        handler.initialize(context_of(small_folder, **settings))
        context = context_of(small_folder)
        handler.handle([noise], context)
        assert context.get_response_status(0)[0] == status


@pytest.fixture(scope="module")
def archive(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a graph and the list of engines, as packaging leaves them."""
    folder = Path(shutil.copytree(small_folder, tmp_path_factory.mktemp("archive") / "model"))
    graph = build_graph(load_model(folder), "fp32", ())
    openvino.save_model(graph, folder / "graph.xml", compress_to_fp16=False)
    entry = {
        "engine": "openvino",
        "precision": "fp32",
        "graph": "graph.xml",
        "within_bounds": True,
    }
    (folder / "engines.json").write_text(json.dumps({"engines": [entry]}))
    return folder


@pytest.mark.slow
def test_the_engine_comes_from_the_archives_settings(
    archive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scores = []
    for setting, expected in (("auto", "openvino"), ("openvino", "openvino"), ("torch", "torch")):
        handler = AccentHandler()
        handler.initialize(context_of(archive, engine=setting))
        assert f"engine={expected} precision=fp32 threads=1" in caplog.records[-1].getMessage()
        (document,) = handler.handle([{"body": clip(12.0)}], context_of(archive))
        assert len(document["windows"]) == 2
        scores.append(document["us_confidence"])
    assert scores == pytest.approx([scores[0]] * 3, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "onnx"}, "The setting engine is 'onnx'"),
        ({"precision": "fp64"}, "The setting precision is 'fp64'"),
        ({"precision": "fp16"}, "No engine for engine auto, precision fp16"),
        ({"engine": "openvino"}, "No engine for engine openvino, precision auto"),
        ({"precision": "int8"}, "No engine for engine auto, precision int8"),
    ],
)
def test_a_worker_does_not_start_on_an_engine_that_cannot_be_had(
    settings: dict[str, Any], message: str, small_folder: Path
) -> None:
    with pytest.raises(EngineError, match=message):
        AccentHandler().initialize(context_of(small_folder, **settings))


@pytest.mark.slow
def test_settings_may_be_absent(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = context_of(small_folder)
    context.model_yaml_config = None
    handler = AccentHandler()
    handler.initialize(context)
    assert handler.handle([{"body": clip()}], context)[0]["us_confidence"] >= 0


def test_a_handler_that_was_not_initialised_says_so() -> None:
    with pytest.raises(RuntimeError, match="initialize"):
        AccentHandler().preprocess([{"body": b""}])


@pytest.mark.parametrize("name", ["embedding_model.ckpt", "hyperparams.yaml"])
def test_a_broken_model_fails_while_loading(name: str, small_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder, tmp_path / "model"))
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"has no {re.escape(name)}"):
        AccentHandler().initialize(context_of(folder))


def test_a_probe_is_served(probe_folder: Path) -> None:
    handler, context = AccentHandler(), context_of(probe_folder)
    handler.initialize(context)
    (document,) = handler.handle([{"body": clip()}], context)
    assert document["us_confidence"] > 0
    assert {entry["label"] for entry in document["accents"]} == {"us", "native", "learner"}


HANGING = """
import sys, time
from pathlib import Path
import ctypes
from tests.unit.handler.test_accent_handler import AccentHandler, clip, context_of
handler = AccentHandler()
folder, stage = Path(sys.argv[1]), sys.argv[2]
handler.initialize(context_of(folder, hang_after_s=1.0, max_decode_s=0.5))
handler.handle([{"body": clip(2.0)}], context_of(folder))
print("answered", flush=True)
# As a library that hangs: it holds the interpreter's lock, and no signal ends it.
hang = lambda *_: ctypes.PyDLL(None).sleep(60)
setattr(handler._ready, stage, hang)
handler.handle([{"body": clip(2.0)}], context_of(folder))
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["decode", "score"])
def test_a_worker_that_hangs_ends_itself_and_says_where_it_stood(
    small_folder: Path, stage: str
) -> None:
    started_s = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", HANGING, str(small_folder), stage],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ended.stdout.strip() == "answered", ended.stderr
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "accent_handler.py" in ended.stderr
    assert time.monotonic() - started_s < 45
