"""The clips that every contestant gets: how long, and in which formats."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from accent.decode import decode
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from scipy.signal import resample_poly

from aurea.archive.distort import encode
from aurea.archive.reference import FOLDER as REFERENCE_SPEECH
from aurea.archive.reference import reference_files

MANIFEST_FILE: Final = "clips.json"

# Any few in a row last 5 s in the mean, so that the slowest server, which gets to few of them,
# is asked for as much speech a clip as the fastest.
_DURATIONS_S: Final = (5.0, 2.0, 8.0, 5.0, 3.0, 7.0, 5.0, 2.5, 7.5, 5.0, 10.0, 4.0, 3.5, 2.5)
# Files of the part that no quantizer has seen; more would only take longer to read.
_FILES: Final = 8
# What SpeechBrain's own reader takes, or nothing could be compared.
_FORMATS: Final[Sequence[tuple[str, str, str, int, int | None]]] = (
    ("wav", "wav", "pcm_s16le", 16_000, None),
    ("flac", "flac", "flac", 16_000, None),
    ("wav", "wav", "pcm_s16le", 44_100, None),
    ("ogg", "ogg", "libopus", 48_000, 32_000),
    ("wav", "wav", "pcm_f32le", 48_000, None),
    ("mp3", "mp3", "mp3", 44_100, 96_000),
    ("flac", "flac", "flac", 48_000, None),
)


@dataclass(frozen=True)
class BenchClip:
    """A file of the clips' folder, and how long it lasts."""

    file: str
    duration_s: float


def make_clips(folder: Path, speech: Path = REFERENCE_SPEECH) -> list[BenchClip]:
    """Write clips of 2 to 10 s, 5 s in the mean, in several formats; always the same ones.

    Raises `FileNotFoundError` where there is no speech to make them of.
    """
    files = reference_files("verification", speech)[:_FILES]
    voices = [decode(path.read_bytes()).waveform for path in files]
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for index, duration_s in enumerate(_DURATIONS_S):
        suffix, container, codec, rate_hz, bit_rate = _FORMATS[index % len(_FORMATS)]
        order = [voices[(index + step) % len(voices)] for step in range(len(voices))]
        waveform = np.concatenate(order)[: int(duration_s * SAMPLE_RATE_HZ)]
        file = f"{index:02}-{codec}-{rate_hz // 1000}k.{suffix}"
        (folder / file).write_bytes(
            encode(_resampled(waveform, rate_hz), rate_hz, container, codec, bit_rate)
        )
        clips.append(BenchClip(file, duration_s))
    manifest = json.dumps([asdict(clip) for clip in clips], indent=1)
    (folder / MANIFEST_FILE).write_text(manifest, encoding="utf-8")
    return clips


def _resampled(waveform: Waveform, rate_hz: int) -> Waveform:
    if rate_hz == SAMPLE_RATE_HZ:
        return waveform
    up, down = rate_hz // 100, SAMPLE_RATE_HZ // 100
    return np.asarray(resample_poly(waveform, up, down), np.float32)


def read_manifest(folder: Path) -> list[BenchClip]:
    """The clips of `folder`, in their order."""
    listed = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    return [BenchClip(**entry) for entry in listed]
