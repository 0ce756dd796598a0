"""How many seconds of audio a file seems to hold, from its first bytes and its size.

No file is believed: an estimate only decides who waits for whom, and is never below what its
bytes would last at the highest rate that is usual for their kind.
"""

import struct
from typing import Final, Literal

_Kind = Literal["wav", "flac", "coded"]

_USUAL_BYTES_A_SECOND: Final[dict[_Kind, float]] = {
    "wav": 88_200.0,
    "flac": 50_000.0,
    "coded": 6_000.0,
}
"""Before anything was learned: 16 bits at 44.1 kHz; half of that; 48 kbit/s."""

_MOST_BYTES_A_SECOND: Final[dict[_Kind, float]] = {
    "wav": 1_536_000.0,
    "flac": 1_536_000.0,
    "coded": 64_000.0,
}
_LEAST_BYTES_A_SECOND: Final = 500.0
_LEARNING: Final = 0.1


class AudioLengths:
    """Estimates, which learn from the lengths that answers tell."""

    def __init__(self, longest_s: float) -> None:
        """`longest_s` is what no clip may pass, in seconds."""
        self._longest_s = longest_s
        self._bytes_a_second = dict(_USUAL_BYTES_A_SECOND)

    def estimate_s(self, audio: bytes) -> float:
        """Seconds of audio that a file seems to hold."""
        kind = _kind(audio)
        rate = _wav_bytes_a_second(audio) or self._bytes_a_second[kind]
        rate = min(max(rate, _LEAST_BYTES_A_SECOND), _MOST_BYTES_A_SECOND[kind])
        return min(len(audio) / rate, self._longest_s)

    def learn(self, audio: bytes, duration_s: float) -> None:
        """Takes in how long a file really was."""
        if duration_s > 0:
            kind = _kind(audio)
            seen = len(audio) / duration_s
            self._bytes_a_second[kind] += _LEARNING * (seen - self._bytes_a_second[kind])


def _kind(audio: bytes) -> _Kind:
    if audio[:4] in (b"RIFF", b"RF64", b"FORM", b"caff", b".snd", b"riff"):
        return "wav"
    return "flac" if audio[:4] == b"fLaC" else "coded"


def _wav_bytes_a_second(audio: bytes) -> float | None:
    """What the header of a WAV file says of its rate; None for any other file."""
    place = audio.find(b"fmt ", 12, 4096) if audio[:4] in (b"RIFF", b"RF64") else -1
    if place < 0 or len(audio) < place + 20:
        return None
    (rate,) = struct.unpack_from("<I", audio, place + 16)
    return float(rate) or None
