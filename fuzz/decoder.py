"""Uploads: decoded to finite audio, or refused, and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from accent.decode import decode
from accent.errors import InternalError, NoSpeech, Refusal
from accent.speech import SpeechGate
from accent.waveform import SAMPLE_RATE_HZ

from fuzz.target import Broken, Check, Target
from tests.clips import encode, encode_ogg_vorbis, every_format, voice

_CLIP_S = 0.6


@cache
def _sound() -> Sequence[bytes]:
    mono = voice(_CLIP_S)
    stereo = np.stack([mono, -mono])
    return [
        *every_format(mono, SAMPLE_RATE_HZ).values(),
        *(encode(stereo, SAMPLE_RATE_HZ, each) for each in ("wav-s16", "flac", "mp3", "m4a-aac")),
        encode_ogg_vorbis(stereo, SAMPLE_RATE_HZ),
    ]


@contextmanager
def _opened() -> Iterator[Check]:
    gate = SpeechGate()

    def check(data: bytes) -> bool:
        try:
            audio = decode(data)
        except Refusal as refusal:
            if isinstance(refusal, InternalError) or not str(refusal):
                raise Broken(f"refused with {refusal.code} and {str(refusal)!r}") from refusal
            return False
        samples = audio.waveform
        if samples.ndim != 1 or samples.dtype != np.float32 or not np.isfinite(samples).all():
            raise Broken(f"audio of {samples.shape} {samples.dtype} that is not finite")
        expected = audio.facts.duration_s * SAMPLE_RATE_HZ
        if abs(samples.size - expected) > 64 + 2e-4 * expected:
            raise Broken(f"{samples.size} samples for {audio.facts.duration_s} s")
        try:
            facts = gate.check(samples)
        except NoSpeech:
            return True
        if not 0 <= facts.speech_s <= audio.facts.duration_s + 0.01:
            raise Broken(f"{facts.speech_s} s of speech in {audio.facts.duration_s} s")
        return True

    yield check


DECODER = Target("decoder", 0.6, _sound, _opened)
