"""What `DATA=` may be, and that no speaker is ever on both sides of a split."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from aurea.lab.corpus import (
    Clip,
    choose_labels,
    duration_band,
    halve_by_speaker,
    merge_accents,
    read_clips,
    split_by_speaker,
    with_weak_labels,
)

LABELS = ("england", "us")


def clips_of(speakers: int, accents: Sequence[str] = LABELS) -> list[Clip]:
    """Two clips each of so many speakers of each accent."""
    return [
        Clip(Path(f"{accent}{speaker}-{take}"), accent, f"{accent}{speaker}", "recorded", "")
        for accent in accents
        for speaker in range(speakers)
        for take in range(2)
    ]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_names_accents_and_their_sub_folders_speakers(tmp_path: Path) -> None:
    anna = touch(tmp_path / "us" / "anna" / "one.wav")
    deep = touch(tmp_path / "us" / "anna" / "june" / "two.FLAC")
    loose = touch(tmp_path / "England" / "three.m4a")
    touch(tmp_path / "us" / "anna" / "notes.txt")
    touch(tmp_path / "us" / "anna" / "._one.wav")
    assert read_clips(tmp_path) == [
        Clip(loose, "england", "England/three.m4a", "recorded", "", speaker_known=False),
        Clip(deep, "us", "us/anna", "recorded", ""),
        Clip(anna, "us", "us/anna", "recorded", ""),
    ]


def test_a_csv_names_speakers_kinds_and_licences(tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("path,accent,speaker,kind,licence\na.wav,us,p1,synthesised,MIT\nb.wav,us,,,\n")
    assert read_clips(table) == [
        Clip(tmp_path / "a.wav", "us", "p1", "synthesised", "MIT"),
        Clip(tmp_path / "b.wav", "us", "b.wav", "recorded", "", speaker_known=False),
    ]


def test_a_csv_that_a_spreadsheet_saved_is_read_as_well(tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_bytes(b"\xef\xbb\xbfpath,accent\r\na.wav,us\r\n")
    assert [clip.accent for clip in read_clips(table)] == ["us"]


RECIPE = "ID,utt_id,wav,wav_format,text,duration,accent\n"


def test_the_recipe_s_csv_is_read_with_its_audio_wherever_it_lies(tmp_path: Path) -> None:
    table = tmp_path / "test.csv"
    table.write_text(
        RECIPE
        + '0,a,/remote/corpus/clips/a.mp3,mp3,"well, yes",1.2,us\n'
        + "1,b,/remote/corpus/other/b.mp3,mp3,no,2.1,England English\n"
        + "2,c,/remote/corpus/clips/c.mp3,mp3,no,2.1,UNITED STATES ENGLISH\n"
    )
    near = touch(tmp_path / "corpus" / "clips" / "a.mp3")
    flat = touch(tmp_path / "b.mp3")
    clips = {clip.path: clip for clip in read_clips(table)}
    assert clips[near].accent == "us"
    assert clips[flat].accent == "england"
    absent = clips[Path("/remote/corpus/clips/c.mp3")]
    assert absent.accent == "us"
    assert not absent.speaker_known
    assert len({clip.speaker for clip in clips.values()}) == 3


@pytest.mark.parametrize(
    ("written", "accent"),
    [
        ("India and South Asia (India, Pakistan, Sri Lanka)", "indian"),
        ("INDIA AND SOUTH ASIA INDIA PAKISTAN SRI LANKA", "indian"),
        ("southatlandtic", "southatlandtic"),
        ("US", "us"),
        ("Northern Irish", "Northern Irish"),
    ],
)
def test_common_voice_s_names_become_the_model_s_labels_and_others_stay(
    tmp_path: Path, written: str, accent: str
) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(f'path,accent\na.wav,"{written}"\n')
    assert [clip.accent for clip in read_clips(table)] == [accent]


def test_several_sources_are_read_together_and_keep_unknown_speakers_apart(tmp_path: Path) -> None:
    touch(tmp_path / "folder" / "us" / "a.wav")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clips.csv").write_text("path,accent,speaker\na.wav,us,\nb.wav,us,p1\n")
    (tmp_path / "two" / "clips.csv").rename(tmp_path / "two" / "more.csv")
    clips = read_clips(
        [tmp_path / "one" / "clips.csv", tmp_path / "folder", tmp_path / "two" / "more.csv"]
    )
    assert len(clips) == 5
    unknown = [clip.speaker for clip in clips if not clip.speaker_known]
    assert len(set(unknown)) == len(unknown) == 3
    assert {clip.speaker for clip in clips if clip.speaker_known} == {"p1"}


def test_speech_without_an_accent_is_taken_on_request_only(tmp_path: Path) -> None:
    table = tmp_path / "speech.csv"
    table.write_text("path,speaker\na.wav,p1\nb.wav,\n")
    with pytest.raises(SystemExit, match="no labelled clip"):
        read_clips(table)
    clips = read_clips(table, unlabelled=True)
    assert [(clip.accent, clip.speaker_known) for clip in clips] == [("", True), ("", False)]
    assert choose_labels(clips, 1) == ()
    loose = touch(tmp_path / "folder" / "c.wav")
    touch(tmp_path / "folder" / "us" / "d.wav")
    folder = read_clips(tmp_path / "folder", unlabelled=True)
    assert {clip.path for clip in folder if not clip.accent} == {loose}
    assert [clip.accent for clip in read_clips(tmp_path / "folder")] == ["us"]


def test_a_row_without_an_accent_among_labelled_ones_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("path,accent\na.wav,us\nb.wav,\n")
    with pytest.raises(SystemExit, match="every row needs"):
        read_clips(table)


def test_data_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere"):
        read_clips(tmp_path / "nowhere")


def test_a_speaker_with_two_accents_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("path,accent,speaker\na.wav,us,p1\nb.wav,england,p1\n")
    with pytest.raises(SystemExit, match="p1"):
        read_clips(table)


def test_every_length_has_one_band() -> None:
    bands = [duration_band(seconds) for seconds in (0.5, 2.0, 3.9, 4.0, 9.99, 10.0, 300.0)]
    assert bands == [
        "under 2 s",
        "2 to 4 s",
        "2 to 4 s",
        "4 to 7 s",
        "7 to 10 s",
        "10 s and more",
        "10 s and more",
    ]


def test_no_speaker_is_in_two_parts_and_every_part_has_every_label() -> None:
    for seed in range(20):
        split = split_by_speaker(clips_of(4), LABELS, ("recorded",), seed)
        speakers = [{clip.speaker for clip in part} for part in vars(split).values()]
        assert sum(map(len, speakers)) == len(set.union(*speakers)) == 8
        for part in (split.train, split.dev, split.test):
            assert {clip.accent for clip in part} == set(LABELS)
        assert not split.rest


def test_the_split_depends_on_the_seed() -> None:
    clips = clips_of(4)
    splits = {split_by_speaker(clips, LABELS, ("recorded",), seed) for seed in range(8)}
    assert len(splits) > 1


def test_clips_that_may_not_train_judge_only_speakers_that_were_not_heard() -> None:
    clips = [
        Clip(Path(f"{accent}{speaker}{kind}"), accent, f"{accent}{speaker}", kind, "")
        for accent in (*LABELS, "wales")
        for speaker in range(6)
        for kind in ("recorded", "vocoded")
    ]
    split = split_by_speaker(clips, LABELS, ("recorded",), 0)
    assert {clip.kind for clip in split.train + split.dev} == {"recorded"}
    assert {clip.kind for clip in split.test} == {"recorded", "vocoded"}
    assert {clip.accent for clip in split.rest} == {"wales"}
    heard = {clip.speaker for clip in split.train + split.dev}
    assert heard.isdisjoint(clip.speaker for clip in split.test + split.rest)


def test_too_few_speakers_are_refused_by_the_label_s_name() -> None:
    few = [clip for clip in clips_of(4) if clip.speaker not in ("us2", "us3")]
    with pytest.raises(SystemExit, match="label us: 2 speakers"):
        split_by_speaker(few, LABELS, ("recorded",), 0)


def test_merged_accents_share_a_label_and_nothing_else_changes() -> None:
    clips = clips_of(1, ("us", "wales", "indian"))
    merged = merge_accents(clips, ["wales=other", "indian=other"])
    assert [clip.accent for clip in merged] == ["us"] * 2 + ["other"] * 4
    assert [clip.path for clip in merged] == [clip.path for clip in clips]


def test_a_merge_may_be_a_pattern_and_the_first_that_fits_counts() -> None:
    clips = clips_of(1, ("us", "l1-greek", "l1-french", "canada", "wales"))
    merged = merge_accents(clips, ["l1-*=learner", "canada=", "*=native"])
    assert [(clip.accent, clip.spoken) for clip in merged[::2]] == [
        ("us", ""),
        ("learner", "l1-greek"),
        ("learner", "l1-french"),
        ("", "canada"),
        ("native", "wales"),
    ]


def test_supposed_labels_are_weak_and_replace_no_known_one(tmp_path: Path) -> None:
    table = tmp_path / "weak.csv"
    table.write_text("speaker,accent\nanna,us\nbert,england\n")
    clips = [
        Clip(tmp_path / name, accent, name, "recorded", "")
        for name, accent in (("anna", ""), ("bert", "us"), ("cleo", ""))
    ]
    found = with_weak_labels(clips, table)
    assert [(clip.accent, clip.certainty) for clip in found] == [
        ("us", "weak"),
        ("us", ""),
        ("", ""),
    ]
    table.write_text("name\nanna\n")
    with pytest.raises(SystemExit, match="no table of speaker and accent"):
        with_weak_labels(clips, table)


@pytest.mark.parametrize("merge", ["wales", "norway=other", "=other", "us=other", "x*=other"])
def test_a_merge_of_another_form_or_of_an_accent_that_nobody_has_is_refused(merge: str) -> None:
    with pytest.raises(SystemExit, match="accents are us, wales"):
        merge_accents(clips_of(1, ("us", "wales")), [merge])


def test_halves_share_no_speaker_and_hold_as_many_of_each_accent() -> None:
    clips = clips_of(5, (*LABELS, "wales"))
    halvings = set()
    for seed in range(8):
        first, second = halve_by_speaker(clips, seed)
        speakers = [{clip.speaker for clip in half} for half in (first, second)]
        assert not speakers[0] & speakers[1]
        assert len(first) + len(second) == len(clips)
        for accent in (*LABELS, "wales"):
            counts = [
                len({c.speaker for c in half if c.accent == accent}) for half in (first, second)
            ]
            assert sorted(counts) == [2, 3]
        halvings.add(frozenset(speakers[0]))
    assert len(halvings) > 1
