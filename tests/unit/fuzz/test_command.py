"""`make fuzz`: a kept input is tried again, and what is no target is named."""

from pathlib import Path

import pytest

from fuzz.command import main, replay
from fuzz.target import digest_of
from fuzz.targets import TARGETS
from fuzz.trials import write_fault


def test_a_kept_input_is_tried_again_by_the_name_of_its_file(tmp_path: Path) -> None:
    path = write_fault(tmp_path, TARGETS["labels"], 0, 0, b"'us' => 0\n", "it failed")
    assert path.name == f"labels.{digest_of(path.read_bytes())}.bin"
    assert replay(path)
    path.write_bytes(b"us")
    assert not replay(path)


def test_a_target_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz", "--targets", "labels", "nothing"])
    with pytest.raises(SystemExit, match="there is no nothing; there are decoder, requests"):
        main()
