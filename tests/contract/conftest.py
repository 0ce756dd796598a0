"""A stand-in TorchServe and proxies in front of it, shared where no test breaks them."""

from collections.abc import Callable, Iterator

import pytest

from tests.contract.proxy_process import Proxy
from tests.contract.standin import StandIn


@pytest.fixture(scope="session")
def shared_standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    standin = StandIn(tmp_path_factory.mktemp("torchserve"))
    yield standin
    standin.close()


@pytest.fixture
def standin(shared_standin: StandIn) -> StandIn:
    """A stand-in that remembers nothing of earlier tests."""
    shared_standin.reset()
    return shared_standin


@pytest.fixture(scope="session")
def shared_proxy(shared_standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(shared_standin)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(shared_proxy: Proxy, standin: StandIn) -> Proxy:  # noqa: ARG001
    """A proxy with default settings, shared by all tests that do not end it."""
    return shared_proxy


@pytest.fixture(
    scope="session",
    params=[1, pytest.param(2, marks=pytest.mark.slow)],
    ids=["one process", "two processes"],
)
def shared_roomy_proxy(shared_standin: StandIn, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    proxy = Proxy(
        shared_standin,
        max_jobs=1_000,
        max_jobs_per_client=1_000,
        job_silence_s=0.1,
        processes=request.param,
    )
    yield proxy
    proxy.close()


@pytest.fixture
def roomy(shared_roomy_proxy: Proxy, standin: StandIn) -> Proxy:  # noqa: ARG001
    """A proxy that takes any number of jobs and whose events pause for 0.1 s at most, shared."""
    return shared_roomy_proxy


@pytest.fixture(scope="session")
def shared_impatient_proxy(shared_standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(shared_standin, ask_again_after_s=0.2)
    yield proxy
    proxy.close()


@pytest.fixture
def impatient(shared_impatient_proxy: Proxy, standin: StandIn) -> Proxy:  # noqa: ARG001
    """A proxy that asks again for a clip after 0.2 s without an answer, shared as `proxy` is."""
    return shared_impatient_proxy


@pytest.fixture
def start(standin: StandIn) -> Iterator[Callable[..., Proxy]]:
    """Starts proxies with settings of a test's own."""
    started: list[Proxy] = []

    def start_proxy(**settings: object) -> Proxy:
        proxy = Proxy(standin, **settings)  # type: ignore[arg-type]
        started.append(proxy)
        return proxy

    yield start_proxy
    for proxy in started:
        proxy.close()
