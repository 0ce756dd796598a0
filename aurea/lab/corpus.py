"""Labelled speech on disk: what lies there, who speaks, and which part a speaker belongs to."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from accent.layout import US_LABEL

DEFAULT_KIND: Final = "recorded"

WEAK: Final = "weak"
"""Certainty of a label that nobody gave who knows the speaker."""

DURATION_BANDS_S: Final = (0.0, 2.0, 4.0, 7.0, 10.0, float("inf"))
"""Where one band of clip lengths ends and the next begins; 10 s is a whole window."""

_AUDIO_SUFFIXES: Final = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm"}

# What Common Voice 11 calls the accents that its version 7, and with it the published model,
# calls by one word. The recipe's list turns all but letters into spaces.
_ACCENT_NAMES: Final = {
    "australian english": "australia",
    "canadian english": "canada",
    "england english": "england",
    "filipino": "philippines",
    "hong kong english": "hongkong",
    "india and south asia india pakistan sri lanka": "indian",
    "irish english": "ireland",
    "malaysian english": "malaysia",
    "new zealand english": "newzealand",
    "scottish english": "scotland",
    "singaporean english": "singapore",
    "southern african south africa zimbabwe namibia": "african",
    "united states english": "us",
    "welsh english": "wales",
    "west indies and bermuda bahamas bermuda jamaica trinidad": "bermuda",
}


@dataclass(frozen=True)
class Clip:
    """One file of speech.

    `accent` is empty where nobody says which it is. `kind` says how the speech came about,
    `licence` may be empty. An unknown speaker counts as one that speaks in this file alone:
    `speaker` then is a name for the file, and `speaker_known` is False. `corpus` says where it
    is from, `channel` what it was recorded with, and `certainty` who says which accent it is:
    where it begins with `weak`, nobody does who knows the speaker. `spoken` is the accent before
    it was merged with others under one label; empty where it was not.
    """

    path: Path
    accent: str
    speaker: str
    kind: str
    licence: str
    speaker_known: bool = True
    corpus: str = ""
    channel: str = ""
    certainty: str = ""
    spoken: str = ""


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


def read_clips(data: Path | Sequence[Path], *, unlabelled: bool = False) -> list[Clip]:
    """List the clips of folders and CSV files, ordered by path.

    A folder has one sub-folder per accent, in it files or one sub-folder per speaker; a
    file that lies directly in its accent's folder has no known speaker.

    A CSV has the columns path and accent and may have speaker, kind, licence, corpus, channel
    and certainty; or it is
    one of the CommonAccent recipe (ID, utt_id, wav, wav_format, text, duration, accent),
    which knows no speakers. A path that leads nowhere as it stands, as those of the
    recipe's author do, is looked for below the CSV's own folder by as much of its end as
    is there.

    With `unlabelled`, rows without an accent and files directly in a folder are taken too.

    Raises `SystemExit` if there is no clip, if an accent or a column is missing, or if a
    speaker has two accents.
    """
    sources = [data] if isinstance(data, Path) else list(data)
    by_path: dict[Path, Clip] = {}
    for source in sources:
        # Two lists may name different files alike.
        prefix = f"{source.name}:" if len(sources) > 1 else ""
        found = _folder_clips(source, prefix) if source.is_dir() else _csv_clips(source, prefix)
        clips = found if unlabelled else [clip for clip in found if clip.accent]
        if not clips:
            raise SystemExit(
                f"{source}: no labelled clip found (a folder per accent, or a CSV file)."
            )
        if not source.is_dir() and len(clips) < len(found):
            raise SystemExit(f"{source}: every row needs a path and an accent.")
        by_path |= {clip.path: clip for clip in clips}
    accents: dict[str, set[str]] = defaultdict(set)
    for clip in by_path.values():
        if clip.accent:
            accents[clip.speaker].add(clip.accent)
    for speaker, names in accents.items():
        if len(names) > 1:
            raise SystemExit(
                f"{' '.join(map(str, sources))}: speaker {speaker} has the accents {sorted(names)}."
            )
    return sorted(by_path.values(), key=lambda clip: clip.path)


def _folder_clips(folder: Path, prefix: str) -> list[Clip]:
    clips: list[Clip] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _AUDIO_SUFFIXES or path.name.startswith("."):
            continue
        *parents, name = path.relative_to(folder).parts
        accent = _accent_name(parents[0]) if parents else ""
        known = len(parents) > 1
        speaker = "/".join(parents[:2]) if known else prefix + "/".join([*parents, name])
        clips.append(Clip(path, accent, speaker, DEFAULT_KIND, "", known))
    return clips


def _csv_clips(table: Path, prefix: str) -> list[Clip]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{table}: cannot be read as a folder or a CSV file: {error}") from None
    clips: list[Clip] = []
    for row in rows:
        # The recipe's column is `wav`, whatever the format.
        written = row.get("path") or row.get("wav")
        if not written:
            raise SystemExit(f"{table}: every row needs a path and an accent.")
        speaker = row.get("speaker") or ""
        clips.append(
            Clip(
                _located(Path(written), table.parent),
                _accent_name(row.get("accent") or ""),
                speaker or prefix + written,
                row.get("kind") or DEFAULT_KIND,
                row.get("licence") or "",
                bool(speaker),
                row.get("corpus") or "",
                row.get("channel") or "",
                row.get("certainty") or "",
            )
        )
    return clips


def _located(written: Path, folder: Path) -> Path:
    """The file that a row means; where it is nowhere, the place that the row names."""
    named = folder / written
    if named.exists():
        return named
    parts = written.parts[1:] if written.is_absolute() else written.parts
    for start in range(len(parts)):
        candidate = folder.joinpath(*parts[start:])
        if candidate.exists():
            return candidate
    return named


def _accent_name(written: str) -> str:
    """An accent by the model's word for it, whatever Common Voice's version."""
    plain = " ".join(re.findall(r"[a-z0-9]+", written.lower()))
    known = {*_ACCENT_NAMES.values(), "southatlandtic"}
    return _ACCENT_NAMES.get(plain, plain if plain in known else written.strip())


def duration_band(duration_s: float) -> str:
    """The name of the band in `DURATION_BANDS_S` that holds a clip of `duration_s` seconds."""
    for low, high in pairwise(DURATION_BANDS_S):
        if duration_s < high:
            return f"under {high:g} s" if not low else _band_name(low, high)
    return _band_name(*DURATION_BANDS_S[-2:])


def _band_name(low_s: float, high_s: float) -> str:
    return f"{low_s:g} s and more" if np.isinf(high_s) else f"{low_s:g} to {high_s:g} s"


def choose_labels(clips: Iterable[Clip], min_speakers: int) -> tuple[str, ...]:
    """The accents with at least `min_speakers` speakers, those with most speakers first."""
    speakers: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.accent:
            speakers[clip.accent].add(clip.speaker)
    enough = [accent for accent, found in speakers.items() if len(found) >= min_speakers]
    return tuple(sorted(enough, key=lambda accent: (-len(speakers[accent]), accent)))


def merge_accents(clips: Sequence[Clip], merges: Sequence[str]) -> list[Clip]:
    """`clips` with the accents of each ACCENT=LABEL in `merges` under its label.

    ACCENT may be a pattern such as `l1-*`; the first that fits an accent counts, and none
    fits US. Without a LABEL, as in `canada=`, speech of that accent has no label.

    Raises `SystemExit` for another form, or an accent that no clip has.
    """
    known = {clip.accent for clip in clips} - {""}
    label_of: dict[str, str] = {}
    for merge in merges:
        accent, equals, label = merge.partition("=")
        found = {name for name in known - {US_LABEL} if fnmatchcase(name, accent)}
        if not equals or not accent or not found:
            raise SystemExit(
                f"{merge}: expected ACCENT=LABEL; accents are {', '.join(sorted(known))}."
            )
        label_of = dict.fromkeys(found, label) | label_of
    return [
        replace(clip, accent=label_of[clip.accent], spoken=clip.accent)
        if clip.accent in label_of
        else clip
        for clip in clips
    ]


def with_weak_labels(clips: Sequence[Clip], table: Path) -> list[Clip]:
    """`clips` with the accents that a CSV of speaker and accent supposes, where they have none.

    Their certainty is `weak`. Raises `SystemExit` for a table that cannot be read.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            accent_of = {row["speaker"]: row["accent"] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise SystemExit(f"{table}: no table of speaker and accent: {error}") from None
    return [
        replace(clip, accent=_accent_name(accent_of[clip.speaker]), certainty=WEAK)
        if not clip.accent and clip.speaker in accent_of
        else clip
        for clip in clips
    ]


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
    them, and to judge by them would be to judge by voices that were trained on.

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


def halve_by_speaker(clips: Sequence[Clip], seed: int) -> tuple[list[Clip], list[Clip]]:
    """Two halves of `clips` that share no speaker, each accent's speakers halved by `seed`.

    An odd speaker goes to the first half of one accent and to the second of the next.
    """
    by_accent: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        by_accent[clip.accent].add(clip.speaker)
    first: set[str] = set()
    for number, accent in enumerate(sorted(by_accent)):
        order = np.random.default_rng((seed, number)).permutation(sorted(by_accent[accent]))
        first |= set(order[: (len(order) + number % 2) // 2].tolist())
    return (
        [clip for clip in clips if clip.speaker in first],
        [clip for clip in clips if clip.speaker not in first],
    )
