"""What the unit tests share: stand-in models, written and loaded once."""

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accent.ecapa.loading import EcapaModel, load_model
from accent.model import Calibration
from accent.probe.loading import ProbeModel, load_probe
from accent.wav2vec2.loading import Wav2Vec2Model
from accent.wav2vec2.loading import load_model as load_wav2vec2
from speechbrain.utils.importutils import LazyModule

from aurea.models.choice import EMBEDDED_ECAPA
from aurea.models.stand_in_wav2vec2 import write_wav2vec2_stand_in
from tests.models import (
    REAL_HEAD,
    write_full_width_stand_in,
    write_probe_stand_in,
    write_stand_in,
)

# Hypothesis asks every module for its file, and SpeechBrain's lazy ones import optional
# packages to answer.
LazyModule.__file__ = None


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """On a busy machine, threads that wait for each other take ten times as long as one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread_again() -> Iterator[None]:
    """A sum by parts is another sum: no test computes with the threads that another has set."""
    yield
    torch.set_num_threads(1)


class SignalStack(ctypes.Structure):
    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture
def ordinary_signal_stack() -> None:
    """Handlers run on the thread's own stack: OpenVINO, in another test, leaves none of theirs."""
    disable = 2
    assert ctypes.CDLL(None).sigaltstack(ctypes.byref(SignalStack(None, disable, 0)), None) == 0


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in SpeechBrain's layout, 3 labels, `us` the second."""
    return write_stand_in(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="session")
def small_model(small_folder: Path) -> EcapaModel:
    return load_model(small_folder)


@pytest.fixture(scope="session")
def probe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speech encoder with a probe, 3 labels, `us` the first."""
    return write_probe_stand_in(tmp_path_factory.mktemp("probe") / "model")


@pytest.fixture(scope="session")
def probe_model(probe_folder: Path) -> ProbeModel:
    return load_probe(probe_folder)


@pytest.fixture(scope="session")
def wav2vec2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small wav2vec 2.0 in SpeechBrain's layout, 3 labels, `us` the second."""
    return write_wav2vec2_stand_in(tmp_path_factory.mktemp("wav2vec2") / "model")


@pytest.fixture(scope="session")
def wav2vec2_model(wav2vec2_folder: Path) -> Wav2Vec2Model:
    return load_wav2vec2(wav2vec2_folder)


@pytest.fixture(scope="session")
def full_width_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pretrained model's shape and real head over seeded weights."""
    if not REAL_HEAD.is_dir():
        pytest.skip("the pretrained model's head is not beside this checkout (shared/model)")
    return write_full_width_stand_in(tmp_path_factory.mktemp("full") / "model")


@pytest.fixture(scope="session")
def embedded_model() -> EcapaModel:
    """The ECAPA-TDNN that ships, at the scale of its training.

    Bounds in points are of that scale: a sharper calibration magnifies every deviation, and
    packaging then leaves out what it takes beyond them.
    """
    return replace(load_model(EMBEDDED_ECAPA), calibration=Calibration(20.0))
