"""Speech, models and graphs that the tests of this room share, made once."""

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from accent.ecapa.loading import EcapaModel
from accent.engine import Precision
from accent.model import LoadedModel
from accent.selection import EngineSettings
from accent.trimming import TrimSettings
from accent.waveform import Waveform

from aurea.archive import build, engines, graph_files, judging
from aurea.archive.graph_files import make_graphs
from aurea.archive.layout import MANIFEST_FILE
from aurea.archive.reference import (
    PARTS,
    SpeechClip,
    calibration_speech,
    reference_files,
    verification_speech,
)
from aurea.archive.repacking import repack
from tests.unit.archive.archives import manifest


@pytest.fixture(scope="session")
def little_speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of each part: those that an archive carries among them."""
    folder = tmp_path_factory.mktemp("speech")
    for part in PARTS:
        (folder / part).mkdir()
        for path in reference_files(part)[:4]:
            shutil.copyfile(path, folder / part / path.name)
    return folder


@pytest.fixture(scope="session")
def few_clips(little_speech_folder: Path) -> list[SpeechClip]:
    """The clips that an archive carries, and their copies."""
    return verification_speech(little_speech_folder)


@pytest.fixture(scope="session")
def carried_clips(few_clips: list[SpeechClip]) -> list[SpeechClip]:
    """The clips that an archive carries, as they are."""
    return [clip for clip in few_clips if " " not in clip.name]


@pytest.fixture(scope="session")
def little_calibration(little_speech_folder: Path) -> list[Waveform]:
    """One clip of each kind that a quantizer sees."""
    return calibration_speech(little_speech_folder)


@pytest.fixture(scope="session")
def verification() -> list[SpeechClip]:
    """All that an engine is judged by; takes seconds."""
    return verification_speech()


@pytest.fixture(scope="session")
def embedded(embedded_model: EcapaModel) -> EcapaModel:
    """The ECAPA-TDNN that ships, under the name that it has here."""
    return embedded_model


@pytest.fixture(scope="module")
def little_speech(
    carried_clips: list[SpeechClip], little_calibration: list[Waveform]
) -> Iterator[None]:
    """Engines are made and judged on a few clips, in a second or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "verification_speech", lambda **_: carried_clips)
        patch.setattr(graph_files, "calibration_speech", lambda: little_calibration)
        patch.setattr(judging, "_TIMED_ROUNDS", 1)
        yield


@pytest.fixture(scope="session")
def graphs(
    embedded: EcapaModel,
    little_calibration: list[Waveform],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Precision, Path]:
    """The graphs of the model that ships, its int8 calibrated on a few clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_files, "calibration_speech", lambda: little_calibration)
        return make_graphs(embedded, tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[EngineSettings]:
    """Packaging without engines, zipped by hand; the settings that it asked engines for."""
    asked: list[EngineSettings] = []

    def no_engines(
        _: Path,
        __: LoadedModel,
        ___: Path,
        settings: EngineSettings,
        ____: TrimSettings,
        *,
        portable: bool,  # noqa: ARG001
    ) -> str:
        asked.append(settings)
        return "measured"

    def zipped(contents: Path, target: Path, *, version: str) -> None:
        target.unlink(missing_ok=True)
        draft = target.with_suffix(".draft")
        with zipfile.ZipFile(draft, "w") as content:
            for path in contents.rglob("*"):
                content.write(path, path.relative_to(contents))
            content.writestr(MANIFEST_FILE, manifest(modelVersion=version))
        repack(draft, target)
        draft.unlink()

    monkeypatch.setattr(engines, "pack_engines", no_engines)
    monkeypatch.setattr(build, "write_archive", zipped)
    return asked
