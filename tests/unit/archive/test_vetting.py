import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from accent.layout import ECAPA, LABELS_FILE, PROBE, REFERENCE_FILE

from aurea.archive.errors import ArchiveRefused
from aurea.archive.layout import MANIFEST_FILE
from aurea.archive.vetting import Vetted, archive_labels, archive_reference, vet
from aurea.paths import HANDLER
from tests.unit.archive.archives import LABELS, REFERENCE, encoder, manifest, sound_files

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes an archive as `make mar` would, but for `changes`; None leaves a file out."""

    def write(changes: dict[str, str | bytes | None] | None = None) -> Path:
        files: dict[str, str | bytes | None] = {**sound_files()}
        archive = tmp_path / "small.mar"
        with zipfile.ZipFile(archive, "w") as content:
            for name, data in (files | (changes or {})).items():
                if data is not None:
                    content.writestr(name, data)
        return archive

    return write


def vetted(archive: Path, **options: bool) -> Vetted:
    copy = archive.with_name("copy.mar")
    copy.unlink(missing_ok=True)
    return vet(archive, copy, served_name="small", served_labels=LABELS, **options)


def test_what_make_mar_builds_is_taken(build: Build) -> None:
    archive = vetted(build())
    assert (archive.name, archive.version, archive.labels) == ("small", "2.0", LABELS)
    assert archive.strange_code == ()
    assert archive.reference is not None
    assert archive.clip(archive.reference.clips[0]) == b"speech"


def test_an_archive_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match="make mar"):
        vetted(tmp_path / "none.mar")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mar"
    path.write_text("Dear server, this is no archive.")
    with pytest.raises(ArchiveRefused, match="no sound archive"):
        vetted(path)


def test_an_archive_with_a_flipped_bit_is_damaged(build: Build) -> None:
    archive = build({"embedding_model.ckpt": b"x" * 1000})
    content = bytearray(archive.read_bytes())
    content[content.index(b"x" * 1000) + 500] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ArchiveRefused, match=r"embedding_model\.ckpt"):
        vetted(archive)


@pytest.mark.parametrize(
    "name", [*ECAPA.files, "accent_handler.py", "model-config.yaml", MANIFEST_FILE]
)
def test_a_file_that_is_missing_is_named(build: Build, name: str) -> None:
    with pytest.raises(ArchiveRefused, match=name.replace(".", r"\.")):
        vetted(build({name: None}), trust=True)


def of_a_probe() -> dict[str, str | bytes | None]:
    """What makes an archive of an ECAPA-TDNN one of a probe."""
    return (
        dict.fromkeys(ECAPA.files)
        | dict.fromkeys(PROBE.files, b"weights")
        | {LABELS_FILE: encoder(*LABELS)}
    )


def test_an_archive_of_a_probe_is_taken(build: Build) -> None:
    assert vetted(build(of_a_probe())).labels == LABELS


@pytest.mark.parametrize("name", PROBE.files)
def test_a_file_that_a_probe_lacks_is_named(build: Build, name: str) -> None:
    with pytest.raises(ArchiveRefused, match=name.replace(".", r"\.")):
        vetted(build(of_a_probe() | {name: None}), trust=True)


@pytest.mark.parametrize("name", ["/etc/profile", "../../escape.txt", "a/../../b"])
def test_an_archive_that_writes_outside_its_folder_is_refused(build: Build, name: str) -> None:
    with pytest.raises(ArchiveRefused, match="outside"):
        vetted(build({name: b"x"}), trust=True)


def test_a_link_in_an_archive_is_refused(build: Build) -> None:
    archive = build()
    link = zipfile.ZipInfo("keys")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveRefused, match="outside"):
        vetted(archive, trust=True)


def test_an_archive_that_would_fill_the_disk_is_refused(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aurea.archive.repacking._MAX_UNPACKED_BYTES", 100_000)
    with pytest.raises(ArchiveRefused, match="unpack"):
        vetted(build({"zeros": bytes(200_000)}), trust=True)


def test_the_name_that_is_served_is_asked_for(build: Build) -> None:
    with pytest.raises(ArchiveRefused, match="make mar NAME=small"):
        vetted(build({MANIFEST_FILE: manifest(modelName="other")}))


@pytest.mark.parametrize("version", ["", "..", "1/2", "two words", "1.0+cpu", "x" * 33])
def test_a_version_that_cannot_be_served_is_refused(build: Build, version: str) -> None:
    with pytest.raises(ArchiveRefused, match="is no version: 1 to 32 letters"):
        vetted(build({MANIFEST_FILE: manifest(modelVersion=version)}))


def test_a_version_may_be_written_as_a_number(build: Build) -> None:
    assert vetted(build({MANIFEST_FILE: manifest(modelVersion=2.5)})).version == "2.5"


@pytest.mark.parametrize("name", ["", "a/b", "two words", "-x"])
def test_a_name_that_cannot_be_served_is_refused(build: Build, name: str) -> None:
    archive = build({MANIFEST_FILE: manifest(modelName=name)})
    with pytest.raises(ArchiveRefused, match="is no name for a model: 1 to 128 letters"):
        vet(archive, archive.with_name("copy.mar"), served_name=name, served_labels=LABELS)


@pytest.mark.parametrize("text", ["", "[]", '{"model": 1}', "\xff"])
def test_a_manifest_that_cannot_be_read_is_refused(build: Build, text: str) -> None:
    with pytest.raises(ArchiveRefused, match="MANIFEST"):
        vetted(build({MANIFEST_FILE: text}))


def test_without_a_us_label_nothing_is_taken(build: Build) -> None:
    archive = build({"accent_encoder.txt": encoder("england", "canada")})
    with pytest.raises(ArchiveRefused, match="'us'"):
        vetted(archive, trust=True, allow_new_labels=True)


@pytest.mark.parametrize("labels", [("us", "england"), ("us", "england", "canada", "wales")])
def test_other_labels_must_be_allowed(build: Build, labels: tuple[str, ...]) -> None:
    archive = build({"accent_encoder.txt": encoder(*labels)})
    with pytest.raises(ArchiveRefused, match="--allow-new-labels"):
        vetted(archive)
    assert vetted(archive, allow_new_labels=True).labels == labels


def test_the_order_of_the_labels_does_not_matter(build: Build) -> None:
    assert vetted(build({"accent_encoder.txt": encoder(*reversed(LABELS))})).version == "2.0"


@pytest.mark.parametrize(
    "name", ["accent_handler.py", "accent/scoring.py", "torch.py", "accent/fast.so", "site.EGG"]
)
def test_code_that_is_not_ours_must_be_trusted(build: Build, name: str) -> None:
    archive = build({name: b"print('other code')"})
    with pytest.raises(ArchiveRefused, match=f"{name}.*--trust"):
        vetted(archive)
    assert vetted(archive, trust=True).strange_code == (name,)


@pytest.mark.parametrize(
    "changes",
    [
        {"handler": "other.py"},
        {"configFile": "b.yaml"},
        {"modelFile": "model.py"},
    ],
)
def test_what_the_manifest_would_have_run_must_be_trusted(
    build: Build, changes: dict[str, str]
) -> None:
    with pytest.raises(ArchiveRefused, match=next(iter(changes.values()))):
        vetted(build({MANIFEST_FILE: manifest(**changes)}))


@pytest.mark.parametrize("trust", [False, True])
def test_a_manifest_with_a_file_of_requirements_is_refused_even_if_trusted(
    build: Build, trust: bool
) -> None:
    with pytest.raises(ArchiveRefused, match=r"installed from more\.txt"):
        vetted(build({MANIFEST_FILE: manifest(requirementsFile="more.txt")}), trust=trust)


def test_code_larger_than_any_of_ours_is_not_read(build: Build) -> None:
    archive = build({"accent/scoring.py": b"#" * 1_000_001})
    assert vetted(archive, trust=True).strange_code == ("accent/scoring.py",)


def test_a_reference_clip_is_bounded(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurea.archive.vetting._MAX_CLIP_BYTES", 5)
    with pytest.raises(ArchiveRefused, match=r"one\.ogg is larger than 5 bytes"):
        vetted(build(), trust=True)


@pytest.mark.parametrize(("runtime", "strange"), [("python", ()), ("LSP", ("runtime=LSP",))])
def test_a_manifest_for_another_runtime_must_be_trusted(
    build: Build, runtime: str, strange: tuple[str, ...]
) -> None:
    content = json.loads(manifest()) | {"runtime": runtime}
    archive = build({MANIFEST_FILE: json.dumps(content)})
    assert vetted(archive, trust=True).strange_code == strange


@pytest.mark.parametrize(
    ("settings", "strange"),
    [
        ("batchSize: 2\nminWorkers: 500\n", "minWorkers"),
        ("accent:\n  engine: torch\n  load_plugin: evil.so\n", "accent.load_plugin"),
        ("batchSize: {torchrun: {nproc-per-node: 64}}\n", "batchSize.torchrun"),
        ("responseTimeout: [60, {a: 1}]\n", "responseTimeout[]"),
        ("accent: {precision: {int8: {unsafe: true}}}\n", "accent.precision.int8"),
    ],
)
def test_settings_that_are_not_ours_must_be_trusted_wherever_they_stand(
    build: Build, settings: str, strange: str
) -> None:
    archive = build({"model-config.yaml": settings})
    with pytest.raises(ArchiveRefused, match=re.escape(f"model-config.yaml: {strange}.")):
        vetted(archive)
    assert vetted(archive, trust=True).strange_code == (f"model-config.yaml: {strange}",)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: !!python/object:os.system {}"])
def test_settings_that_cannot_be_read_are_refused(build: Build, text: str) -> None:
    with pytest.raises(ArchiveRefused, match=r"model-config\.yaml"):
        vetted(build({"model-config.yaml": text}), trust=True)


def test_an_archive_without_reference_clips_must_be_trusted(build: Build) -> None:
    archive = build({REFERENCE_FILE: None})
    with pytest.raises(ArchiveRefused, match="--trust"):
        vetted(archive)
    assert vetted(archive, trust=True).reference is None
    assert archive_reference(archive) is None


def test_the_reference_of_an_archive_comes_with_its_first_clip(
    build: Build, tmp_path: Path
) -> None:
    found = archive_reference(build())
    assert found is not None
    assert found[0].clips[0].us_confidence == {"fp32": 50.0}
    assert found[1] == b"speech"
    assert archive_reference(tmp_path / "none.mar") is None


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        json.dumps(REFERENCE | {"clips": []}),
        json.dumps(REFERENCE | {"clips": [REFERENCE["clips"][0] | {"file": "two.ogg"}]}),
    ],
)
def test_a_reference_that_proves_nothing_is_refused(build: Build, content: str) -> None:
    with pytest.raises(ArchiveRefused, match=REFERENCE_FILE):
        vetted(build({REFERENCE_FILE: content}), trust=True)


def test_labels_of_an_archive_are_read(build: Build, tmp_path: Path) -> None:
    assert archive_labels(build()) == LABELS
    with pytest.raises(ArchiveRefused, match="cannot be read"):
        archive_labels(tmp_path / "none.mar")


def test_an_archive_that_holds_a_file_twice_is_refused(build: Build) -> None:
    archive = build()
    with zipfile.ZipFile(archive, "a") as content, pytest.warns(UserWarning, match="Duplicate"):
        content.writestr("accent_handler.py", b"print('other code')")
    with pytest.raises(ArchiveRefused, match="twice"):
        vetted(archive, trust=True)


def test_labels_that_are_none_are_refused(build: Build) -> None:
    with pytest.raises(ArchiveRefused, match=r"accent_encoder\.txt"):
        vetted(build({"accent_encoder.txt": "no labels"}), trust=True)


def test_a_text_that_is_too_large_is_refused(build: Build) -> None:
    with pytest.raises(ArchiveRefused, match=r"MANIFEST\.json is larger than 1,000,000 bytes"):
        vetted(build({MANIFEST_FILE: b" " * 1_000_001}), trust=True)


@pytest.mark.parametrize(
    ("shipped", "foreign", "named"),
    [
        ("maxBatchDelay: 1", "maxBatchDelay: 120000", "maxBatchDelay is 120000"),
        ("startupTimeout: 120", "startupTimeout: 86400", "startupTimeout is 86400"),
        ("batchSize: 2", "batchSize: 100000", "batchSize is 100000"),
        ("max_audio_s: 300.0", "max_audio_s: .inf", "accent.max_audio_s is inf"),
        ("trim: true", "trim: maybe", "accent.trim is 'maybe'"),
    ],
)
def test_a_setting_out_of_its_range_must_be_trusted(
    build: Build, shipped: str, foreign: str, named: str
) -> None:
    settings = (HANDLER / "model-config.yaml").read_text()
    assert settings.count(f"{shipped}\n") == 1
    archive = build({"model-config.yaml": settings.replace(f"{shipped}\n", f"{foreign}\n")})
    with pytest.raises(ArchiveRefused, match=rf"{re.escape(named)}; allowed is .*--trust"):
        vetted(archive)
    (found,) = vetted(archive, trust=True).strange_code
    assert found.startswith(f"model-config.yaml: {named}; allowed is ")
