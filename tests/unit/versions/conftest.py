import os
from pathlib import Path

import pytest

from aurea.versions import waiting
from aurea.versions.registry import Registry
from tests.unit.versions.service import Service


@pytest.fixture(autouse=True)
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: what a test writes need not outlive the machine's power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A run folder in which version 1.0 answers with two workers, and no wait lasts."""
    for pause in ("_ROUTING_S", "_SETTLE_S", "_IDLE_LOOK_S"):
        monkeypatch.setattr(waiting, pause, 0.0)
    return Service(tmp_path)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "state" / "small", "small")
    registry.prepare()
    return registry


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "small.mar"
    path.write_bytes(b"as it is packaged")
    return path
