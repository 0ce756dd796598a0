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
    ("machine", "layout", "workers", "in_flight", "proxies"),
    [
        (Machine(16, 1), ECAPA, 1, 256, 4),
        (Machine(16, 2), ECAPA, 2, 512, 4),
        (Machine(96, 2), ECAPA, 2, 512, 4),
        (Machine(8, 1), ECAPA, 1, 256, 2),
        (Machine(2, 1), ECAPA, 1, 256, 1),
        (Machine(16, 0), ECAPA, 16, 64, 1),
        (Machine(16, 2), PROBE, 16, 64, 1),
    ],
)
def test_a_version_gets_a_worker_a_card_or_one_a_core_and_a_fast_card_more_than_one_proxy(
    machine: Machine, layout: Layout, workers: int, in_flight: int, proxies: int, tmp_path: Path
) -> None:
    registry, state = served(tmp_path, layout)
    assert machine.workers(registry, state, "1.0") == workers
    assert machine.in_flight(registry, state) == in_flight
    proxy = machine.proxy_environment(registry, state)
    expected = {} if in_flight == 64 else {"AUREA_MAX_IN_FLIGHT": str(in_flight)}
    assert proxy == expected | ({} if proxies == 1 else {"AUREA_PROCESSES": str(proxies)})
