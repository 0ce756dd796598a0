"""What a version gets of a machine's cores and GPUs; the GPUs are a stand-in for torch."""

import zipfile
from pathlib import Path

import pytest
from accent.layout import ECAPA, PROBE, Layout

from aurea.archive.settings import OUR_SETTINGS_FILE
from aurea.service.machine import Machine, count_cards
from aurea.versions.registry import Registry
from aurea.versions.state import State, VersionRecord


def with_cards(
    answer: str, folder: Path, monkeypatch: pytest.MonkeyPatch, device: str = "nvidia0"
) -> Path:
    """A machine with a driver, on whose Python torch counts as `answer` says."""
    (folder / "torch").mkdir()
    (folder / "torch/__init__.py").write_text("from torch import cuda\n")
    (folder / "torch/cuda.py").write_text(f"def device_count():\n    {answer}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (folder / "dev").mkdir()
    (folder / "dev" / device).touch()
    return folder / "dev"


@pytest.mark.parametrize(("count", "device"), [(0, "nvidia0"), (1, "nvidia7"), (2, "dxg")])
def test_cards_are_those_that_torch_finds(
    count: int, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count_cards(with_cards(f"return {count}", tmp_path, monkeypatch, device)) == count


def test_without_a_driver_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = with_cards("return 4", tmp_path, monkeypatch)
    (devices / "nvidia0").rename(devices / "nvidiactl")
    assert count_cards(devices) == 0


@pytest.mark.parametrize(
    "answer", ["raise RuntimeError", "return 'many'", "import os; os._exit(3)"]
)
def test_a_torch_that_cannot_count_finds_none(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count_cards(with_cards(answer, tmp_path, monkeypatch)) == 0


def served(folder: Path, layout: Layout) -> tuple[Registry, State]:
    registry = Registry(folder / "state", "model")
    registry.prepare()
    with zipfile.ZipFile(registry.store / "model-1.0.mar", "w") as content:
        content.writestr(layout.mark, b"")
        content.write(OUR_SETTINGS_FILE, "model-config.yaml")
    record = VersionRecord.model_construct(archive="model-1.0.mar", workers=None)
    return registry, State.model_construct(default="1.0", versions={"1.0": record})


@pytest.mark.parametrize(
    ("machine", "layout", "workers", "in_flight"),
    [
        (Machine(16, 1), ECAPA, 1, 256),
        (Machine(16, 2), ECAPA, 2, 512),
        (Machine(16, 0), ECAPA, 16, 64),
        (Machine(16, 2), PROBE, 16, 64),
    ],
)
def test_a_version_gets_a_worker_a_card_or_one_a_core(
    machine: Machine, layout: Layout, workers: int, in_flight: int, tmp_path: Path
) -> None:
    registry, state = served(tmp_path, layout)
    assert machine.workers(registry, state, "1.0") == workers
    assert machine.in_flight(registry, state) == in_flight
    proxy = machine.proxy_environment(registry, state)
    assert proxy.get("AUREA_MAX_IN_FLIGHT") == (None if in_flight == 64 else str(in_flight))


@pytest.mark.parametrize(
    ("cores", "on_cpu", "on_gpu"),
    [
        (1, None, None),
        (2, None, None),
        (4, None, None),
        (7, None, None),
        (8, None, "2"),
        (16, None, "4"),
        (31, None, "4"),
        (32, "2", "4"),
        (64, "4", "4"),
        (192, "4", "4"),
    ],
)
def test_a_proxy_has_as_many_processes_as_keep_up_with_the_cores(
    cores: int, on_cpu: str | None, on_gpu: str | None, tmp_path: Path
) -> None:
    registry, state = served(tmp_path, ECAPA)
    for cards, expected in ((0, on_cpu), (1, on_gpu)):
        proxy = Machine(cores, cards).proxy_environment(registry, state)
        assert proxy.get("AUREA_PROCESSES") == expected
