"""Speaks the reference speech of `aurea.archive.reference` anew, by the parts of `make speech`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from tqdm import tqdm

from aurea.archive.distort import encode
from aurea.archive.reference import FOLDER, PARTS, SENTENCES_FILE, Part
from aurea.archive.surroundings import coloured_noise
from aurea.command_line import CommandLine, read
from aurea.lab.speech.synthesis import Speaker
from aurea.lab.speech.utterances import utterances
from aurea.lab.speech.voices import VOICES

_BIT_RATE: Final = 32_000
# Synthetic pauses are emptier than any recording's; this is the floor of a quiet room.
_ROOM_LEVEL: Final = 0.001


class ReferenceSpeechOptions(CommandLine):
    """Speak the reference speech of `make mar` anew."""

    out: Path = FOLDER
    """folder with the sentences of each part"""


def make_reference_speech(folder: Path = FOLDER) -> Mapping[Part, int]:
    """Speak the sentences of each part, each in a US and a British accent.

    Raises `aurea.models.packages.PackageUnavailable` if the synthesiser cannot be had.
    """
    voices = [Path(voice.member).stem for voice in VOICES]
    speaker = Speaker()
    counts: dict[Part, int] = {}
    for position, part in enumerate(PARTS):
        sentences = (folder / part / SENTENCES_FILE).read_text(encoding="utf-8").splitlines()
        spoken = list(utterances(1, sentences, voices[position :: len(PARTS)]))
        for utterance in tqdm(spoken, desc=part, unit="clip", disable=None):
            samples, rate_hz = speaker.speak(utterance)
            rng = np.random.default_rng(sentences.index(utterance.sentence))
            noise = coloured_noise(samples.size, 1.0, rng)
            name = f"{sentences.index(utterance.sentence):02}_{utterance.accent}.ogg"
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and make the speech anew."""
    counts = make_reference_speech(read(ReferenceSpeechOptions, arguments).out)
    print(", ".join(f"{part}: {count} clips" for part, count in counts.items()))


if __name__ == "__main__":
    main()
