"""`make train`: its split, its checkpoints, the folder it writes, the model that ships."""

import csv
import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accent.audio import decode
from accent.network import MODEL_FILES, load_model
from accent.scoring import cut_windows, posterior

from scripts import corpus, train
from tests.clips import encode, voice

ROOT = Path(__file__).resolve().parents[2]
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
    bf16=False,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on networks this small, and may change the sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def make(
    data: Path, out: Path, recipe: train.Recipe = TINY, checkpoint_every: int = 5
) -> dict[str, train.Figures]:
    return train.make_model(
        corpus.read_clips(data),
        out,
        recipe,
        labels=LABELS,
        kinds=("recorded",),
        command="a command",
        checkpoint_every=checkpoint_every,
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
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    make(data, out)
    return out


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


def test_the_card_has_every_section_and_the_measured_figures(trained: Path) -> None:
    card = (trained / train.CARD_FILE).read_text()
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(CARD_SECTIONS)
    assert "White noise" in card
    assert f"{load_model(trained).spec.softmax_scale:g}" in card
    assert "nan" not in card


def test_labels_without_us_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="'us' is needed"):
        train.make_model(
            corpus.read_clips(data), tmp_path, TINY, labels=("england",), kinds=("recorded",)
        )


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    make(data, tmp_path / "again")
    assert same_weights(trained, tmp_path / "again")
    make(data, tmp_path / "other", replace(TINY, seed=1))
    assert not same_weights(trained, tmp_path / "other")


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


def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_with_the_same_weights(
    data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = stop_before(12, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path)
    assert begun == list(range(12))
    assert not any((tmp_path / name).exists() for name in MODEL_FILES)
    with (tmp_path / train.LOG_FILE).open("a") as log:
        log.write('{"step": 12, "lo')
    begun = stop_before(NEVER, monkeypatch)
    make(data, tmp_path)
    assert begun == [10, 11, 12, 13]
    assert logged_steps(tmp_path) == logged_steps(trained) == [10, 14]
    assert same_weights(trained, tmp_path)
    assert not (tmp_path / train.WORK_FOLDER).exists()


def test_steps_after_the_checkpoint_are_not_logged_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_before(12, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path, checkpoint_every=7)
    assert logged_steps(tmp_path) == [10]
    stop_before(NEVER, monkeypatch)
    make(data, tmp_path, checkpoint_every=7)
    assert logged_steps(tmp_path) == [10, 14]


def test_a_stopped_run_of_another_recipe_is_not_gone_on_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_before(6, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path)
    with pytest.raises(SystemExit, match="another recipe"):
        make(data, tmp_path, replace(TINY, margin=0.1))


def test_the_command_line_makes_a_model_and_puts_itself_on_the_card(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--steps", "2", "--channels", "16", "--batch-size", "4", "--fp32"]
    where = ["--data", str(data), "--out", str(tmp_path), "--min-speakers", "4", "--seed", "5"]
    train.main([*where, *size])
    assert load_model(tmp_path).labels == LABELS
    assert "AUC" in capsys.readouterr().out
    card = (tmp_path / train.CARD_FILE).read_text()
    assert f"    python -m scripts.train {shlex.join([*where, *size])}\n" in card


def test_training_can_start_from_the_embedding_of_another_model(trained: Path) -> None:
    init = load_model(trained)
    network = train.new_network(train.Recipe(), 3, init)
    theirs = init.network.embedding_model.state_dict()
    ours = network.embedding_model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert network.classifier.weight.shape == (3, 8)


def test_batches_are_balanced_and_a_step_s_batch_is_always_the_same(data: Path) -> None:
    sounds = train.load_sounds(corpus.read_clips(data), "clips")
    # One label with a quarter of the clips must still be half of a batch.
    uneven = [s for s in sounds if s.clip.accent == "us" or s.clip.speaker == "england/england0"]
    network = train.new_network(TINY, 2, None)
    sampler = train.Sampler(uneven, LABELS, network, TINY)
    features, targets = sampler.batch(7)
    again, _ = sampler.batch(7)
    other, _ = sampler.batch(8)
    assert torch.bincount(targets).tolist() == [2, 2]
    assert torch.equal(features, again)
    assert features.shape != other.shape or not torch.equal(features, other)
    assert bool(torch.isfinite(features).all())


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
    assert "python -m scripts.train --data" in card
    assert "CC BY 4.0" in card
    judged_only = [line for line in card.splitlines() if "CC BY-NC" in line]
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
