"""A model's card: whole whatever was measured, and honest about what was not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from accent.layout import ECAPA, PROBE

from aurea.lab.corpus import Clip
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.reporting import card as card_module
from aurea.lab.reporting.card import TrainingFacts, UsedClip, model_card
from aurea.lab.statistics import Flags, Floats, area_under_roc, bootstrap
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
    kind=ECAPA.kind,
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


@pytest.fixture(autouse=True)
def few_redraws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of a card's groups from few redraws: they are seconds faster."""

    def interval(
        scores: Floats, positive: Flags, speakers: Sequence[str], seed: int
    ) -> tuple[float, float]:
        (found,) = bootstrap(
            lambda rows: [area_under_roc(scores[rows], positive[rows])],
            positive.tolist(),
            speakers,
            seed,
            rounds=40,
        )
        return found

    monkeypatch.setattr(card_module, "bootstrap_auc", interval)


@pytest.fixture(scope="module")
def results() -> list[ClipResult]:
    plain = answers(4, 2, accents=("england", "us", "wales"))
    return [*plain, *distorted(plain)]


@pytest.fixture(scope="module")
def evaluation(results: list[ClipResult]) -> Evaluation:
    return evaluation_of(results)


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


def test_a_card_has_every_section_and_every_table(
    evaluation: Evaluation, results: list[ClipResult]
) -> None:
    card = model_card(FACTS, {"recorded": evaluation, "all": evaluation}, results)
    check(card)
    assert [table[0][0] for table in tables(card)] == [
        "part",
        "judged on",
        "by",
        "distortion",
    ]
    assert card.startswith("# A small accent model: england, us\n")
    assert "1,234,567 parameters" in card
    assert "no audio" in card.lower()


def test_the_table_of_what_was_used_counts_speakers_clips_and_hours() -> None:
    parts_table = next(tables(model_card(FACTS, {}, [])))
    assert parts_table[2:] == [
        ["training", "england", "recorded", "1", "1", "0.010", "not stated"],
        ["training", "us", "recorded", "2", "3", "0.030", "CC BY 4.0 (VCTK)"],
        ["development", "us", "recorded", "1", "1", "0.010", "not stated"],
    ]


def test_the_figures_are_those_of_the_evaluation(
    evaluation: Evaluation, results: list[ClipResult]
) -> None:
    card = model_card(FACTS, {"recorded": evaluation}, results)
    _, figures, groups, shifts = tables(card)
    auc = evaluation.us.auc
    assert figures[2][:4] == [
        "recorded",
        "24",
        "12 (4)",
        f"{auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}]",
    ]
    assert [row[:4] for row in groups[2:5]] == [
        ["accent", "england", "8", "4 (0)"],
        ["accent", "us", "8", "4 (4)"],
        ["accent", "wales", "8", "4 (0)"],
    ]
    by_name = {group.name: group for group in evaluation.by_accent}
    for row in (groups[2], groups[4]):
        group = by_name[row[1]]
        assert row[4:6] == ["\u2013", f"{100 * group.median_score:.0f}"]
        assert row[6].startswith(f"{group.auc:.2f} [")
    assert groups[3][4:] == [f"{100 * by_name['us'].median_score:.0f}", "\u2013", "\u2013"]
    shift = evaluation.robustness["mp3_32k"]
    assert shifts[2][:3] == ["MP3 32 kbit/s", "24", f"{100 * shift.median:.1f}"]
    assert "refused none of the 24 clips" in card


def test_refused_clips_are_counted_by_their_code() -> None:
    plain = answers(4, 2)
    refused = [
        replace(result, us_score=None, evidence=None, refusal="no_speech") for result in plain[:3]
    ]
    results = [*plain[3:], *refused]
    card = model_card(FACTS, {"recorded": evaluation_of(results)}, results)
    assert "refused 3 no_speech of the 24 clips" in card
    assert f"| recorded | {len(plain) - 3} |" in card
    check(card)


def test_a_model_that_was_not_judged_has_a_card_that_says_so() -> None:
    card = model_card(FACTS, {}, [])
    check(card)
    assert "Nothing was judged" in sections(card)["What it scores on unseen speakers"]


def one_accent() -> list[ClipResult]:
    return answers(3, 2, accents=("us",))


def no_label() -> list[ClipResult]:
    return [replace(result, evidence=None) for result in answers(3, 2)]


def all_of_an_accent_refused() -> list[ClipResult]:
    return [
        replace(result, us_score=None, evidence=None, refusal="no_speech")
        if result.clip.accent == "canada"
        else result
        for result in answers(3, 2)
    ]


def all_distorted_refused() -> list[ClipResult]:
    plain = answers(3, 2)
    gone = [replace(r, us_score=None, refusal="no_speech") for r in distorted(plain)]
    return [*plain, *gone]


def nothing() -> list[ClipResult]:
    return []


@pytest.mark.parametrize(
    "judged", [one_accent, no_label, all_of_an_accent_refused, all_distorted_refused, nothing]
)
def test_what_is_not_known_is_a_dash_and_never_nan(
    judged: Callable[[], list[ClipResult]],
) -> None:
    results = judged()
    labelled = any(result.evidence for result in results)
    model = MODEL if labelled or not results else replace(MODEL, labels=())
    card = model_card(FACTS, {"recorded": evaluation_of(results, model)}, results)
    check(card)
    assert "\u2013" in card


def test_everyone_is_told_by_accent_corpus_channel_and_length() -> None:
    def heard(result: ClipResult, number: int) -> ClipResult:
        spoken = "" if result.clip.accent == "us" else ("india", "wales")[number % 2]
        channel, corpus = ("phone", "")[number % 2], ("a|b", "other")[number % 2]
        clip = replace(result.clip, spoken=spoken, channel=channel, corpus=corpus)
        return replace(result, clip=clip, duration_s=2.0 if number % 2 else 12.0)

    results = [heard(result, number) for number, result in enumerate(answers(4, 4))]
    card = model_card(FACTS, {"recorded": evaluation_of(results)}, results)
    check(card)
    *_, groups = tables(card)
    told = {(row[0], row[1]): row[2] for row in groups[2:]}
    assert list(told) == [
        *(("accent", name) for name in ("india", "us", "wales")),
        *(("corpus", name) for name in ("a/b", "other")),
        *(("channel", name) for name in ("not stated", "phone")),
        *(("length", name) for name in sorted({row[1] for row in groups if row[0] == "length"})),
    ]
    for grouping in ("accent", "corpus", "channel", "length"):
        assert sum(int(count) for (title, _), count in told.items() if title == grouping) == 48
    assert len([title for title, _ in told if title == "length"]) == 2


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
    assert f"\n- {credit}" in model_card(with_training(mine), {}, [])
    assert credit not in model_card(with_training(used("us", "p1", licence="MIT")), {}, [])
    judged_only = replace(FACTS, parts={"training": (), "judging": [mine]})
    assert f"\n- {credit}" in model_card(judged_only, {}, [])


def test_nothing_is_credited_where_nothing_asks_for_it() -> None:
    assert "Credits" not in model_card(with_training(used("us", "p1")), {}, [])


def test_a_teacher_is_told_of_and_credited() -> None:
    clips = (used("us", "p1"), used("", "p2"))
    card = model_card(with_training(*clips, teacher=True), {}, [])
    assert "It also learned from" in card
    assert "\n- Moonshine tiny" in card
    assert ["training", "none", "recorded", "1", "1", "0.010", "not stated"] in next(tables(card))
    alone = model_card(with_training(*clips), {}, [])
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
    assert sentence in model_card(with_training(made), {}, [])
    judged_only = replace(FACTS, parts={"training": (used("us", "p2"),), "judging": [made]})
    assert sentence not in model_card(judged_only, {}, [])


def test_an_accent_that_is_no_label_is_told_beside_us(
    evaluation: Evaluation, results: list[ClipResult]
) -> None:
    card = model_card(FACTS, {"recorded": evaluation}, results)
    rows = {row[1]: row for row in list(tables(card))[2]}
    (wales,) = (group for group in evaluation.by_accent if group.name == "wales")
    assert rows["wales"][5] == f"{100 * wales.median_score:.0f}"
    assert rows["wales"][6].startswith(f"{wales.auc:.2f} [")
    assert "labels other than us (england)" in sections(card)["Known faults"]


def test_a_probe_is_told_as_one_and_its_encoder_is_credited() -> None:
    facts = replace(with_training(used("us", "p1")), kind=PROBE.kind, labels=("us", "native"))
    card = model_card(facts, {}, [])
    check(card)
    assert card.startswith("# An accent model on a speech encoder: us, native\n")
    assert "a probe with 1,234,567 parameters, which alone was trained" in card
    assert card.count("\n- Moonshine tiny") == 1
    assert "ECAPA" not in card


def test_every_command_stands_alone_in_the_recipe() -> None:
    recipe = sections(model_card(FACTS, {}, []))["Recipe"]
    assert recipe.startswith(
        "\n    make speech\n    make train\n\nSeed 0. Training took 2 min on 1"
    )


def test_names_with_bars_break_no_table() -> None:
    odd = used("us | them", "p1", kind="a|b", licence="this | that")
    card = model_card(with_training(odd), {}, [])
    check(card)
    assert next(tables(card))[2][1:3] == ["us / them", "a/b"]
