"""Services that tests share, and the one archive that all of them serve."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from aurea.models.choice import EMBEDDED_ECAPA
from aurea.service.packaging import PackagingOrder
from tests.clips import encode, voice
from tests.e2e.archives import (
    configured,
    quick_path,
    quickly_packaged,
    registered,
    registered_alone,
)
from tests.e2e.services import RunningService

Serve = Callable[..., RunningService]


@pytest.fixture(scope="session")
def running() -> Iterator[list[RunningService]]:
    """Services that were started; all of them are ended with the session at the latest."""
    services: list[RunningService] = []
    yield services
    for service in services:
        service.close()


@pytest.fixture(scope="session")
def first_start(
    running: list[RunningService], tmp_path_factory: pytest.TempPathFactory
) -> RunningService:
    """A service whose start has packaged its archive. To be ended by the test that is about it."""
    folder = tmp_path_factory.mktemp("first")
    service = start_first(folder)
    running.append(service)
    return service


def start_first(folder: Path) -> RunningService:
    """Start in a fresh run folder, with the engines judged by little speech."""
    return RunningService(
        folder / "run",
        environment={"PYTHONPATH": quick_path()},
        model_store=str(folder / "store"),
        workers="1",
    )


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded ECAPA-TDNN as version 1.0, packaged once for all processes of the run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    order = PackagingOrder(model=EMBEDDED_ECAPA, name="embedded-ecapa", version="1.0")
    with FileLock(folder / "archive.lock"):
        # One that is there already is left as it is.
        return quickly_packaged(order, folder / "archive")


@pytest.fixture(scope="session")
def serve(
    running: list[RunningService], archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Serve:
    """Starts services that have nothing to package, in the run folder given or in one of 1.0."""

    def start(
        run_dir: Path | None = None,
        *,
        through_make: bool = False,
        environment: dict[str, str] | None = None,
        workers: str = "1",
        **options: str,
    ) -> RunningService:
        if run_dir is None:
            run_dir = tmp_path_factory.mktemp("run", numbered=True)
            registered(archive, run_dir, int(workers))
        service = RunningService(
            run_dir, through_make=through_make, environment=environment, workers=workers, **options
        )
        running.append(service)
        return service

    return start


@pytest.fixture(scope="session")
def service(serve: Serve) -> RunningService:
    """One service of two workers for all tests that do it no harm."""
    return serve(workers="2")


@pytest.fixture(scope="session")
def fragile(
    serve: Serve, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """A service of one worker in fp32 with little patience, harmed by tests that let it mend."""
    run_dir = tmp_path_factory.mktemp("fragile")
    exact = configured(archive, run_dir / "draft.mar", "2.0", accent={"precision": "fp32"})
    registered_alone(exact, run_dir, "2.0")
    impatience = {"AUREA_DEADLINE_S": "6", "AUREA_UPLOAD_GRACE_S": "6"}
    running = serve(run_dir, environment=impatience)
    yield running
    running.close()


@pytest.fixture(scope="session")
def clip() -> bytes:
    """Three seconds of speech as WAV."""
    return encode(voice(3.0, seed=1), 16_000, "wav-s16")
