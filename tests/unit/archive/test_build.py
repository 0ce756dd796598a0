"""Packaging: what an archive holds, when it is built anew, and what is refused."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from accent.layout import ECAPA
from accent.selection import EngineSettings

from aurea.archive import build
from aurea.archive.archiver import ArchiverFailed
from aurea.archive.build import Archive, PackagingError, inputs_digest, is_built_from, package
from aurea.files import sha256_of
from aurea.paths import HANDLER
from tests.clips import encode, voice
from tests.models import write_stand_in

ROOM = Path(build.__file__).parent


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_folder, tmp_path / "model"))


# One archive, built as `make mar` builds it.


@pytest.fixture(scope="module")
def built(
    small_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    little_speech: None,  # noqa: ARG001
) -> Archive:
    store = tmp_path_factory.mktemp("store")
    return package(small_folder, name="small", version="1.0", store=store)


@pytest.mark.slow
def test_the_archive_holds_all_that_a_worker_needs(built: Archive, small_folder: Path) -> None:
    assert (built.name, built.version, built.rebuilt) == ("small", "1.0", True)
    assert built.path.name == "small.mar"
    with zipfile.ZipFile(built.path) as content:
        names = set(content.namelist())
        manifest = json.loads(content.read("MAR-INF/MANIFEST.json"))
        settings = content.read("model-config.yaml")
        for name in ECAPA.files:
            assert content.read(name) == (small_folder / name).read_bytes()
    assert settings == (HANDLER / "model-config.yaml").read_bytes()
    assert not any("__pycache__" in name for name in names)
    assert manifest["model"]["modelName"] == "small"
    assert manifest["model"]["modelVersion"] == "1.0"
    assert manifest["model"]["handler"] == "accent_handler.py"
    assert manifest["model"]["configFile"] == "model-config.yaml"


@pytest.mark.slow
def test_the_archive_says_what_it_computes_with_and_how_to_prove_it(built: Archive) -> None:
    with zipfile.ZipFile(built.path) as content:
        names = set(content.namelist())
        document = json.loads(content.read("engines.json"))
        reference = json.loads(content.read("reference.json"))
        card = content.read("README.md").decode()
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
    assert "torch fp32" in built.report


@pytest.mark.slow
def test_the_archive_carries_the_code_of_this_checkout_and_lists_it(
    built: Archive, tmp_path: Path
) -> None:
    with zipfile.ZipFile(built.path) as content:
        provenance = json.loads(content.read("provenance.json"))
        content.extractall(tmp_path)
    carried = {
        path.relative_to(tmp_path).as_posix(): sha256_of(path) for path in tmp_path.rglob("*.py")
    }
    ours = {path.relative_to(HANDLER).as_posix(): sha256_of(path) for path in HANDLER.rglob("*.py")}
    assert carried == ours == provenance["handler_sha256"]


@pytest.mark.slow
def test_nothing_but_the_archive_is_left_in_the_store(built: Archive) -> None:
    assert [path.name for path in built.path.parent.iterdir()] == ["small.mar"]


@pytest.mark.slow
def test_a_second_call_does_nothing(built: Archive, small_folder: Path) -> None:
    before = built.path.stat().st_mtime_ns
    again = package(small_folder, name="small", version="1.0", store=built.path.parent)
    assert not again.rebuilt
    assert again.path == built.path
    assert built.path.stat().st_mtime_ns == before


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


@pytest.mark.slow
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
    assert document["model"] == {"name": "small", "version": "1.0", "kind": "ecapa"}
    assert 0 <= document["us_confidence"] <= 100


@pytest.mark.long
def test_a_portable_archive_is_the_same_whenever_it_is_built(
    built: Archive,
    small_folder: Path,
    tmp_path: Path,
    little_speech: None,  # noqa: ARG001
) -> None:
    who: dict[str, Any] = {"name": "small", "version": "1.0"}
    assert not is_built_from(built.path, small_folder, **who, portable=True)
    first, second = (
        package(small_folder, **who, portable=True, store=tmp_path / each).path for each in "ab"
    )
    assert first.read_bytes() == second.read_bytes()
    assert is_built_from(first, small_folder, **who)
    assert not package(small_folder, **who, store=first.parent).rebuilt
    with zipfile.ZipFile(first) as content:
        assert b'"milliseconds_for_5_s": null' in content.read("engines.json")


# Whether it is built anew does not depend on engines or on the archiver: both are left out.


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_another_name_version_model_or_handler_is_packaged_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"

    def rebuilt(name: str = "small", version: str = "1.0") -> bool:
        archive = package(folder, name=name, version=version, store=store)
        assert is_built_from(archive.path, folder, name=name, version=version)
        assert not is_built_from(archive.path, folder, name=name, version="9.9")
        return archive.rebuilt

    assert rebuilt()
    assert rebuilt(name="other")
    assert rebuilt(version="1.1")
    assert not rebuilt(version="1.1")

    write_stand_in(folder, seed=1)
    assert rebuilt(version="1.1")
    assert not rebuilt(version="1.1")

    handler = tmp_path / "handler"
    shutil.copytree(HANDLER, handler)
    monkeypatch.setattr(build, "HANDLER", handler)
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


@pytest.mark.slow
def test_an_engine_or_a_precision_of_ones_own_is_packaged_anew_and_in_the_settings(
    folder: Path, tmp_path: Path, quick: list[EngineSettings]
) -> None:
    def packed(**settings: Any) -> Archive:
        return package(folder, name="small", version="1.0", store=tmp_path / "store", **settings)

    plain = settings_in(packed())
    assert (plain["engine"], plain["precision"]) == ("auto", "auto")
    assert quick == [EngineSettings("auto", "auto")]
    for settings in ({"precision": "fp32"}, {"engine": "torch"}):
        assert packed(**settings).rebuilt
        archive = packed(**settings)
        assert not archive.rebuilt
        assert archive.report == ""
        assert settings_in(archive) == plain | settings
    assert quick[1:] == [EngineSettings(precision="fp32"), EngineSettings(engine="torch")]
    assert packed().rebuilt


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_models_card_and_calibration_are_carried(folder: Path, tmp_path: Path) -> None:
    def packed() -> Archive:
        return package(folder, name="small", version="1.0", store=tmp_path / "store")

    assert packed().rebuilt
    for name in ("README.md", "calibration.json"):
        (folder / name).write_text("mine")
        archive = packed()
        assert archive.rebuilt
        with zipfile.ZipFile(archive.path) as content:
            assert content.read(name) == b"mine"


@pytest.mark.parametrize(
    ("changed", "decides"),
    [
        ("graph.py", True),
        ("quantization.py", True),
        ("reference_speech/verification/00_us.ogg", True),
        ("repacking.py", True),
        ("vetting.py", False),
        ("zip_records.py", False),
        ("member_names.py", False),
    ],
)
def test_what_makes_and_judges_engines_decides_the_archive(
    changed: str, decides: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "archive"
    shutil.copytree(ROOM, room)
    monkeypatch.setattr(build, "_ROOM", room)
    before = inputs_digest(folder, "small", "1.0")
    assert inputs_digest(folder, "small", "1.0") == before
    with (room / changed).open("ab") as file:
        file.write(b"# changed\n")
    assert (inputs_digest(folder, "small", "1.0") != before) is decides


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("provenance", [None, "{}", "no JSON"])
def test_a_broken_archive_is_packaged_anew(
    provenance: str | None, folder: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "small.mar"
    archive.write_bytes(b"half of an archive")
    if provenance is not None:
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr("provenance.json", provenance)
    assert package(folder, name="small", version="1.0", store=tmp_path).rebuilt
    with zipfile.ZipFile(archive) as content:
        assert content.testzip() is None


# What is refused.


@pytest.mark.parametrize(
    ("setting", "value"),
    [("engine", "onnx"), ("precision", "fp64"), ("precision", "int8\n  max_audio_s: 9")],
)
def test_a_setting_that_is_none_is_refused(
    setting: str, value: str, folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with pytest.raises(PackagingError, match=f"The setting {setting} is"):
        chosen: dict[str, Any] = {setting: value}
        package(folder, name="small", version="1.0", store=store, **chosen)
    assert not store.exists()


@pytest.mark.parametrize("settings", ["batchSize: 2\n", "accent: 1\n", "- 1\n", "a: ["])
def test_settings_of_the_handler_that_hold_no_engine_are_refused(
    settings: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Path(shutil.copytree(HANDLER, tmp_path / "handler"))
    (handler / "model-config.yaml").write_text(settings)
    monkeypatch.setattr(build, "HANDLER", handler)
    with pytest.raises(PackagingError, match=r"model-config\.yaml has no entry engine"):
        package(folder, name="small", version="1.0", engine="torch", store=tmp_path)


@pytest.mark.parametrize("name", ECAPA.files)
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


@pytest.mark.usefixtures("quick")
def test_a_refusal_leaves_the_earlier_archive(folder: Path, tmp_path: Path) -> None:
    package(folder, name="small", version="1.0", store=tmp_path)
    before = (tmp_path / "small.mar").read_bytes()
    (folder / "classifier.ckpt").write_bytes(b"broken")
    with pytest.raises(PackagingError, match=r"classifier\.ckpt"):
        package(folder, name="small", version="1.0", store=tmp_path)
    assert (tmp_path / "small.mar").read_bytes() == before


@pytest.mark.usefixtures("quick")
def test_what_the_archiver_complains_of_is_passed_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(contents: Path, target: Path, *, version: str) -> None:
        raise ArchiverFailed(f"no room for {contents.name}, {target.name} {version}")

    monkeypatch.setattr(build, "write_archive", failing)
    with pytest.raises(PackagingError, match=r"no room for .*small\.mar 1\.0"):
        package(folder, name="small", version="1.0", store=tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_network_that_fails_on_audio_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("accent.classifier.AccentClassifier.warm_up", failing)
    with pytest.raises(PackagingError, match="fails on audio: shapes do not fit"):
        package(folder, name="small", version="1.0", store=tmp_path / "store")


@pytest.mark.parametrize("name", ["../outside", "a/b", "with space", "", "-x", "é", "a" * 129])
def test_a_name_that_cannot_be_served_is_refused_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="1 to 128 letters, digits"):
        package(tmp_path / "no model", name=name, version="1.0", store=tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["1.0+cpu", "", "1/2", "two words", "../1", "-1", "1" * 33])
def test_a_version_that_cannot_be_served_is_refused_at_once(version: str, tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="1 to 32 letters, digits"):
        package(tmp_path / "no model", name="small", version=version, store=tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
