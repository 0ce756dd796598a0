"""The core's settings: what an archive says of them, and the worker that they make."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from accent.cores import CoreShare, available_cores
from accent.decoding_process import DecodingSettings
from accent.engine import EngineError
from accent.limits import AudioLimits
from accent.selection import EngineSettings
from accent.settings import MAX_THREADS_A_CLIP, WorkerSettings, open_classifier
from accent.speech import SpeechLimits
from accent.trimming import TrimSettings

from aurea.paths import HANDLER
from tests.clips import encode, voice


def test_the_shipped_settings_are_the_defaults_of_the_core() -> None:
    shipped = yaml.safe_load((HANDLER / "model-config.yaml").read_text())["accent"]
    assert WorkerSettings.from_entries(shipped) == WorkerSettings()
    known = {
        field.name
        for kind in (AudioLimits, EngineSettings, SpeechLimits, TrimSettings)
        for field in fields(kind)
    }
    assert set(shipped) == known | {
        "decoders",
        "hang_after_s",
        "threads_per_worker",
        "windows_per_pass",
    }


def test_each_entry_goes_to_the_part_that_it_names_and_a_foreign_one_nowhere() -> None:
    entries = {
        "max_audio_s": 2.0,
        "min_speech_s": 0.1,
        "trim": False,
        "engine": "torch",
        "threads_per_worker": 3,
        "windows_per_pass": 4,
        "decoders": 2,
        "of_another_version": True,
    }
    assert WorkerSettings.from_entries(entries) == WorkerSettings(
        AudioLimits(max_audio_s=2.0),
        SpeechLimits(min_speech_s=0.1),
        TrimSettings(trim=False),
        EngineSettings(engine="torch"),
        threads_per_worker=3,
        windows_per_pass=4,
        decoders=2,
    )
    assert WorkerSettings.from_entries({}) == WorkerSettings()


def test_an_engine_that_is_none_is_refused_when_it_is_read() -> None:
    with pytest.raises(EngineError, match="The setting engine is 'onnx'"):
        WorkerSettings.from_entries({"engine": "onnx"})


@pytest.mark.parametrize(
    ("threads_per_worker", "environment", "threads"),
    [(None, {}, 1), (None, {"OMP_NUM_THREADS": "2"}, 2), (3, {"OMP_NUM_THREADS": "2"}, 3)],
)
def test_a_worker_s_threads_are_the_settings_then_the_environment_s_then_one(
    threads_per_worker: int | None, environment: dict[str, str], threads: int
) -> None:
    share = WorkerSettings(threads_per_worker=threads_per_worker).core_share(environment)
    assert share.own_threads == share.all_threads == threads


def test_workers_with_a_common_folder_may_borrow_every_core_there_is(tmp_path: Path) -> None:
    share = WorkerSettings().core_share({"AUREA_CORES_FOLDER": str(tmp_path / "cores")})
    assert share.all_threads == min(available_cores(), MAX_THREADS_A_CLIP)


def test_an_opened_classifier_answers_by_its_settings_and_its_name(small_folder: Path) -> None:
    settings = WorkerSettings(audio=AudioLimits(max_audio_s=2.0))
    cores = CoreShare(1)
    opened = open_classifier(small_folder, settings, name="some", version="7", cores=cores)
    clips = [encode(voice(length), 16_000, "flac") for length in (1.5, 3.0)]
    score, refusal = opened.classifier.classify(clips)
    assert score.status == 200
    assert score.document["model"] == {"name": "some", "version": "7", "kind": "ecapa"}
    assert refusal.document["code"] == "audio_too_long"
    assert opened.engine.name == "torch"
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("decoders", "on_gpu", "expected"),
    [(None, False, 0), (None, True, 16), (0, True, 0), (2, False, 2), (3, True, 3)],
)
def test_a_gpu_has_a_decoder_a_thread_and_a_cpu_none_unless_told_otherwise(
    decoders: int | None, on_gpu: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, DecodingSettings, float]] = []
    monkeypatch.setattr("accent.settings.DecodingPool", lambda *told: started.append(told))
    settings = WorkerSettings(AudioLimits(max_audio_s=7.0), decoders=decoders, hang_after_s=5.0)
    settings.pool(on_gpu=on_gpu, threads=16)
    told = DecodingSettings(AudioLimits(max_audio_s=7.0))
    assert started == ([(expected, told, 5.0)] if expected else [])
