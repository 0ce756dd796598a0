"""Decoders in processes of their own: the same clips to the bit; what dies costs its own clip."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from accent.classifier import Clip, decode_clip
from accent.decoding_pool import DecodingPool
from accent.decoding_process import DecodingSettings
from accent.errors import EmptyFile, InternalError, NoSpeech, UnsupportedAudio
from accent.limits import AudioLimits
from accent.speech import SpeechGate

from aurea.paths import HANDLER
from tests.clips import voice
from tests.unit.accent.signals import wav

SETTINGS = DecodingSettings(AudioLimits(max_decode_s=2.0))


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodingPool]:
    pool = DecodingPool(2, SETTINGS, hang_after_s=3.0)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def uploads() -> list[bytes]:
    clips = [
        wav(voice(length_s, seed=seed), 16_000) for seed, length_s in enumerate((1.0, 2.3, 12.0))
    ]
    return [*clips, b"", b"no audio at all" * 100, wav(np.zeros(32_000), 16_000), clips[0]]


def in_process(uploads: list[bytes]) -> list[Clip]:
    gate = SpeechGate()
    return [decode_clip(upload, SETTINGS.limits, gate, SETTINGS.trimming) for upload in uploads]


def assert_same(found: list[Clip], expected: list[Clip]) -> None:
    for one, other in zip(found, expected, strict=True):
        if other.refusal is not None:
            assert one.refusal is not None
            assert type(one.refusal) is type(other.refusal)
            assert one.refusal.document() == other.refusal.document()
            continue
        assert one.refusal is None
        assert one.audio is not None
        assert other.audio is not None
        assert one.audio.facts == other.audio.facts
        np.testing.assert_array_equal(one.audio.waveform, other.audio.waveform)
        assert one.speech == other.speech
        assert len(one.windows) == len(other.windows)
        for window, same in zip(one.windows, other.windows, strict=True):
            np.testing.assert_array_equal(window.waveform, same.waveform)
            assert (window.start_s, window.end_s) == (same.start_s, same.end_s)
            assert window.speech_s == same.speech_s
        assert one.decode_s > 0
        assert one.gate_s > 0


@pytest.mark.slow
def test_clips_and_refusals_are_those_of_one_process_in_the_order_of_the_uploads(
    pool: DecodingPool, uploads: list[bytes]
) -> None:
    expected = in_process(uploads)
    assert [type(clip.refusal) for clip in expected[3:6]] == [EmptyFile, UnsupportedAudio, NoSpeech]
    for _ in range(3):
        assert_same(pool.decode(uploads), expected)
        assert_same(pool.decode(uploads[::-1]), expected[::-1])
    assert pool.decode([]) == []


def open_files() -> int:
    return psutil.Process().num_fds()


def disturbed(
    pool: DecodingPool, uploads: list[bytes], disturb: Callable[[list[int]], None]
) -> list[Clip]:
    """What is decoded while somebody disturbs the decoders, once they have work."""
    for decoder in pool._decoders:
        if not decoder.ready:
            decoder.await_ready()
    process_ids = pool.process_ids()

    def soon() -> None:
        time.sleep(0.05)
        disturb(process_ids)

    thread = threading.Thread(target=soon)
    for process_id in process_ids:
        # Each has a clip that it cannot finish before it is disturbed.
        os.kill(process_id, signal.SIGSTOP)
    thread.start()
    try:
        return pool.decode(uploads)
    finally:
        thread.join()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_decoder_that_dies_costs_its_own_clip_and_is_replaced(
    number: signal.Signals,
    pool: DecodingPool,
    uploads: list[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = pool.process_ids()

    def kill_the_first(process_ids: list[int]) -> None:
        os.kill(process_ids[0], number)
        for process_id in process_ids:
            os.kill(process_id, signal.SIGCONT)

    found = disturbed(pool, uploads, kill_the_first)
    expected = in_process(uploads)
    assert isinstance(found[0].refusal, InternalError)
    assert_same(found[1:], expected[1:])
    assert f"was ended by signal {int(number)}" in caplog.text
    after = pool.process_ids()
    assert before[0] not in after
    assert before[1] in after
    assert_same(pool.decode(uploads), expected)


@pytest.mark.long
def test_a_decoder_that_hangs_is_killed_and_costs_its_own_clip(
    pool: DecodingPool, uploads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_limit_s", 2.0)
    hanging: list[int] = []

    def let_the_second_go_on(process_ids: list[int]) -> None:
        hanging.append(process_ids[0])
        os.kill(process_ids[1], signal.SIGCONT)

    found = disturbed(pool, uploads, let_the_second_go_on)
    assert isinstance(found[0].refusal, InternalError)
    assert_same(found[1:], in_process(uploads)[1:])
    assert not psutil.pid_exists(hanging[0])


@pytest.mark.long
def test_decoders_that_die_again_and_again_before_they_are_ready_end_the_batch(
    pool: DecodingPool, uploads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("accent.decoding_pool._RUN", "import sys; sys.exit(3)  # {path}")
        for process_id in pool.process_ids():
            os.kill(process_id, signal.SIGKILL)
            psutil.Process(process_id).wait(5)
        with pytest.raises(RuntimeError, match="while it started"):
            pool.decode(uploads)
    assert_same(pool.decode(uploads[:2]), in_process(uploads[:2]))


@pytest.mark.long
def test_what_a_large_clip_took_is_given_back(pool: DecodingPool) -> None:
    long = wav(np.tile(voice(5.0), 24), 16_000)
    assert len(long) > 3_000_000
    clip = pool.decode([long])[0]
    assert clip.audio is not None
    assert clip.audio.facts.duration_s == 120
    sizes = [
        os.fstat(memory).st_size
        for decoder in pool._decoders
        for memory in (decoder._uploads, decoder._clips)
    ]
    assert max(sizes) <= 8_000_000
    handles = open_files()
    for process_id in pool.process_ids():
        os.kill(process_id, signal.SIGKILL)
        psutil.Process(process_id).wait(5)
    pool.decode([long[:100]] * 4)
    assert open_files() == handles


@contextmanager
def worker_and_decoder(
    script: str, folder: Path
) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    """A process that runs a script, and its decoder, whose number the script prints first."""
    path = folder / "worker.py"
    path.write_text(script)
    with subprocess.Popen(
        [sys.executable, str(path)],
        env=os.environ | {"PYTHONPATH": str(HANDLER)},
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        decoder = psutil.Process(int(worker.stdout.readline()))
        yield worker, decoder


@pytest.mark.long
def test_decoders_end_with_their_worker_however_it_ends(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from accent.decoding_pool import DecodingPool\n"
        "from accent.decoding_process import DecodingSettings\n"
        "pool = DecodingPool(1, DecodingSettings(), 5.0)\n"
        "print(*pool.process_ids(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with worker_and_decoder(script, tmp_path) as (worker, decoder):
        worker.kill()
    decoder.wait(5)
