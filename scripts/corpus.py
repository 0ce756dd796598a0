"""Labelled speech on disk: what lies there, who speaks, and which part a speaker belongs to."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

DEFAULT_KIND: Final = "recorded"

_AUDIO_SUFFIXES: Final = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm"}


@dataclass(frozen=True)
class Clip:
    """One labelled file. `kind` says how the speech came about, `licence` may be empty."""

    path: Path
    accent: str
    speaker: str
    kind: str
    licence: str


@dataclass(frozen=True)
class Split:
    """Clips of four groups of speakers, no speaker in two of them.

    `train` and `dev` hold only kinds that may shape the weights. `test` holds every kind,
    `rest` the accents that are no label of the model: they are judged as not US.
    """

    train: tuple[Clip, ...]
    dev: tuple[Clip, ...]
    test: tuple[Clip, ...]
    rest: tuple[Clip, ...]


def read_clips(data: Path) -> list[Clip]:
    """List the labelled clips of a folder or a CSV file, ordered by path.

    A folder has one sub-folder per accent, in it files or one sub-folder per speaker; a
    file that lies directly in its accent's folder counts as a speaker of its own. A CSV has
    the columns path (relative to it) and accent, and may have speaker, kind and licence.

    Raises `SystemExit` if there is none or a column is missing.
    """
    clips: list[Clip] = []
    if data.is_dir():
        for path in sorted(data.rglob("*")):
            parts = path.relative_to(data).parts
            if path.suffix.lower() in _AUDIO_SUFFIXES and len(parts) > 1:
                speaker = "/".join(parts[:2]) if len(parts) > 2 else "/".join(parts)
                clips.append(Clip(path, parts[0], speaker, DEFAULT_KIND, ""))
    elif data.is_file():
        with data.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if not row.get("path") or not row.get("accent"):
                    raise SystemExit(f"{data}: every row needs a path and an accent.")
                clips.append(
                    Clip(
                        data.parent / row["path"],
                        row["accent"],
                        row.get("speaker") or row["path"],
                        row.get("kind") or DEFAULT_KIND,
                        row.get("licence") or "",
                    )
                )
    if not clips:
        raise SystemExit(f"{data}: no labelled clip found (a folder per accent, or a CSV file).")
    accents: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        accents[clip.speaker].add(clip.accent)
    for speaker, found in accents.items():
        if len(found) > 1:
            raise SystemExit(f"{data}: speaker {speaker} has the accents {sorted(found)}.")
    return sorted(clips, key=lambda clip: clip.path)


def choose_labels(clips: Iterable[Clip], min_speakers: int) -> tuple[str, ...]:
    """The accents with at least `min_speakers` speakers, those with most speakers first."""
    speakers: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        speakers[clip.accent].add(clip.speaker)
    enough = [accent for accent, found in speakers.items() if len(found) >= min_speakers]
    return tuple(sorted(enough, key=lambda accent: (-len(speakers[accent]), accent)))


def split_by_speaker(
    clips: Sequence[Clip],
    labels: Sequence[str],
    kinds: Sequence[str],
    seed: int,
    dev_share: float = 0.15,
    test_share: float = 0.3,
) -> Split:
    """Give every speaker to one part, label by label, at random by `seed`.

    Each label has at least one speaker in each part. Clips of training and development
    speakers whose kind is not in `kinds` are left out altogether: nobody may train on
    them, and to judge by them would be to judge by voices that were heard.

    Raises `SystemExit` for a label with fewer than three speakers.
    """
    part_of: dict[str, str] = {}
    for number, label in enumerate(labels):
        may_train = {c.speaker for c in clips if c.accent == label and c.kind in kinds}
        others = {c.speaker for c in clips if c.accent == label} - may_train
        speakers = np.random.default_rng((seed, number)).permutation(sorted(may_train)).tolist()
        n_dev = max(1, round(dev_share * len(speakers)))
        n_test = max(1, round(test_share * len(speakers)))
        if len(speakers) < n_dev + n_test + 1:
            raise SystemExit(
                f"label {label}: {len(speakers)} speakers with clips of the kinds "
                f"{', '.join(kinds)}; at least 3 are needed."
            )
        part_of |= dict.fromkeys(speakers, "train")
        part_of |= dict.fromkeys(speakers[:n_dev], "dev")
        part_of |= dict.fromkeys(speakers[n_dev : n_dev + n_test], "test")
        part_of |= dict.fromkeys(others, "test")

    def part(name: str) -> tuple[Clip, ...]:
        return tuple(
            clip
            for clip in clips
            if part_of.get(clip.speaker, "rest") == name
            and (name in ("test", "rest") or clip.kind in kinds)
        )

    return Split(part("train"), part("dev"), part("test"), part("rest"))
