"""torch-model-archiver, run so that nothing it touches is shared with anyone else.

What it writes is packed anew, so that an archive of `make mar` is the file that is registered.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from aurea.archive.errors import ArchiveRefused
from aurea.archive.layout import CONFIG_FILE, HANDLER_FILE, MANIFEST_FILE
from aurea.archive.repacking import repack

_CONTENTS: Final = "contents"
_NO_TIME: Final = "01/01/1980 00:00:00"


class ArchiverFailed(Exception):
    """torch-model-archiver wrote no archive. The message is what it said."""


def write_archive(contents: Path, target: Path, *, version: str) -> None:
    """Archive what lies in the folder `contents` as `target`, whose stem is the model's name.

    The handler and the settings are in `contents` under the names that `layout` gives.
    What was at `target` stays until the new archive is whole. Raises `ArchiverFailed`.
    """
    store = target.parent.resolve()
    with tempfile.TemporaryDirectory(prefix=".packaging-", dir=store) as scratch:
        # It gathers the files in the system's temporary folder, under the model's name, and
        # first removes what lies there, be it another packaging's or another user's.
        own_temporary_folder = Path(scratch) / "tmp"
        own_temporary_folder.mkdir()
        # It takes commas, stars and brackets in a path for patterns: the path is a bare name.
        (Path(scratch) / _CONTENTS).symlink_to(contents.resolve(), target_is_directory=True)
        command = [
            *(sys.executable, "-m", "model_archiver.model_packaging"),
            *("--model-name", target.stem),
            *("--version", version),
            *("--handler", f"{_CONTENTS}/{HANDLER_FILE}"),
            *("--config-file", f"{_CONTENTS}/{CONFIG_FILE}"),
            *("--extra-files", _CONTENTS),
            *("--export-path", "."),
            # Weights hardly pack, and what is packed here is unpacked again a moment later.
            *("--archive-format", "zip-store"),
        ]
        result = subprocess.run(
            command,
            cwd=scratch,
            env=os.environ | {"TMPDIR": str(own_temporary_folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise ArchiverFailed(f"{result.stdout}{result.stderr}")
        copy = Path(scratch) / "copy"
        archive = Path(scratch) / target.name
        try:
            repack(archive, copy, {MANIFEST_FILE: _undated_manifest(archive)})
        except ArchiveRefused as error:
            raise ArchiverFailed(f"{error}") from None
        copy.replace(target)


def _undated_manifest(archive: Path) -> bytes:
    """The manifest as of no time, so that equal contents give an equal archive."""
    with zipfile.ZipFile(archive) as content:
        manifest = json.loads(content.read(MANIFEST_FILE))
    return json.dumps(manifest | {"createdOn": _NO_TIME}, indent=2).encode()
