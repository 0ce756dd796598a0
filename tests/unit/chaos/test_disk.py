"""The troubles of a disk are real ones, and go with their block."""

import os
from pathlib import Path

import pytest

from chaos import disk

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@needs_root
@pytest.mark.slow
def test_a_folder_is_read_only_or_full_within_the_block_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_FOLDER_BYTES", 1 << 20)
    folder = tmp_path / "run"
    with disk._own_disk(folder):
        for trouble, words in ((disk._made_read_only, "Read-only"), (disk._filled, "No space")):
            with trouble(folder), pytest.raises(OSError, match=words):
                (folder / "file").write_bytes(bytes(5_000))
            (folder / "file").write_bytes(bytes(5_000))
            (folder / "file").unlink()
    assert not folder.is_mount()
    assert not [*folder.iterdir()]
