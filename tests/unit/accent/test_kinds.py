"""Which kind of model a folder holds, and that every kind is had by the same names."""

import subprocess
import sys
from pathlib import Path

import pytest
from accent.engine import ENGINE_NAMES, PRECISIONS, PackedEngine
from accent.errors import ModelFolderError
from accent.kinds import KINDS, ModelKind, describe_model, kind_of, load_model
from accent.layout import ECAPA, LAYOUTS, PROBE, WAV2VEC2, layout_of, layouts_text

from tests.clips import voice


@pytest.fixture(params=["ecapa", "probe", "wav2vec2"])
def folder(
    request: pytest.FixtureRequest, small_folder: Path, probe_folder: Path, wav2vec2_folder: Path
) -> Path:
    folders = {"ecapa": small_folder, "probe": probe_folder, "wav2vec2": wav2vec2_folder}
    return folders[request.param]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_is_known_by_its_files(
    small_folder: Path, probe_folder: Path, wav2vec2_folder: Path
) -> None:
    for folder, layout in (
        (small_folder, ECAPA),
        (probe_folder, PROBE),
        (wav2vec2_folder, WAV2VEC2),
    ):
        assert names(folder) == set(layout.files)
        assert layout_of(names(folder)) == layout
        assert kind_of(folder).layout == layout
        assert describe_model(folder).kind == layout.kind


def test_a_folder_of_no_kind_is_refused_with_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "probe.ckpt").touch()
    (tmp_path / "probe.json").mkdir()
    assert layout_of({"probe.ckpt", "accent_encoder.txt"}) is None
    for folder in (tmp_path, tmp_path / "nowhere"):
        for read in (kind_of, describe_model, load_model):
            with pytest.raises(
                ModelFolderError, match=r"no hyperparams\.yaml and no probe"
            ) as refusal:
                read(folder)
            assert layouts_text() in str(refusal.value)


def test_no_kind_that_is_looked_for_later_has_the_file_that_marks_one() -> None:
    assert [kind.layout for kind in KINDS] == list(LAYOUTS)
    for index, layout in enumerate(LAYOUTS):
        assert not [later for later in LAYOUTS[index + 1 :] if layout.mark in later.files]
        assert layout_of(set(layout.files)) == layout
        assert {layout.mark, layout.labels, layout.settings} <= set(layout.files)
        assert all(name in layouts_text() for name in layout.files)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.layout.kind)
def test_the_reference_of_a_kind_can_be_computed_everywhere(kind: ModelKind) -> None:
    assert kind.reference.within_bounds
    assert kind.unavailable(kind.reference) is None


def test_a_kind_computes_no_other_kind_s_engine() -> None:
    ecapa, probe, wav2vec2 = (kind_named(name) for name in ("ecapa", "probe", "wav2vec2"))
    for engine in ENGINE_NAMES:
        for precision in PRECISIONS:
            packed = PackedEngine(engine, precision, None, within_bounds=True)
            if engine == "onnxruntime":
                refusal = probe.unavailable(packed)
                assert (refusal is None) == (precision == "int8"), refusal
                for kind in (ecapa, wav2vec2):
                    assert "torch and openvino alone" in (kind.unavailable(packed) or "")


def kind_named(name: str) -> ModelKind:
    return next(kind for kind in KINDS if kind.layout.kind == name)


def test_a_loaded_model_is_what_its_description_says_and_has_its_reference_engine(
    folder: Path,
) -> None:
    described, model = describe_model(folder), load_model(folder)
    assert (model.labels, model.calibration) == (described.labels, described.calibration)
    assert model.us_index == described.us_index
    assert model.reference == kind_of(folder).reference
    (score,) = model.reference_engine().score([voice(0.5).astype("float32")])
    assert not isinstance(score, Exception)
    assert score.evidence.shape == (len(model.labels),)


def test_a_layout_says_whether_a_gpu_computes_its_kind() -> None:
    for kind in KINDS:
        assert kind.layout.on_gpu == (kind.open_on_gpu is not None)


@pytest.mark.slow
def test_loading_imports_nothing_of_torchs_compiler(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from accent.kinds import load_model; "
        "load_model(Path(sys.argv[1])); "
        "sys.exit(', '.join({'torch._dynamo', 'sympy'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
