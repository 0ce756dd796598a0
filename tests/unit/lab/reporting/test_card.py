"""A model's card: whole whatever was measured, and honest about what was not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from aurea.lab.corpus import Clip
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.reporting.card import TrainingFacts, UsedClip, model_card
from tests.results import MODEL, answers, evaluation_of

SECTIONS = [
    "What it is for",
    "What it must not be used for",
    "What it was trained on",
    "What it scores on unseen speakers",
    "Known faults",
    "Recipe",
]


def used(
    accent: str, speaker: str, *, kind: str = "recorded", licence: str = "", seconds: float = 36.0
) -> UsedClip:
    return UsedClip(Clip(Path(f"{speaker}.wav"), accent, speaker, kind, licence), seconds)


FACTS = TrainingFacts(
    labels=("england", "us"),
    parameters=1_234_567,
    parts={
        "training": [
            used("us", "p1", licence="CC BY 4.0 (VCTK)"),
            used("us", "p1", licence="CC BY 4.0 (VCTK)"),
            used("us", "p2", licence="CC BY 4.0 (VCTK)"),
            used("england", "p3"),
        ],
        "development": [used("us", "p4")],
        "judging": [],
    },
    teacher=False,
    recipe="Seed 0.",
    commands=("make speech", "make train"),
    spent_s=120.0,
    computed_on="1 thread(s) of an x86_64 CPU",
)


def with_training(*clips: UsedClip, teacher: bool = False) -> TrainingFacts:
    return replace(FACTS, parts={"training": clips}, teacher=teacher)


def distorted(plain: Sequence[ClipResult]) -> list[ClipResult]:
    return [
        replace(result, distortion="mp3_32k", us_score=0.9 * (result.us_score or 0.0))
        for result in plain
    ]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    plain = answers(4, 2, accents=("england", "us", "wales"))
    return evaluation_of([*plain, *distorted(plain)])


def sections(card: str) -> dict[str, str]:
    parts = (part.partition("\n") for part in card.split("\n## ")[1:])
    return {title: text for title, _, text in parts}


def tables(card: str) -> Iterator[list[list[str]]]:
    """Every table of the card, its cells by row."""
    for paragraph in card.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line.startswith("|")]
        if lines:
            plain = [line.replace("\\|", "/") for line in lines]
            yield [[cell.strip() for cell in line.strip("|").split("|")] for line in plain]


def check(card: str) -> None:
    """What holds for every card: its sections, and tables that are tables."""
    assert list(sections(card)) == SECTIONS
    assert all(text.strip() for text in sections(card).values())
    assert "nan" not in card
    assert "None" not in card
    for table in tables(card):
        assert {len(row) for row in table} == {len(table[0])}
        assert set(table[1]) == {"---"}
        assert all(cell for row in table for cell in row)


def test_a_card_has_every_section_and_every_table(evaluation: Evaluation) -> None:
    card = model_card(FACTS, {"recorded": evaluation, "all": evaluation})
    check(card)
    assert [table[0][0] for table in tables(card)] == [
        "part",
        "judged on",
        "accent",
        "distortion",
    ]
    assert card.startswith("# A small accent model: england, us\n")
    assert "1,234,567 parameters" in card
    assert "no audio" in card.lower()


def test_the_table_of_what_was_used_counts_speakers_clips_and_hours() -> None:
    parts_table = next(tables(model_card(FACTS, {})))
    assert parts_table[2:] == [
        ["training", "england", "recorded", "1", "1", "0.010", "not stated"],
        ["training", "us", "recorded", "2", "3", "0.030", "CC BY 4.0 (VCTK)"],
        ["development", "us", "recorded", "1", "1", "0.010", "not stated"],
    ]


def test_the_figures_are_those_of_the_evaluation(evaluation: Evaluation) -> None:
    card = model_card(FACTS, {"recorded": evaluation})
    _, figures, accents, shifts = tables(card)
    auc = evaluation.us.auc
    assert figures[2][:4] == [
        "recorded",
        "24",
        "12 (4)",
        f"{auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}]",
    ]
    assert {row[0]: row[1:3] for row in accents[2:]} == {
        accent: ["8", "4"] for accent in ("england", "us", "wales")
    }
    shift = evaluation.robustness["mp3_32k"]
    assert shifts[2][:3] == ["MP3 32 kbit/s", "24", f"{100 * shift.median:.1f}"]
    assert "refused none of the 24 clips" in card


def test_refused_clips_are_counted_by_their_code() -> None:
    plain = answers(4, 2)
    refused = [
        replace(result, us_score=None, evidence=None, refusal="no_speech") for result in plain[:3]
    ]
    card = model_card(FACTS, {"recorded": evaluation_of([*plain[3:], *refused])})
    assert "refused 3 no_speech of the 24 clips" in card
    assert f"| recorded | {len(plain) - 3} |" in card
    check(card)


def test_a_model_that_was_not_judged_has_a_card_that_says_so() -> None:
    card = model_card(FACTS, {})
    check(card)
    assert "Nothing was judged" in sections(card)["What it scores on unseen speakers"]


def one_accent() -> Evaluation:
    return evaluation_of(answers(3, 2, accents=("us",)))


def no_label() -> Evaluation:
    known = answers(3, 2)
    return evaluation_of(
        [replace(result, evidence=None) for result in known], replace(MODEL, labels=())
    )


def all_of_an_accent_refused() -> Evaluation:
    return evaluation_of(
        [
            replace(result, us_score=None, evidence=None, refusal="no_speech")
            if result.clip.accent == "canada"
            else result
            for result in answers(3, 2)
        ]
    )


def all_distorted_refused() -> Evaluation:
    plain = answers(3, 2)
    gone = [replace(r, us_score=None, refusal="no_speech") for r in distorted(plain)]
    return evaluation_of([*plain, *gone])


def nothing() -> Evaluation:
    return evaluation_of([])


@pytest.mark.parametrize(
    "judged", [one_accent, no_label, all_of_an_accent_refused, all_distorted_refused, nothing]
)
def test_what_is_not_known_is_a_dash_and_never_nan(judged: Callable[[], Evaluation]) -> None:
    card = model_card(FACTS, {"recorded": judged()})
    check(card)
    assert "\u2013" in card


@pytest.mark.parametrize(
    ("licence", "credit"),
    [
        ("CC BY 4.0 (VCTK)", "CSTR VCTK Corpus"),
        ("CC BY 4.0, LibriSpeech", "LibriSpeech, Vassil Panayotov"),
        ("Apache-2.0 (Kokoro-82M)", "Kokoro-82M by hexgrad"),
    ],
)
def test_sources_are_credited_by_a_word_of_their_licence(licence: str, credit: str) -> None:
    mine = used("us", "p1", licence=licence)
    assert f"\n- {credit}" in model_card(with_training(mine), {})
    assert credit not in model_card(with_training(used("us", "p1", licence="MIT")), {})
    judged_only = replace(FACTS, parts={"training": (), "judging": [mine]})
    assert f"\n- {credit}" in model_card(judged_only, {})


def test_nothing_is_credited_where_nothing_asks_for_it() -> None:
    assert "Credits" not in model_card(with_training(used("us", "p1")), {})


def test_a_teacher_is_told_of_and_credited() -> None:
    clips = (used("us", "p1"), used("", "p2"))
    card = model_card(with_training(*clips, teacher=True), {})
    assert "It also learned from" in card
    assert "\n- Moonshine tiny" in card
    assert ["training", "none", "recorded", "1", "1", "0.010", "not stated"] in next(tables(card))
    alone = model_card(with_training(*clips), {})
    assert "It also learned" not in alone
    assert "Moonshine" not in alone


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("synthesised", "The accent of synthesised speech is that of the speaker"),
        ("kokoro", "spoken from phonemes of American and British varieties"),
    ],
)
def test_speech_that_nobody_spoke_is_told_of_where_it_trained(kind: str, sentence: str) -> None:
    made = used("us", "p1", kind=kind)
    assert sentence in model_card(with_training(made), {})
    judged_only = replace(FACTS, parts={"training": (used("us", "p2"),), "judging": [made]})
    assert sentence not in model_card(judged_only, {})


def test_accents_that_pass_for_us_without_being_labels_are_named_as_faults(
    evaluation: Evaluation,
) -> None:
    wales = next(group for group in evaluation.by_accent if group.name == "wales")
    others = tuple(group for group in evaluation.by_accent if group.name != "wales")
    for mean, named in ((0.7, True), (0.1, False), (float("nan"), False)):
        found = replace(evaluation, by_accent=(*others, replace(wales, mean_score=mean)))
        faults = sections(model_card(FACTS, {"recorded": found}))["Known faults"]
        assert ("Voices from wales, no label of the model, score 70" in faults) is named
        assert ("wales" in faults) is named
        assert "Voices from england" not in faults


def test_every_command_stands_alone_in_the_recipe() -> None:
    recipe = sections(model_card(FACTS, {}))["Recipe"]
    assert recipe.startswith(
        "\n    make speech\n    make train\n\nSeed 0. Training took 2 min on 1"
    )


def test_names_with_bars_break_no_table() -> None:
    odd = used("us | them", "p1", kind="a|b", licence="this | that")
    card = model_card(with_training(odd), {})
    check(card)
    assert next(tables(card))[2][1:3] == ["us / them", "a/b"]
