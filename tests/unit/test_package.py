import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import package as packaging
from scripts.get_model import MODEL_FILES
from scripts.package import Archive, PackagingError, package
from tests.clips import encode, voice
from tests.models import write_stand_in

PYTHON_FILES = (
    "audio",
    "classifier",
    "compiled",
    "engine",
    "errors",
    "features",
    "network",
    "scoring",
    "selection",
    "speech",
    "__init__",
)


@pytest.fixture(autouse=True)
def import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    # Packaging adds the handler's folder to it.
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def built(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    store = tmp_path_factory.mktemp("store")
    return package(small_folder, name="small", version="1.0", store=store)


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_folder, tmp_path / "model"))


def test_the_archive_holds_all_that_a_worker_needs(built: Archive, small_folder: Path) -> None:
    assert (built.name, built.version, built.rebuilt) == ("small", "1.0", True)
    assert built.path.name == "small.mar"
    with zipfile.ZipFile(built.path) as content:
        names = set(content.namelist())
        manifest = json.loads(content.read("MAR-INF/MANIFEST.json"))
        for name in MODEL_FILES:
            assert content.read(name) == (small_folder / name).read_bytes()
    assert {"accent_handler.py", "accent_metrics.py", "model-config.yaml"} <= names
    assert {f"accent/{name}.py" for name in PYTHON_FILES} <= names
    assert not any("__pycache__" in name for name in names)
    assert manifest["model"]["modelName"] == "small"
    assert manifest["model"]["modelVersion"] == "1.0"
    assert manifest["model"]["handler"] == "accent_handler.py"
    assert manifest["model"]["configFile"] == "model-config.yaml"


def test_every_module_of_the_core_is_expected_above() -> None:
    present = {path.stem for path in (packaging.HANDLER_DIR / "accent").glob("*.py")}
    assert present == set(PYTHON_FILES)


def test_nothing_but_the_archive_is_left_in_the_store(built: Archive) -> None:
    assert [path.name for path in built.path.parent.iterdir()] == ["small.mar"]


def test_a_second_call_does_nothing(built: Archive, small_folder: Path) -> None:
    before = built.path.stat().st_mtime_ns
    again = package(small_folder, name="small", version="1.0", store=built.path.parent)
    assert not again.rebuilt
    assert again.path == built.path
    assert built.path.stat().st_mtime_ns == before


def test_another_name_version_model_or_handler_is_packaged_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"

    def rebuilt(name: str = "small", version: str = "1.0") -> bool:
        return package(folder, name=name, version=version, store=store).rebuilt

    assert rebuilt()
    assert rebuilt(name="other")
    assert rebuilt(version="1.1")
    assert not rebuilt(version="1.1")

    write_stand_in(folder, seed=1)
    assert rebuilt(version="1.1")
    assert not rebuilt(version="1.1")

    handler = tmp_path / "handler"
    shutil.copytree(packaging.HANDLER_DIR, handler)
    monkeypatch.setattr(packaging, "HANDLER_DIR", handler)
    assert not rebuilt(version="1.1")
    for name in ("accent_handler.py", "accent/scoring.py", "model-config.yaml"):
        with (handler / name).open("a") as source:
            source.write("# changed\n")
        assert rebuilt(version="1.1"), name
        with zipfile.ZipFile(store / "small.mar") as content:
            assert content.read(name).endswith(b"# changed\n")
    assert not rebuilt(version="1.1")


def test_a_broken_archive_is_packaged_anew(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "small.mar").write_bytes(b"half of an archive")
    assert package(folder, name="small", version="1.0", store=tmp_path).rebuilt
    with zipfile.ZipFile(tmp_path / "small.mar") as content:
        assert content.testzip() is None


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_missing_file_is_refused_by_name(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(PackagingError, match=name):
        package(folder, name="small", version="1.0", store=tmp_path)
    assert not (tmp_path / "small.mar").exists()


def test_a_model_without_the_label_us_is_refused(tmp_path: Path) -> None:
    other = write_stand_in(tmp_path / "other", labels=("england", "canada", "wales"))
    with pytest.raises(PackagingError, match="no label 'us'"):
        package(other, name="small", version="1.0", store=tmp_path)
    assert not (tmp_path / "small.mar").exists()


def test_a_refusal_leaves_the_earlier_archive(folder: Path, tmp_path: Path) -> None:
    package(folder, name="small", version="1.0", store=tmp_path)
    before = (tmp_path / "small.mar").read_bytes()
    (folder / "classifier.ckpt").write_bytes(b"broken")
    with pytest.raises(PackagingError, match=r"classifier\.ckpt"):
        package(folder, name="small", version="1.0", store=tmp_path)
    assert (tmp_path / "small.mar").read_bytes() == before


@pytest.mark.parametrize("name", ["../outside", "a/b", "with space", ""])
def test_a_name_that_is_none_for_a_file_or_an_address_is_refused(
    name: str, folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with pytest.raises(PackagingError):
        package(folder, name=name, version="1.0", store=store)
    assert list(tmp_path.rglob("*.mar")) == []


SERVE_ONE_CLIP = """
import json, sys
from pathlib import Path
folder, clip = map(Path, sys.argv[1:])
sys.path.insert(0, str(folder))
import yaml
from ts.context import Context, RequestProcessor
import accent, accent_handler
for module in (accent, accent_handler):
    assert folder in Path(module.__file__).parents, module.__file__
manifest = json.loads((folder / "MAR-INF/MANIFEST.json").read_text())
config = yaml.safe_load((folder / manifest["model"]["configFile"]).read_text())
context = Context("small", str(folder), manifest, 1, None, "0.12.0", model_yaml_config=config)
context.request_processor = [RequestProcessor({})]
handler = accent_handler.AccentHandler()
handler.initialize(context)
(document,) = handler.handle([{"body": bytearray(clip.read_bytes())}], context)
print(json.dumps([context.get_response_status(0)[0], document]))
"""


def test_the_archive_serves_without_the_repository(built: Archive, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(built.path) as content:
        content.extractall(unpacked)
    clip = tmp_path / "clip.flac"
    clip.write_bytes(encode(voice(1.0), 16_000, "flac"))
    result = subprocess.run(
        [sys.executable, "-I", "-c", SERVE_ONE_CLIP, str(unpacked), str(clip)],
        cwd=tmp_path,
        env={"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    status, document = json.loads(result.stdout.splitlines()[-1])
    assert status == 200
    assert document["model"] == {"name": "small", "version": "1.0"}
    assert 0 <= document["us_confidence"] <= 100


def test_the_files_of_a_model_are_those_that_the_core_loads() -> None:
    from accent import network

    assert MODEL_FILES == network.MODEL_FILES
