"""API keys: their file, how it changes while the proxy runs, and the command that makes one."""

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from aurea.paths import ROOT
from proxy.keys import KeyFile, KeysUnreadable, digest_of, line_for, new_key, read_keys
from proxy.limits.rate_limit import Limits

DIGEST = f"sha256:{'0' * 64}"


def follow(keys: KeyFile) -> None:
    """Lets the next look at the file be now."""
    keys._next_look_s = 0.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_key_is_found_by_its_digest_alone(file: Path) -> None:
    mine, other = new_key(), new_key()
    file.write_text(f"# who may call\n\n{line_for('mine', mine, Limits(60, 0.5))}\n")
    keys = KeyFile(file)
    found = keys.find(mine)
    assert found is not None
    assert (found.name, found.limits) == ("mine", Limits(60, 0.5))
    for wrong in (other, mine[:-1], f"{mine}x", "", "mine", digest_of(mine).hex(), "\udcff"):
        assert keys.find(wrong) is None
    assert mine not in file.read_text()
    assert hashlib.sha256(mine.encode()).hexdigest() in file.read_text()


def test_keys_are_long_and_never_the_same() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert min(map(len, made)) >= 43


def test_keys_are_replaced_without_a_restart(file: Path) -> None:
    old, new = new_key(), new_key()
    file.write_text(line_for("app", old, Limits()))
    keys = KeyFile(file)
    # Both for a while, then the new one alone.
    file.write_text(f"{line_for('app', old, Limits())}\n{line_for('app', new, Limits())}\n")
    follow(keys)
    assert keys.find(old) and keys.find(new)
    file.write_text(line_for("app", new, Limits()))
    follow(keys)
    assert keys.find(old) is None
    assert keys.find(new)
    file.write_text("# nobody\n")
    follow(keys)
    assert keys.find(new) is None


BROKEN = {
    "nothing": "",
    "no digest": "app",
    "a key in the place of its digest": "app aurea_secret",
    "a name with a slash": f"a/b {DIGEST}",
    "a name that is too long": f"{'a' * 65} {DIGEST}",
    "a digest in capitals": f"app sha256:{'A' * 64}",
    "a digest cut short": f"app {DIGEST[:-1]}",
    "another digest": f"app md5:{'0' * 32}",
    "an unknown limit": f"app {DIGEST} bytes_per_min=1",
    "a limit twice": f"app {DIGEST} requests_per_min=1 requests_per_min=2",
    "a limit of nothing": f"app {DIGEST} requests_per_min=0",
    "a limit below nothing": f"app {DIGEST} requests_per_min=-1",
    "a limit that is no number": f"app {DIGEST} audio_s_per_min=nan",
    "a limit beyond all": f"app {DIGEST} audio_s_per_min=inf",
    "one digest for two": f"app {DIGEST}\nother {DIGEST}",
    "two limits of one name": f"app {DIGEST}\napp sha256:{'1' * 64} requests_per_min=1",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_keeps_the_old_keys_and_is_told_without_its_content(
    content: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeysUnreadable):
        file.write_text(content)
        KeyFile(file)
    key = new_key()
    file.write_text(line_for("app", key, Limits()))
    keys = KeyFile(file)
    file.write_text(content)
    follow(keys)
    with caplog.at_level(logging.ERROR):
        assert keys.find(key)
    (record,) = caplog.records
    assert "the old API keys stay in force" in record.getMessage()
    assert "secret" not in record.getMessage()
    # It is told once, and the next whole file holds again.
    follow(keys)
    assert keys.find(key)
    assert len(caplog.records) == 1
    file.write_text("# nobody")
    follow(keys)
    assert keys.find(key) is None


def test_a_file_that_is_gone_or_no_text_keeps_the_old_keys(file: Path) -> None:
    key = new_key()
    file.write_text(line_for("app", key, Limits()))
    keys = KeyFile(file)
    file.unlink()
    follow(keys)
    assert keys.find(key)
    file.write_bytes(b"\xff\xfe")
    follow(keys)
    assert keys.find(key)


@pytest.mark.slow
def test_the_command_prints_a_key_once_and_the_line_that_lets_it_in(file: Path) -> None:
    command = [sys.executable, "-m", "proxy.keys"]
    options = ["--requests-per-min", "120", "--audio-s-per-min", "600"]
    run = subprocess.run(
        [*command, "phone-app", *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    _, key, _, line = map(str.strip, run.stdout.splitlines())
    file.write_text(line)
    (kept,) = read_keys(file)
    assert kept == ("phone-app", digest_of(key), Limits(120, 600))
    for wrong in (["two words"], ["app", "--requests-per-min", "-1"]):
        refused = subprocess.run([*command, *wrong], cwd=ROOT, capture_output=True, check=False)
        assert refused.returncode == 2
