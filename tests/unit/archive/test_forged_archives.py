"""Archives that claim to be what this checkout packages: only those that are one are served."""

from pathlib import Path

import pytest

from aurea.archive.build import Archive, package
from aurea.archive.layout import MANIFEST_FILE, PROVENANCE_FILE
from aurea.archive.repacking import repack
from tests.unit.archive.archives import manifest, members_of, records_of, zip_of


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_an_archive_with_the_right_provenance_and_other_code_is_packaged_anew(
    small_folder: Path, tmp_path: Path
) -> None:
    def packed() -> Archive:
        return package(small_folder, name="small", version="1.0", store=tmp_path)

    sound = members_of(packed().path)
    assert PROVENANCE_FILE in sound
    forged: list[dict[str, bytes]] = [
        {"accent_handler.py": b"print('other code')"},
        {"torch.py": b"print('other code')"},
        {"model-config.yaml": sound["model-config.yaml"] + b"minWorkers: 500\n"},
        {MANIFEST_FILE: manifest(handler="torch.py").encode()},
    ]
    draft = tmp_path / "draft"
    for change in [*forged, {}]:
        draft.write_bytes(zip_of(records_of(sound | change)))
        (tmp_path / "small.mar").unlink()
        repack(draft, tmp_path / "small.mar")
        assert packed().rebuilt is bool(change), change
    # The same members, but not as they are packed here: readers may see others.
    draft.replace(tmp_path / "small.mar")
    assert packed().rebuilt
