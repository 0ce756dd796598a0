"""Where processes count: a folder that goes with its parent, however that ends."""

import subprocess
import sys
from pathlib import Path

from proxy.processes.counts_folder import counts_folder, usual_place


def test_it_is_there_for_as_long_as_it_is_needed(tmp_path: Path) -> None:
    with counts_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "counter_1.db").touch()
    assert list(tmp_path.iterdir()) == []


def test_one_whose_parent_was_killed_goes_at_the_next_start_and_no_other(tmp_path: Path) -> None:
    killed = (
        "import os, sys; from pathlib import Path;"
        "from proxy.processes.counts_folder import counts_folder\n"
        "with counts_folder(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
    (stale,) = tmp_path.iterdir()
    (tmp_path / "aurea-proxy-begins").mkdir()
    (tmp_path / "other").mkdir()
    with counts_folder(tmp_path) as first, counts_folder(tmp_path) as second:
        assert not stale.exists()
        names = {first.name, second.name, "aurea-proxy-begins", "other"}
        assert {each.name for each in tmp_path.iterdir()} == names


def test_the_usual_place_can_be_written_to() -> None:
    with counts_folder(usual_place()) as folder:
        (folder / "counter_1.db").write_bytes(bytes(10))
