"""Speech that ships: what a quantizer is calibrated on, and what engines are judged by.

Both are synthesised, by `aurea.lab.reference_speech`, from sentences and blends of voices that
no training of the project has used. Their voices and sentences differ, so that a verdict
rests on nothing that the quantizer has seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from accent.decode import decode
from accent.waveform import Waveform

from aurea.archive.distort import distort

FOLDER: Final = Path(__file__).with_name("reference_speech")
SENTENCES_FILE: Final = "sentences.txt"

Part: TypeAlias = Literal["calibration", "verification"]
PARTS: Final[tuple[Part, ...]] = ("calibration", "verification")

VERIFICATION_COPIES: Final[Mapping[str, tuple[str, ...]]] = {
    "": (),
    "telephone": ("cut_2s", "telephone_8k"),
    "noisy": ("cut_2s", "white_20db"),
    "quiet": ("cut_2s", "gain_-20db"),
    "short": ("cut_1s",),
}
"""What is measured of every verification clip: names in `aurea.archive.distort`, in turn.

Mostly two seconds of it, because a judgement takes as long as its speech lasts.
"""

_CALIBRATION_COPIES: Final = ((), ("telephone_8k",), ("white_20db",), ("cut_2s",))


@dataclass(frozen=True)
class SpeechClip:
    """A clip that is measured: `waveform` is (samples,) float32 at 16 kHz."""

    name: str
    waveform: Waveform


def reference_files(part: Part, folder: Path = FOLDER) -> list[Path]:
    """The files of a part, in the order of their names.

    Raises `FileNotFoundError` where there are none.
    """
    files = sorted((folder / part).glob("*.ogg"))
    if not files:
        raise FileNotFoundError(f"{folder / part} holds no speech.")
    return files


def calibration_speech(folder: Path = FOLDER) -> list[Waveform]:
    """What a quantizer sees: every clip of its part as it is or, three in four, distorted.

    Ranges that only a quiet studio shows would cut off what a telephone or a fan adds.
    """
    return [
        _copy(clip.waveform, _CALIBRATION_COPIES[index % len(_CALIBRATION_COPIES)], index)
        for index, clip in enumerate(_decoded("calibration", folder))
    ]


def verification_speech(
    folder: Path = FOLDER, copies: Mapping[str, tuple[str, ...]] = VERIFICATION_COPIES
) -> list[SpeechClip]:
    """What an engine is judged by: each clip of its part as it is, and its `copies`."""
    return [
        SpeechClip(f"{clip.name} {title}".strip(), _copy(clip.waveform, distortions, index))
        for index, clip in enumerate(_decoded("verification", folder))
        for title, distortions in copies.items()
    ]


def _decoded(part: Part, folder: Path) -> Iterator[SpeechClip]:
    for path in reference_files(part, folder):
        yield SpeechClip(path.stem, decode(path.read_bytes()).waveform)


def _copy(waveform: Waveform, distortions: Sequence[str], seed: int) -> Waveform:
    rng = np.random.default_rng(seed)
    for name in distortions:
        waveform = decode(distort(name, waveform, (), rng)).waveform
    return waveform
