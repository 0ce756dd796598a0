"""Services that tests share, and the one archive that all of them serve."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aurea.versions.registry import STATE_FOLDER
from tests.clips import encode, voice
from tests.e2e.archives import configured, registered, registered_alone
from tests.e2e.services import RunningService

QUICK_PACKAGING = Path(__file__).with_name("quick_packaging")
"""On Python's path, it has a packaging process judge engines by little speech."""

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
    path = os.pathsep.join([str(QUICK_PACKAGING), os.environ.get("PYTHONPATH", "")])
    return RunningService(
        folder / "run",
        environment={"PYTHONPATH": path.rstrip(os.pathsep)},
        model_store=str(folder / "store"),
        workers="1",
    )


@pytest.fixture(scope="session")
def archive(first_start: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded ECAPA-TDNN, packaged as version 1.0."""
    store = first_start.run_dir / STATE_FOLDER / "embedded-ecapa" / "store"
    copy = tmp_path_factory.mktemp("archive") / "embedded-ecapa.mar"
    copy.write_bytes(next(store.glob("*.mar")).read_bytes())
    return copy


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
