"""What TorchServe is told of an archive on a machine with GPUs."""

import zipfile
from pathlib import Path

import pytest
from accent.layout import ECAPA, PROBE, Layout

from aurea.archive.settings import OUR_SETTINGS_FILE
from aurea.versions.gpu_profile import GpuProfile, batching_of, profile_of

PROFILE = {"batch_size": 64, "max_batch_delay": 2}


def archive(folder: Path, layout: Layout = ECAPA, **changed: str) -> Path:
    """With the settings that ship, but for what is changed: "before|after"."""
    text = OUR_SETTINGS_FILE.read_text()
    for change in changed.values():
        before, after = change.split("|")
        assert before in text
        text = text.replace(before, after)
    path = folder / "model.mar"
    with zipfile.ZipFile(path, "w") as content:
        for name in layout.files:
            content.writestr(name, b"")
        content.writestr("model-config.yaml", text)
    return path


@pytest.mark.parametrize("cards", [1, 2, 8])
def test_every_card_has_one_worker_with_large_batches(cards: int, tmp_path: Path) -> None:
    profile = profile_of(archive(tmp_path), cards)
    assert profile == GpuProfile(cards, PROFILE)
    assert (profile.workers, profile.in_flight) == (cards, 256 * cards)


def test_without_a_card_nothing_is_told(tmp_path: Path) -> None:
    assert profile_of(archive(tmp_path), 0) is None
    assert batching_of(archive(tmp_path), 0) == {}


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        (PROBE, {}),
        (ECAPA, {"engine": "engine: auto|engine: openvino"}),
    ],
)
def test_what_is_computed_on_the_cpu_is_served_as_on_any_machine(
    layout: Layout, changes: dict[str, str], tmp_path: Path
) -> None:
    assert profile_of(archive(tmp_path, layout, **changes), 4) is None


def test_what_somebody_has_set_is_kept(tmp_path: Path) -> None:
    own = archive(tmp_path, size="batchSize: 2|batchSize: 8")
    assert batching_of(own, 1) == {"max_batch_delay": 2}
    own = archive(tmp_path, delay="maxBatchDelay: 1|maxBatchDelay: 20")
    assert batching_of(own, 1) == {"batch_size": 64}
    own = archive(tmp_path, size="batchSize: 2|# batchSize: 2", engine="engine: auto|engine: torch")
    assert batching_of(own, 1) == PROFILE


def test_what_is_no_archive_has_no_profile(tmp_path: Path) -> None:
    assert profile_of(tmp_path / "none.mar", 1) is None
    (tmp_path / "text.mar").write_text("no zip")
    assert profile_of(tmp_path / "text.mar", 1) is None
