"""Speech that ships: what a quantizer is calibrated on, and what engines are judged by.

Both are synthesised, by the parts of `make speech`, from sentences and blends of voices that
no training of the project has heard. Their voices and sentences differ, so that a verdict
rests on nothing that the quantizer has seen.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from accent.decode import decode
from accent.waveform import Waveform
from tqdm import tqdm

from aurea.archive.distort import coloured_noise, distort, encode

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
_BIT_RATE: Final = 32_000
# Synthetic pauses are emptier than any recording's; this is the floor of a quiet room.
_ROOM_LEVEL: Final = 0.001


@dataclass(frozen=True)
class ReferenceClip:
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


def verification_speech(folder: Path = FOLDER) -> list[ReferenceClip]:
    """What an engine is judged by: each clip of its part as it is, and its copies."""
    return [
        ReferenceClip(f"{clip.name} {title}".strip(), _copy(clip.waveform, distortions, index))
        for index, clip in enumerate(_decoded("verification", folder))
        for title, distortions in VERIFICATION_COPIES.items()
    ]


def _decoded(part: Part, folder: Path) -> Iterator[ReferenceClip]:
    for path in reference_files(part, folder):
        yield ReferenceClip(path.stem, decode(path.read_bytes()).waveform)


def _copy(waveform: Waveform, distortions: Sequence[str], seed: int) -> Waveform:
    rng = np.random.default_rng(seed)
    for name in distortions:
        waveform = decode(distort(name, waveform, (), rng)).waveform
    return waveform


def make_reference_speech(folder: Path = FOLDER) -> Mapping[Part, int]:
    """Speak the sentences of each part, each in a US and a British accent.

    Raises `aurea.lab.packages.PackageUnavailable` if the synthesiser cannot be had.
    """
    # Imported late: packaging reads this speech without what synthesises it.
    from aurea.lab.speech.synthesis import Speaker
    from aurea.lab.speech.utterances import utterances
    from aurea.lab.speech.voices import VOICES

    voices = [Path(voice.member).stem for voice in VOICES]
    speaker = Speaker()
    counts: dict[Part, int] = {}
    for position, part in enumerate(PARTS):
        sentences = (folder / part / SENTENCES_FILE).read_text(encoding="utf-8").splitlines()
        spoken = list(utterances(1, sentences, voices[position :: len(PARTS)]))
        for take in tqdm(spoken, desc=part, unit="clip", disable=None):
            samples, rate_hz = speaker.speak(take)
            rng = np.random.default_rng(sentences.index(take.sentence))
            noise = coloured_noise(samples.size, 1.0, rng)
            name = f"{sentences.index(take.sentence):02}_{take.accent}.ogg"
            (folder / part / name).write_bytes(
                encode(
                    (samples + noise / noise.std() * _ROOM_LEVEL).astype(np.float32),
                    rate_hz,
                    "ogg",
                    "libopus",
                    _BIT_RATE,
                )
            )
        counts[part] = len(spoken)
    return counts


def main() -> None:
    """Read the command line and make the speech anew."""
    parser = argparse.ArgumentParser(prog="reference", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder with the sentences")
    counts = make_reference_speech(parser.parse_args().out)
    print(", ".join(f"{part}: {count} clips" for part, count in counts.items()))


if __name__ == "__main__":
    main()
