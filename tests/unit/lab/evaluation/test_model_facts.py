"""The digest that answers are kept under: whatever decides a score is in it."""

import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from accent.errors import ModelFolderError
from accent.layout import PROBE, PROBE_WEIGHTS_FILE
from accent.model import Calibration

from aurea.lab.evaluation import model_facts as module
from aurea.lab.evaluation.model_facts import model_facts
from tests.models import write_probe_stand_in


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """An unpacked archive: a model, the list of its engines and a graph."""
    folder = Path(shutil.copytree(small_folder, tmp_path / "model"))
    (folder / "graph.xml").write_text("<net/>")
    (folder / "graph.bin").write_bytes(b"weights")
    write_engines(folder, within_bounds=True)
    return folder


def write_engines(folder: Path, *, within_bounds: bool) -> None:
    entry = {
        "engine": "openvino",
        "precision": "int8",
        "graph": "graph.xml",
        "within_bounds": within_bounds,
    }
    (folder / "engines.json").write_text(json.dumps({"engines": [entry]}))


def test_facts_are_read_from_the_folder(small_folder: Path) -> None:
    facts = model_facts(small_folder)
    assert (facts.name, facts.labels) == ("model", ("england", "us", "canada"))
    assert model_facts(small_folder, "other").name == "other"
    assert model_facts(small_folder, "other").digest == facts.digest
    assert facts.calibration == Calibration(30.0)


def test_a_probe_has_facts_and_a_digest_of_its_own_files(tmp_path: Path) -> None:
    folder = write_probe_stand_in(tmp_path / "probe")
    facts = model_facts(folder)
    assert (facts.labels, facts.calibration) == (("us", "native", "learner"), Calibration(1.0))
    digests = {facts.digest}
    for name in PROBE.files:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b"\n")
        if name != PROBE_WEIGHTS_FILE:
            digests.add(model_facts(folder).digest)
        (folder / name).write_bytes(content)
    write_probe_stand_in(folder, seed=1)
    assert len(digests | {model_facts(folder).digest}) == len(PROBE.files) + 1


@pytest.mark.parametrize(
    "name", ["classifier.ckpt", "hyperparams.yaml", "graph.xml", "graph.bin", "calibration.json"]
)
def test_a_changed_file_of_model_or_graph_is_another_digest(folder: Path, name: str) -> None:
    before = model_facts(folder).digest
    path = folder / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n# more")
    assert model_facts(folder).digest != before


def test_another_choice_of_engines_is_another_digest(folder: Path) -> None:
    digests = {model_facts(folder).digest}
    write_engines(folder, within_bounds=False)
    digests.add(model_facts(folder).digest)
    (folder / "engines.json").unlink()
    digests.add(model_facts(folder).digest)
    assert len(digests) == 3


@pytest.mark.parametrize("library", ["torch", "av", "silero-vad"])
def test_another_version_of_what_computes_is_another_digest(
    small_folder: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model_facts(small_folder).digest
    monkeypatch.setattr(
        module, "version", lambda name: "0.0" if name == library else metadata.version(name)
    )
    assert model_facts(small_folder).digest != before


def test_a_folder_that_holds_no_model_or_a_broken_list_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelFolderError, match=r"embedding_model\.ckpt.*probe\.json"):
        model_facts(tmp_path)
    (folder / "engines.json").write_text("{")
    with pytest.raises(ModelFolderError, match=r"engines\.json"):
        model_facts(folder)
