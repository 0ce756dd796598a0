import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from accent.layout import MODEL_FILES

from aurea.archive import build as packaging
from aurea.archive import engines
from aurea.archive.build import Archive, PackagingError, package
from aurea.archive.reference import reference_files, verification_speech
from aurea.paths import ROOT
from tests.clips import encode, voice
from tests.models import write_stand_in

PYTHON_FILES = (
    "decode",
    "layout",
    "limits",
    "loading",
    "resample",
    "specification",
    "waveform",
    "classifier",
    "compiled",
    "cores",
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


@pytest.fixture(scope="module", autouse=True)
def little_speech() -> Iterator[None]:
    """Engines are judged by the clips that an archive carries: packaging in a second or two."""
    names = {path.stem for path in reference_files("verification")[:4]}
    few = [clip for clip in verification_speech() if clip.name in names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "verification_speech", lambda: few)
        patch.setattr(engines, "_TIMED_ROUNDS", 1)
        yield


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


def test_the_archive_tells_what_it_computes_with_and_how_to_prove_it(built: Archive) -> None:
    with zipfile.ZipFile(built.path) as content:
        names = set(content.namelist())
        document = json.loads(content.read("engines.json"))
        reference = json.loads(content.read("reference.json"))
        card = content.read("README.md").decode()
        settings = content.read("model-config.yaml").decode()
    graphs = {entry["graph"] for entry in document["engines"]} - {None}
    assert {name for name in names if name.endswith(".xml")} == graphs
    assert {name.removesuffix(".bin") for name in names if name.endswith(".bin")} == {
        name.removesuffix(".xml") for name in graphs
    }
    assert {clip["file"] for clip in reference["clips"]} == {
        name for name in names if name.startswith("reference/")
    }
    assert len(reference["clips"]) == 4
    assert "## How exactly it is computed" in card
    assert settings == (packaging.HANDLER_DIR / "model-config.yaml").read_text()
    assert "torch fp32" in built.report


def test_the_archive_lists_the_code_it_carries(built: Archive) -> None:
    with zipfile.ZipFile(built.path) as content:
        provenance = json.loads(content.read("provenance.json"))
        carried = {
            name: hashlib.sha256(content.read(name)).hexdigest()
            for name in content.namelist()
            if name.endswith(".py")
        }
    assert provenance["handler_sha256"] == carried


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


def settings_in(archive: Archive) -> dict[str, Any]:
    with zipfile.ZipFile(archive.path) as content:
        settings: dict[str, Any] = yaml.safe_load(content.read("model-config.yaml"))["accent"]
        return settings


def test_an_engine_or_a_precision_of_ones_own_is_packaged_anew_and_in_the_settings(
    folder: Path, tmp_path: Path
) -> None:
    def packed(**settings: str) -> Archive:
        return package(folder, name="small", version="1.0", store=tmp_path / "store", **settings)

    plain = settings_in(packed())
    assert (plain["engine"], plain["precision"]) == ("auto", "auto")
    for settings in ({"precision": "fp32"}, {"engine": "torch"}):
        assert packed(**settings).rebuilt
        archive = packed(**settings)
        assert not archive.rebuilt
        assert archive.report == ""
        assert settings_in(archive) == plain | settings
    with zipfile.ZipFile(archive.path) as content:
        assert not any(name.endswith((".xml", ".bin")) for name in content.namelist())
    assert packed().rebuilt


@pytest.mark.parametrize(
    ("setting", "value"),
    [("engine", "onnx"), ("precision", "fp16"), ("precision", "int8\n  max_audio_s: 9")],
)
def test_a_setting_that_is_none_is_refused(
    setting: str, value: str, folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with pytest.raises(PackagingError, match=f"The setting {setting} is"):
        package(folder, name="small", version="1.0", store=store, **{setting: value})
    assert not store.exists()


def test_the_models_card_is_carried_and_goes_on(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("# Mine\n\nMy words.\n")
    archive = package(folder, name="small", version="1.0", store=tmp_path / "store")
    with zipfile.ZipFile(archive.path) as content:
        card = content.read("README.md").decode()
    assert card.startswith("# Mine\n\nMy words.\n\n## How exactly it is computed\n")
    assert (folder / "README.md").read_text() == "# Mine\n\nMy words.\n"
    (folder / "README.md").write_text("# Mine\n\nOther words.\n")
    assert package(folder, name="small", version="1.0", store=tmp_path / "store").rebuilt


@pytest.mark.parametrize("changed", ["graph.py", "reference_speech/verification/00_us.ogg"])
def test_what_makes_and_judges_engines_decides_the_archive(
    changed: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "archive"
    shutil.copytree(ROOT / "aurea" / "archive", sources)
    monkeypatch.setattr(
        packaging, "_ENGINE_SOURCES", [sources / path.name for path in packaging._ENGINE_SOURCES]
    )
    monkeypatch.setattr(packaging, "_REFERENCE_SPEECH", sources / "reference_speech")
    before = packaging.inputs_digest(folder, "small", "1.0")
    assert packaging.inputs_digest(folder, "small", "1.0") == before
    with (sources / changed).open("ab") as file:
        file.write(b"# changed\n")
    assert packaging.inputs_digest(folder, "small", "1.0") != before


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
