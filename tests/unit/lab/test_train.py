"""`make train`: its batches, its checkpoints, the folder it writes, the model that ships."""

import csv
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accent.decode import decode
from accent.layout import MODEL_FILES
from accent.loading import load_model
from accent.scoring import cut_windows, posterior

from aurea.archive.distort import DISTORTIONS
from aurea.lab import prepare, train
from aurea.lab.corpus import Clip, read_clips, split_by_speaker
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.packages import PackageUnavailable
from aurea.lab.prepare import PreparedClip
from aurea.paths import ROOT
from tests.clips import encode, voice
from tests.results import answers
from tests.stand_ins import pool_of_threads, prepared_clip

SHIPPED = ROOT / "model_store" / "embedded"
SHARED_AUDIO = ROOT.parent / "shared" / "audio"
MAX_SHIPPED_BYTES = 10_000_000
NEVER = -1
LEARNING_RATE = train.learning_rate
CARD_SECTIONS = (
    "What it is for",
    "What it must not be used for",
    "What it was trained on",
    "What it scores on unseen speakers",
    "Known faults",
    "Recipe",
)

LABELS = ("england", "us")
TINY = train.Recipe(
    steps=14,
    batch_size=4,
    channels=16,
    embedding_size=8,
    attention_channels=8,
    min_crop_s=0.4,
    max_crop_s=0.6,
    versions=2,
    bf16=False,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two accents of four speakers, two clips each: enough for a split, not for an accent."""
    folder = tmp_path_factory.mktemp("speech")
    seed = 0
    for accent in LABELS:
        for speaker in range(4):
            home = folder / accent / f"{accent}{speaker}"
            home.mkdir(parents=True)
            for take in range(2):
                seed += 1
                sound = voice(0.9 + 0.3 * take, seed=seed)
                (home / f"take{take}.flac").write_bytes(encode(sound, 16_000, "flac"))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare in this process and judge nobody: for what is about weights alone."""
    monkeypatch.setattr(prepare, "process_pool", pool_of_threads)
    monkeypatch.setattr(train, "evaluate_clips", lambda *_, **__: [])


def make(
    data: Path,
    out: Path,
    cache: Path,
    recipe: train.Recipe = TINY,
    *,
    checkpoint_every: int = 5,
    **more: Any,
) -> dict[str, Evaluation]:
    return train.make_model(
        read_clips(data),
        out,
        recipe,
        labels=LABELS,
        kinds=("recorded",),
        commands=["a command"],
        checkpoint_every=checkpoint_every,
        cache=cache,
        **more,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).network.state_dict()


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def logged_steps(folder: Path) -> list[int]:
    lines = (folder / train.LOG_FILE).read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.fixture(scope="module")
def made(
    data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Evaluation]]:
    """A model that was made in full, by processes of its own, and what was found of it."""
    out = tmp_path_factory.mktemp("model")
    return out, make(data, out, cache, robustness=True)


@pytest.fixture(scope="module")
def trained(made: tuple[Path, dict[str, Evaluation]]) -> Path:
    return made[0]


def test_the_folder_that_training_writes_is_one_that_the_server_loads(trained: Path) -> None:
    model = load_model(trained)
    assert model.labels == LABELS
    assert model.spec.channels == (16, 16, 16, 16, 48)
    assert model.spec.softmax_scale != train.Recipe.scale
    assert {path.name for path in trained.iterdir()} == {
        *MODEL_FILES,
        train.CARD_FILE,
        train.LOG_FILE,
    }


def test_speechbrain_itself_loads_the_folder_and_gives_the_same_cosines(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechbrain.inference.classifiers import EncoderClassifier

    monkeypatch.chdir(tmp_path)
    clip = tmp_path / "clip.wav"
    clip.write_bytes(encode(voice(2.0, seed=3), 16_000, "wav-s16"))
    reference = EncoderClassifier.from_hparams(
        source=str(trained),
        savedir=str(tmp_path / "saved"),
        overrides={"pretrained_path": str(trained)},
    )
    theirs, _, index, label = reference.classify_file(str(clip))
    model = load_model(trained)
    ours = model.network(torch.from_numpy(decode(clip.read_bytes()).waveform)[None])
    assert torch.allclose(ours.squeeze(), theirs.squeeze(), atol=1e-4)
    assert label == [model.labels[int(index)]]


def test_the_card_tells_what_was_found(made: tuple[Path, dict[str, Evaluation]]) -> None:
    folder, evaluations = made
    card = (folder / train.CARD_FILE).read_text()
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(CARD_SECTIONS)
    (name,) = evaluations
    evaluation = evaluations[name]
    assert name == "recorded, all accents"
    assert evaluation.data.clips == 4
    assert f"| {name} | {4 - evaluation.data.refused} |" in card
    assert f"{evaluation.us.auc.value:.2f} [" in card
    assert set(evaluation.robustness) == set(DISTORTIONS)
    assert "white noise, 10 dB" in card
    assert f"{load_model(folder).spec.softmax_scale:g}" in card
    assert "    a command\n" in card
    assert "nan" not in card


def test_the_figures_are_of_voices_that_training_did_not_hear(
    data: Path, made: tuple[Path, dict[str, Evaluation]]
) -> None:
    split = split_by_speaker(read_clips(data), LABELS, ("recorded",), TINY.seed)
    (evaluation,) = made[1].values()
    assert evaluation.data.accents == {"england": 2, "us": 2}
    heard = [line for line in (made[0] / train.CARD_FILE).read_text().splitlines() if "|" in line]
    clips = {
        part: sum(int(line.split("|")[5]) for line in heard if line.startswith(f"| {part} |"))
        for part in ("training", "development", "judging")
    }
    assert clips == {"training": len(split.train), "development": len(split.dev), "judging": 4}


def test_labels_without_us_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="'us' is needed"):
        train.make_model(read_clips(data), tmp_path, TINY, labels=("england",), kinds=("recorded",))


@pytest.mark.usefixtures("quick")
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    data: Path, trained: Path, cache: Path, tmp_path: Path
) -> None:
    # Features of its own: preparing them is part of what the seed decides.
    make(data, tmp_path / "again", tmp_path / "features")
    assert same_weights(trained, tmp_path / "again")
    make(data, tmp_path / "other", cache, replace(TINY, seed=1))
    assert not same_weights(trained, tmp_path / "other")


@pytest.mark.usefixtures("quick")
def test_speech_that_teaches_no_label_changes_nothing_without_a_teacher(
    data: Path, trained: Path, cache: Path, tmp_path: Path
) -> None:
    extra = []
    for seed, accent in ((40, ""), (41, "wales")):
        path = tmp_path / f"{seed}.flac"
        path.write_bytes(encode(voice(1.0, seed=seed), 16_000, "flac"))
        extra.append(Clip(path, accent, f"p{seed}", "recorded", ""))
    make(data, tmp_path / "out", cache, extra=extra)
    assert same_weights(trained, tmp_path / "out")
    make(data, tmp_path / "more", cache, extra=[replace(extra[0], accent="us")])
    assert not same_weights(trained, tmp_path / "more")
    assert "| training | us | recorded | 3 | 5 |" in (tmp_path / "more/README.md").read_text()


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make training die before `step`, and return the list of steps that it began."""
    begun: list[int] = []

    def dies(recipe: train.Recipe, at: int) -> float:
        if at == step:
            raise KeyboardInterrupt
        begun.append(at)
        return LEARNING_RATE(recipe, at)

    monkeypatch.setattr(train, "learning_rate", dies)
    return begun


@pytest.mark.usefixtures("quick")
def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_with_the_same_weights(
    data: Path, trained: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = stop_before(12, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path, cache)
    assert begun == list(range(12))
    assert not any((tmp_path / name).exists() for name in MODEL_FILES)
    with (tmp_path / train.LOG_FILE).open("a") as log:
        log.write('{"step": 12, "lo')
    begun = stop_before(NEVER, monkeypatch)
    make(data, tmp_path, cache)
    assert begun == [10, 11, 12, 13]
    assert logged_steps(tmp_path) == logged_steps(trained) == [10, 14]
    assert same_weights(trained, tmp_path)
    assert not (tmp_path / train.WORK_FOLDER).exists()


@pytest.mark.usefixtures("quick")
def test_a_run_that_is_to_stop_early_takes_the_same_steps_up_to_there(
    data: Path, trained: Path, cache: Path, tmp_path: Path
) -> None:
    make(data, tmp_path, cache, replace(TINY, stop_at=10))
    assert logged_steps(tmp_path) == [10]
    first, wanted = ((out / train.LOG_FILE).read_text() for out in (tmp_path, trained))
    assert json.loads(first)["loss"] == json.loads(wanted.splitlines()[0])["loss"]
    assert "ended at step 10" in (tmp_path / train.CARD_FILE).read_text()


@pytest.mark.usefixtures("quick")
def test_steps_after_the_checkpoint_are_not_logged_twice(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_before(12, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path, cache, checkpoint_every=7)
    assert logged_steps(tmp_path) == [10]
    stop_before(NEVER, monkeypatch)
    make(data, tmp_path, cache, checkpoint_every=7)
    assert logged_steps(tmp_path) == [10, 14]


@pytest.mark.usefixtures("quick")
def test_a_stopped_run_of_another_recipe_is_not_gone_on_with(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_before(6, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path, cache)
    with pytest.raises(SystemExit, match="another recipe"):
        make(data, tmp_path, cache, replace(TINY, margin=0.1))


@pytest.mark.usefixtures("quick")
def test_a_run_of_other_clips_is_not_gone_on_with(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_before(6, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path, cache)
    clip = tmp_path / "more.flac"
    clip.write_bytes(encode(voice(1.0, seed=50), 16_000, "flac"))
    with pytest.raises(SystemExit, match="other data"):
        make(data, tmp_path, cache, extra=[Clip(clip, "us", "more", "recorded", "")])


def test_the_command_line_makes_a_model_and_puts_itself_on_the_card(
    data: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(prepare, "process_pool", pool_of_threads)
    monkeypatch.setattr(train, "make_model", partial(train.make_model, cache=cache))
    size = ["--steps", "2", "--channels", "16", "--batch-size", "4", "--versions", "2", "--fp32"]
    where = ["--data", str(data), "--out", str(tmp_path), "--min-speakers", "4", "--seed", "0"]
    train.main([*where, *size])
    assert load_model(tmp_path).labels == LABELS
    said = capsys.readouterr().out
    assert "recorded, all accents: AUC" in said
    assert f"written: {tmp_path}" in said
    card = (tmp_path / train.CARD_FILE).read_text()
    assert f"    python -m aurea.lab.train {shlex.join([*where, *size])}\n" in card


class Asked(Exception):
    """Carries what the command line asked for."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*arguments: Any, **more: Any) -> None:
        raise Asked(*arguments, more)

    monkeypatch.setattr(train, "make_model", ask)


@pytest.mark.usefixtures("asked")
def test_every_option_of_the_command_line_reaches_the_recipe(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "extra.csv"
    table.write_text("path,accent,licence\na.wav,,\nb.wav,us,MIT\n")
    words = f"--data {data} --out {tmp_path} --labels us,england --kinds recorded --fp32 --teacher"
    words += " --seed 3 --steps 7 --batch-size 6 --channels 24 --learning-rate 0.01 --scale 15"
    words += f" --average-decay 0.9 --versions 4 --extra {table} --extra-licence CC0 --robustness"
    words += " --recipe margin=0.4 unlabelled_share=0.2"
    with pytest.raises(Asked) as caught:
        train.main(words.split())
    clips, out, recipe, more = caught.value.args
    assert len(clips) == 16
    assert out == tmp_path
    assert recipe == train.Recipe(
        seed=3,
        steps=7,
        batch_size=6,
        channels=24,
        learning_rate=0.01,
        scale=15.0,
        average_decay=0.9,
        versions=4,
        bf16=False,
        teacher=True,
        margin=0.4,
        unlabelled_share=0.2,
    )
    assert more["labels"] == ("us", "england")
    assert more["kinds"] == ("recorded",)
    assert more["robustness"] is True
    assert more["jobs"] == 1
    assert more["init"] is None
    assert [(clip.accent, clip.licence) for clip in more["extra"]] == [("", "CC0"), ("us", "MIT")]


@pytest.mark.usefixtures("asked")
def test_merged_accents_are_one_label_in_all_of_the_speech(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "extra.csv"
    table.write_text("path,accent\na.wav,england\nb.wav,wales\n")
    words = f"--data {data} --out {tmp_path} --extra {table} --min-speakers 4"
    with pytest.raises(Asked) as caught:
        train.main([*words.split(), "--merge", "england=british", "wales=british"])
    clips, _, __, more = caught.value.args
    assert {clip.accent for clip in clips} == {"us", "british"}
    assert {clip.accent for clip in more["extra"]} == {"british"}
    assert set(more["labels"]) == {"us", "british"}


@pytest.mark.parametrize(("fitted", "written"), [(99.0, 30.0), (12.5, 12.5)])
def test_development_voices_may_lower_the_scale_and_not_raise_it(
    fitted: float,
    written: float,
    data: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "fit_scale", lambda *_: fitted)
    make(data, tmp_path, cache)
    assert load_model(tmp_path).spec.softmax_scale == written


def test_any_part_of_a_recipe_can_be_given_by_its_name() -> None:
    found = train.with_parts(TINY, ["margin=0.3", "embedding_size=12"])
    assert found == replace(TINY, margin=0.3, embedding_size=12)
    assert train.with_parts(TINY, []) == TINY


@pytest.mark.parametrize("part", ["margn=0.3", "margin", "steps=many", "steps=1.5", "augment=1"])
def test_a_part_that_no_recipe_has_or_of_another_kind_is_refused(part: str) -> None:
    with pytest.raises(SystemExit, match=part):
        train.with_parts(TINY, [part])


@pytest.mark.usefixtures("asked")
def test_a_folder_to_start_from_that_holds_no_model_is_refused_by_name(
    data: Path, tmp_path: Path
) -> None:
    where = ["--data", str(data), "--out", str(tmp_path), "--min-speakers", "4"]
    with pytest.raises(SystemExit, match="nowhere"):
        train.main([*where, "--init", str(tmp_path / "nowhere")])


def test_a_teacher_that_cannot_be_had_ends_the_command_with_what_to_do(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_: object) -> list[Path]:
        raise PackageUnavailable("It could not be fetched. Check that the package index answers.")

    monkeypatch.setattr("aurea.lab.prepare.fetch", unavailable)
    monkeypatch.setattr(train, "make_model", partial(train.make_model, cache=tmp_path / "cache"))
    where = ["--data", str(data), "--out", str(tmp_path / "out"), "--min-speakers", "4"]
    with pytest.raises(SystemExit, match="Check that the package index answers"):
        train.main([*where, "--teacher"])
    assert not (tmp_path / "out").exists()


def test_training_can_start_from_the_embedding_of_another_model(trained: Path) -> None:
    init = load_model(trained)
    network = train.new_network(train.Recipe(), 3, init)
    theirs = init.network.embedding_model.state_dict()
    ours = network.embedding_model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert network.classifier.weight.shape == (3, 8)


def prepared(
    accent: str, speaker: str, *, seconds: float = 1.0, kind: str = "recorded", value: float = 0.0
) -> PreparedClip:
    """A clip whose features are one number, by which a crop of it is known."""
    features = np.full((round(100 * seconds), 24), value, np.float16)
    clip = Clip(Path(f"{speaker}.wav"), accent, speaker, kind, "")
    return prepared_clip(clip, [features])


PLAIN = replace(TINY, augment=False, batch_size=40)


def drawn(clips: Sequence[PreparedClip], steps: int = 20) -> Counter[float]:
    """How often each clip was drawn, by its number."""
    sampler = train.Sampler(clips, [], LABELS, PLAIN)
    found: Counter[float] = Counter()
    for step in range(steps):
        found.update(round(value) for value in sampler.batch(step).features[:, 0, 0].tolist())
    return found


@pytest.mark.usefixtures("quick")
def test_batches_are_balanced_and_a_step_s_batch_is_always_the_same(
    data: Path, cache: Path
) -> None:
    plan = prepare.Plan(TINY.n_mels, TINY.versions, TINY.seed, teacher=False)
    clips = prepare.prepare(read_clips(data), plan, jobs=1, title="clips", cache=cache)
    # One label with a quarter of the clips must still be half of a batch.
    uneven = [c for c in clips if c.clip.accent == "us" or c.clip.speaker == "england/england0"]
    sampler = train.Sampler(uneven, [], LABELS, TINY)
    batch, again, other = sampler.batch(7), sampler.batch(7), sampler.batch(8)
    assert torch.bincount(batch.targets).tolist() == [2, 2]
    assert torch.equal(batch.features, again.features)
    assert torch.equal(batch.targets, again.targets)
    assert batch.features.shape != other.features.shape or not torch.equal(
        batch.features, other.features
    )
    assert bool(torch.isfinite(batch.features).all())
    assert 40 <= batch.features.shape[1] <= 60
    assert batch.posterior is None


def test_a_target_is_the_label_of_what_is_heard() -> None:
    clips = [prepared("us", "u", value=1.0), prepared("england", "e", value=0.0)]
    for step in range(4):
        batch = train.Sampler(clips, [], LABELS, PLAIN).batch(step)
        assert torch.equal(batch.features[:, 0, 0].round().long(), batch.targets)


def test_speakers_are_drawn_alike_however_many_clips_they_have() -> None:
    clips = [prepared("us", "busy", value=1.0) for _ in range(9)]
    found = drawn([*clips, prepared("us", "shy", value=2.0), prepared("england", "e")])
    assert found[1.0] / found[2.0] == pytest.approx(1.0, abs=0.35)


def test_a_kind_of_speech_is_drawn_by_the_cube_root_of_its_length() -> None:
    real = prepared("us", "u", seconds=1.0, value=1.0)
    made = [
        prepared("us", f"k{index}", seconds=32.0, kind="kokoro", value=2.0) for index in range(2)
    ]
    found = drawn([real, *made, prepared("england", "e")], steps=40)
    assert found[2.0] / found[1.0] == pytest.approx(4.0, rel=0.25)
    assert found[0.0] == found[1.0] + found[2.0]


def test_a_label_of_which_nothing_could_be_decoded_is_named() -> None:
    with pytest.raises(SystemExit, match="label england: no clip"):
        train.Sampler([prepared("us", "u")], [], LABELS, TINY)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    recipe = replace(TINY, steps=100, warmup=0.1, learning_rate=0.5)
    rates = [train.learning_rate(recipe, step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[9] == 0.5
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3
    kept = [train.learning_rate(replace(recipe, decay_to=0.4), step) for step in range(100)]
    assert kept[:10] == rates[:10]
    assert kept[-1] == pytest.approx(0.4 * 0.5, abs=1e-3)


def test_clips_that_cannot_be_decoded_are_named_and_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.mp3"
    text.write_bytes(b"This is no audio." * 99)
    odd = [Clip(path, "us", path.name, "recorded", "") for path in (text, tmp_path / "gone.wav")]
    good = read_clips(data)[:1]
    sounds = train.load_sounds([*odd, *good], "clips")
    assert [sound.clip for sound in sounds] == good
    assert sounds[0].duration_s == pytest.approx(0.9)
    said = capsys.readouterr().out
    assert all(f"left out {clip.path}: " in said for clip in odd)


@pytest.mark.usefixtures("quick")
def test_the_card_tells_of_natural_voices_first_and_of_each_set_once(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    natural = answers(3, 2, accents=("england", "us", "wales"))
    synthetic = [
        replace(result, clip=replace(result.clip, kind="synthesised", path=Path(f"/s{index}")))
        for index, result in enumerate(answers(3, 2, accents=LABELS))
    ]
    asked: list[Sequence[Clip]] = []

    def judge(folder: Path, clips: Sequence[Clip], **how: Any) -> list[ClipResult]:
        assert load_model(folder).labels == LABELS
        assert how["distortions"] == ()
        asked.append(clips)
        return [
            replace(result, cosines=(result.cosines or ())[: len(LABELS)])
            for result in (*natural, *synthetic)
        ]

    monkeypatch.setattr(train, "evaluate_clips", judge)
    evaluations = make(data, tmp_path, cache)
    assert {name: found.data.clips for name, found in evaluations.items()} == {
        "recorded, all accents": 18,
        "recorded, the model's labels": 12,
        "recorded + synthesised, all accents": 30,
        "recorded + synthesised, the model's labels": 24,
    }
    assert next(iter(evaluations)) == "recorded, all accents"
    split = split_by_speaker(read_clips(data), LABELS, ("recorded",), TINY.seed)
    assert asked == [[*split.test, *split.rest]]


def test_the_shipped_model_loads_knows_us_and_is_small() -> None:
    model = load_model(SHIPPED)
    assert "us" in model.labels
    assert "england" in model.labels
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_SHIPPED_BYTES
    assert {path.name for path in files} == {*MODEL_FILES, train.CARD_FILE, train.LOG_FILE}


def test_the_shipped_card_has_every_section_and_its_own_recipe() -> None:
    card = (SHIPPED / train.CARD_FILE).read_text()
    for section in CARD_SECTIONS:
        assert f"\n## {section}\n" in card
    assert "python -m aurea.lab.train --data" in card
    assert "CC BY 4.0" in card
    # Rows alone: the text may say why a licence of that name does not hold for a teacher.
    rows = [line for line in card.splitlines() if line.startswith("|")]
    judged_only = [row for row in rows if "CC BY-NC" in row]
    assert judged_only
    assert all(line.startswith("| judging |") for line in judged_only)


def test_the_shipped_model_scores_us_voices_above_british_ones() -> None:
    manifest = SHARED_AUDIO / "manifest.csv"
    if not manifest.exists():
        pytest.skip("the labelled clips of ../shared/audio are not here")
    model = load_model(SHIPPED)
    scores: dict[str, list[float]] = {"us": [], "british": []}
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            group = "us" if row["accent"] == "us" else "british"
            if (
                row["accent"] not in ("us", "england", "scotland", "wales")
                or row["kind"] == "synthesised"
                or float(row["seconds"]) < 0.6
            ):
                continue
            waveform = decode((SHARED_AUDIO / row["path"]).read_bytes()).waveform
            with torch.inference_mode():
                windows = torch.from_numpy(np.stack(cut_windows(waveform)))
                cosines = model.network(windows).mean(dim=0).numpy()
            share = posterior(cosines, model.spec.softmax_scale)[model.us_index]
            scores[group].append(float(share))
    assert len(scores["us"]) > 20
    assert len(scores["british"]) > 50
    assert np.mean(scores["us"]) > np.mean(scores["british"])


def test_a_gpu_is_taken_where_there_is_one_and_missed_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if torch.cuda.is_available():
        assert train.device_called("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train.device_called("auto") == torch.device("cpu")
    assert train.device_called("cpu") == torch.device("cpu")
    for name in ("cuda:99", "no such device"):
        with pytest.raises(SystemExit, match=f"--device {name}: cannot be used here"):
            train.device_called(name)
