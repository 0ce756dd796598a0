"""What a worker and its decoders say to each other, and how long either waits for it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil
import pytest
from accent.classifier import Clip, decode_clip
from accent.decoding_pool import DecodingPool
from accent.decoding_process import DecodingSettings, put_clip, read_clip
from accent.errors import InternalError
from accent.limits import AudioLimits
from accent.speech import SpeechGate
from accent.trimming import TrimSettings

from tests.clips import voice
from tests.unit.accent.signals import wav
from tests.unit.accent.test_decoding_pool import assert_same, worker_and_decoder

SETTINGS = DecodingSettings(AudioLimits(max_decode_s=0.2))
BROKEN = "import sys; sys.exit(3)  # {path}"

# Does what decoders do but decode, without what takes seconds to import.
STANDIN = """
import os, socket, sys, time
sys.path[:] = {path!r}
connection = socket.socket(fileno=int(sys.argv[1]))
connection.recv(65_536)
connection.send(b"ready")
"""
TAKES_FOR_EVER = STANDIN + "connection.recv(8); time.sleep(600)"
SAYS_HALF = STANDIN + "connection.recv(8); os.write(connection.fileno(), bytes(2)); time.sleep(600)"
STOPS_READING = STANDIN + "time.sleep(600)"
# A process of its own keeps every end open that it was given, so that none of them is closed.
LEAVES_A_SIBLING = (
    STANDIN + "connection.recv(8)\nif os.fork():\n    os._exit(1)\nos.setsid(); time.sleep(3)"
)
GIVES_BACK = (
    STANDIN
    + """
while order := connection.recv(8):
    upload = os.pread(int(sys.argv[2]), int.from_bytes(order, "little"), 0)
    if upload == b"slow":
        time.sleep(3)
    connection.send(upload)
"""
)


@pytest.fixture
def bounded() -> Iterator[None]:
    """Ends a test that would wait for ever."""

    def too_long(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise AssertionError("nothing came in 20 s")

    former = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [TAKES_FOR_EVER, SAYS_HALF, STOPS_READING, LEAVES_A_SIBLING])
@pytest.mark.usefixtures("bounded")
def test_nothing_that_one_decoder_does_has_the_worker_wait_beyond_its_limit(
    decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accent.decoding_pool._RUN", decoder)
    pool = DecodingPool(2, SETTINGS, hang_after_s=0.1)
    processes = pool.process_ids()
    try:
        found = pool.decode([b"one", b"other"])
        assert [type(clip.refusal) for clip in found] == [InternalError] * 2
        assert not any(psutil.pid_exists(process) for process in processes)
    finally:
        pool.close()


@pytest.mark.slow
@pytest.mark.usefixtures("bounded")
def test_a_batch_that_is_given_up_leaves_none_of_its_clips_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("accent.decoding_pool._RUN", GIVES_BACK)
    monkeypatch.setattr("accent.decoding_pool.read_clip", lambda upload, _: Clip(recording=upload))
    pool = DecodingPool(2, SETTINGS, hang_after_s=10.0)
    try:
        with monkeypatch.context() as broken:
            broken.setattr("accent.decoding_pool._RUN", BROKEN)
            os.kill(pool.process_ids()[1], signal.SIGKILL)
            with pytest.raises(RuntimeError, match="while it started"):
                pool.decode([b"slow"] * 5)
        given_back: list[object] = [each.recording for each in pool.decode([b"next", b"and next"])]
        assert given_back == [b"next", b"and next"]
    finally:
        pool.close()


@pytest.mark.slow
@pytest.mark.usefixtures("bounded")
def test_a_decoder_that_still_imports_ends_with_its_worker_and_holds_none_of_its_output(
    tmp_path: Path,
) -> None:
    slow = "from accent.decoding_process import main; main()"
    script = (
        "import time\n"
        "from accent import decoding_pool\n"
        "from accent.decoding_process import DecodingSettings\n"
        f"imports = decoding_pool._RUN.replace({slow!r}, 'import time; time.sleep(600)')\n"
        "assert imports != decoding_pool._RUN\n"
        "decoding_pool._RUN = imports\n"
        "decoder = decoding_pool._Decoder(DecodingSettings())\n"
        "print(decoder.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with worker_and_decoder(script, tmp_path) as (worker, decoder):
        assert worker.stdout is not None
        decoder.suspend()
        worker.kill()
        assert worker.stdout.read() == "", "a decoder that cannot even run keeps nobody waiting"
        decoder.resume()
    decoder.wait(5)


def test_decoders_that_do_not_start_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accent.decoding_pool._RUN", BROKEN)
    with pytest.raises(RuntimeError, match=r"a decoder ended \(status 3\) while it started"):
        DecodingPool(1, SETTINGS, 1.0)


def test_audio_goes_beside_what_says_where_it_is() -> None:
    clip = decode_clip(wav(voice(9.0), 16_000), AudioLimits(), SpeechGate(), TrimSettings())
    memory = os.memfd_create("test")
    try:
        place = put_clip(clip, memory)
        assert len(place) == 16
        assert_same([read_clip(place, memory)], [clip])
    finally:
        os.close(memory)
