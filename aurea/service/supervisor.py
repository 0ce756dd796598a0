"""TorchServe and the proxy as one thing that starts, is watched, and stops.

Everything that runs keeps its files in one run folder; on the way out the proxy drains first,
then TorchServe stops, and what remains are logs and what was registered.
"""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import httpx

from aurea.service.children import Child, child_environment, tail
from aurea.service.console import say
from aurea.service.disk import trouble
from aurea.service.errors import ServiceFailed
from aurea.service.forwarding import Forwarding
from aurea.service.machine import Machine
from aurea.service.ports import described_address, local_url, service_ports
from aurea.service.preflight import check_socket_dir
from aurea.service.readiness import watch
from aurea.service.restarts import Restarts
from aurea.service.restoring import Restoring
from aurea.service.settings import ServeSettings, SharedSettings
from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.torchserve.client import TorchServe
from aurea.torchserve.configuration import Configuration
from aurea.torchserve.errors import ManagementError, Unreachable
from aurea.torchserve.process import (
    KEY_FILE,
    MODEL_LOG,
    SERVER_LOG,
    in_own_network,
    java_command,
    java_environment,
    own_network_refusal,
)
from aurea.versions.registry import Registry
from aurea.versions.state import State

_PROXY_LOG: Final = "proxy.log"
_PROXY_TIMEOUT_S: Final = 20.0
_STOP_TORCHSERVE_S: Final = 3.0
# Longest wait for a part of an answer where only readiness is asked for.
_PROBE_TIMEOUT_S: Final = 3.0


class Supervisor:
    """Owns the processes of one service, from its start to its end."""

    def __init__(
        self, settings: ServeSettings, shared: SharedSettings, registry: Registry, name: str
    ) -> None:
        self._settings = settings
        self._shared = shared
        self._wanted_metrics_port = shared.metrics_port
        self._registry = registry
        self._name = name
        self._state = State()
        self._log_dir = settings.run_dir / "logs"
        self._scratch = settings.run_dir / "torchserve"
        self._socket_dir = self._scratch / "s"
        self._temporary = self._scratch / "tmp"
        self._machine = Machine.here()
        self._claims = ExitStack()
        self._forwarding: Forwarding | None = None
        self._own_network = False
        self._addresses: Addresses | None = None
        # Asks its own child on this machine, whose certificate bears another name.
        self._http = httpx.Client(timeout=5.0, trust_env=False, verify=False)  # noqa: S501
        self._torchserve: Child | None = None
        self._proxy: Child | None = None
        self._restoring: Restoring | None = None
        self._management: TorchServe | None = None
        self._probe: TorchServe | None = None
        self._start_again: dict[str, Callable[[], None]] = {}
        self._deaths = {part: Restarts(settings.max_restarts) for part in ("proxy", "torchserve")}

    def start(self, archive: Path | None, notice: str) -> str:
        """Start TorchServe and the proxy; return the default version once it can predict.

        `archive` is what was packaged now, None for a version that was retired; `notice` is
        shown to clients. Raises `ServiceFailed`.
        """
        self._state, sentences = self._registry.adopt(
            archive, self._settings.version, self._settings.workers
        )
        for sentence in sentences:
            say(f"NOTE: {sentence}")
        # Only to a version that can answer: the proxy starts before the others are loaded.
        self._registry.route(State())
        workers = self._workers(self._state.default)
        say(f"TorchServe with {workers} workers")
        self._prepare_folders()
        self._own_network = self._may_have_own_network()
        threads = max(1, self._machine.cores // workers)
        configuration, addresses = self._open_ports(threads)
        self._addresses = addresses
        self._torchserve = self._start_torchserve(configuration, threads)
        if self._settings.versions is None:
            self._proxy = self._start_proxy(notice, addresses)
        self._start_again = {
            "torchserve": partial(self._restart_torchserve, configuration, threads),
            "proxy": partial(self._restart_proxy, notice, addresses),
        }
        self._management = TorchServe(addresses)
        self._probe = TorchServe(addresses, timeout_s=_PROBE_TIMEOUT_S)
        self._await_torchserve(self._probe)
        self._restoring = self._new_restoring(self._management, self._check_alive)
        version = self._restoring.load_default()
        say("Proxy")
        if self._proxy is None:  # Nobody is answered by a declared version that is not proven.
            self._proxy = self._start_proxy(notice, addresses)
        self._await_proxy()
        return version

    def start_others(self) -> None:
        """Load what is registered beside the default, after `start`."""
        if self._restoring is None:
            raise RuntimeError("start() has not run")
        self._restoring.load_others()

    def watch(self, also: Callable[[], None] = lambda: None) -> NoReturn:
        """Call `also` over and over; raise `ServiceFailed` when a part has died too often.
        TorchServe comes back with the versions that are registered at that time.
        """
        watch(
            self._keep_alive,
            self._prove_ready,
            also=also,
            lost_workers_s=self._settings.lost_workers_s,
            model_log=self._log_dir / MODEL_LOG,
        )

    def stop(self) -> None:
        """Drain the proxy, stop TorchServe and its workers, remove what they leave."""
        if self._proxy is not None:
            if self._proxy.runs:
                say("Draining the proxy")
            self._proxy.terminate(self._settings.drain_s + 1.5)
        if self._torchserve is not None:
            if self._torchserve.runs:
                say("Stopping TorchServe")
            self._torchserve.terminate(_STOP_TORCHSERVE_S)
        self._http.close()
        for client in (self._management, self._probe):
            if client is not None:
                client.close()
        if self._forwarding is not None:
            self._forwarding.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._claims.close()

    def _keep_alive(self) -> None:
        """Start again what has died; raise `ServiceFailed` once that was too often."""
        for part, child in (("torchserve", self._torchserve), ("proxy", self._proxy)):
            try:
                if child is not None:
                    child.check()
            except ServiceFailed as death:
                self._revive(part, death)

    def _revive(self, part: str, death: ServiceFailed) -> None:
        pause_s = self._deaths[part].pause_s()
        if pause_s is None:
            raise death
        say(f"NOTE: {str(death).splitlines()[0]} It is started again.")
        time.sleep(pause_s)
        try:
            self._start_again[part]()
        except (ServiceFailed, OSError) as failure:
            # What died meanwhile is seen, and counted, at the next look.
            if all(child is None or child.runs for child in (self._torchserve, self._proxy)):
                raise
            words = isinstance(failure, OSError) and trouble(failure, (self._settings.run_dir,))
            say(f"NOTE: {(words or str(failure)).splitlines()[0]}")

    def _restart_proxy(self, notice: str, addresses: Addresses) -> None:
        if self._proxy is not None:
            self._proxy.terminate(0.0)
        self._proxy = self._start_proxy(notice, addresses)
        # TorchServe need not answer just now: the proxy says so to its clients.
        self._await_proxy("/healthz")

    def _restart_torchserve(self, configuration: Configuration, threads: int) -> None:
        if self._torchserve is None or self._management is None or self._probe is None:
            raise RuntimeError("start() has not run")
        self._torchserve.terminate(0.0)
        shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._socket_dir.mkdir(mode=0o700)
        (self._scratch / KEY_FILE).unlink(missing_ok=True)
        self._torchserve = self._start_torchserve(configuration, threads)
        self._await_torchserve(self._probe)
        with self._registry.locked(self._settings.ready_timeout_s):
            self._state = self._registry.load()
            # A proxy that dies meanwhile must not break this off: it comes afterwards.
            restoring = self._new_restoring(self._management, self._torchserve.check)
            version = restoring.load_default()
            say(f"NOTE: {self._name}/{version} answers again.")
            restoring.load_others()

    def _new_restoring(self, management: TorchServe, check_alive: Callable[[], None]) -> Restoring:
        return Restoring(
            self._name,
            self._registry,
            self._state,
            management,
            workers=self._workers,
            cards=self._machine.cards,
            model_log=self._log_dir / MODEL_LOG,
            ready_timeout_s=self._settings.ready_timeout_s,
            check_alive=check_alive,
            proven=self._settings.versions is not None,
        )

    def listening(self) -> list[str]:
        """Where TorchServe listens, one sentence an address, after `start`.

        A port that was busy and replaced is named beside the one that is used.
        """
        if self._addresses is None:
            raise RuntimeError("start() has not run")
        places = (
            ("management", self._addresses.management_url, self._settings.management_port),
            ("metrics", self._addresses.metrics_url, self._settings.metrics_port),
        )
        return [described_address(what, url, wanted) for what, url, wanted in places]

    def metrics_address(self) -> str:
        """Where the proxy's metrics are, as a sentence like those of `listening`."""
        if self._addresses is None:
            raise RuntimeError("start() has not run")
        public = self._shared.metrics_public
        wanted = self._settings.port if public else self._wanted_metrics_port
        return described_address("metrics", self._addresses.proxy_metrics_url, wanted)

    def _prepare_folders(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(mode=0o700)
        self._socket_dir.mkdir(mode=0o700)
        self._temporary.mkdir()
        # Why a worker has died is read in it, and only those of this start matter.
        (self._log_dir / MODEL_LOG).unlink(missing_ok=True)
        check_socket_dir(self._socket_dir)

    def _may_have_own_network(self) -> bool:
        if self._settings.network == "shared":
            say("TorchServe shares the machine's network, as asked for")
            return False
        refusal = own_network_refusal()
        if refusal is None:
            say("TorchServe has a network of its own")
        else:
            say(
                f"NOTE: TorchServe has no network of its own here ({refusal}), so that others on "
                "this machine reach its gRPC ports."
            )
        return refusal is None

    def _open_ports(self, threads: int) -> tuple[Configuration, Addresses]:
        """Listen for management and metrics, and write down where everything is."""
        ports = service_ports(
            self._claims, self._settings, self._shared, own_network=self._own_network
        )
        if ports.proxy_metrics is not None:
            self._shared = self._shared.model_copy(update={"metrics_port": ports.proxy_metrics})
        configuration = Configuration(
            socket_dir=self._socket_dir,
            model_store=self._registry.store,
            grpc_inference_port=ports.grpc[0],
            grpc_management_port=ports.grpc[1],
            max_upload_bytes=self._shared.max_upload_bytes,
            max_held_bytes=self._shared.max_held_bytes,
            job_queue_size=self._machine.in_flight(self._registry, self._state),
        )
        addresses = Addresses(
            model_name=self._name,
            management_url=f"http://127.0.0.1:{ports.management}",
            metrics_url=f"http://127.0.0.1:{ports.metrics}/metrics",
            inference_socket=configuration.inference_socket,
            management_socket=configuration.management_socket,
            key_file=self._scratch / KEY_FILE,
            proxy_url=self._proxy_url(),
            proxy_metrics_url=self._proxy_metrics_url(),
            cores=self._machine.cores,
            cards=self._machine.cards,
            threads_per_worker=threads,
        )
        (self._settings.run_dir / ADDRESSES_FILE).write_text(addresses.model_dump_json(indent=1))
        self._forwarding = Forwarding(ports.management, ports.metrics)
        self._forwarding.start(configuration, addresses.key_file)
        return configuration, addresses

    def _proxy_metrics_url(self) -> str:
        if self._shared.metrics_public:
            return f"{self._proxy_url()}/metrics"
        return f"{local_url(self._shared.metrics_host, self._shared.metrics_port)}/metrics"

    def _proxy_url(self) -> str:
        return local_url(self._settings.host, self._settings.port, self._shared.scheme)

    def _start_torchserve(self, configuration: Configuration, threads: int) -> Child:
        config_file = self._scratch / "config.properties"
        config_file.write_text(configuration.text())
        command = java_command(configuration, config_file, self._log_dir)
        return Child(
            "TorchServe",
            in_own_network(command) if self._own_network else command,
            java_environment(
                child_environment(self._temporary),
                threads_per_worker=threads,
                cores_folder=self._scratch / "cores",
            ),
            cwd=self._scratch,
            output=self._log_dir / "torchserve.out",
            logs=[self._log_dir / SERVER_LOG],
        )

    def _start_proxy(self, notice: str, addresses: Addresses) -> Child:
        environment = self._machine.proxy_environment(self._registry, self._state)
        environment |= child_environment(self._temporary) | self._shared.environment()
        if self._settings.proxies:
            environment["AUREA_PROCESSES"] = str(self._settings.proxies)
        environment |= {
            "AUREA_HOST": self._settings.host,
            "AUREA_PORT": str(self._settings.port),
            "AUREA_MODEL_NAME": self._name,
            "AUREA_MODEL_NOTICE": notice,
            "AUREA_TORCHSERVE_SOCKET": str(addresses.inference_socket),
            "AUREA_MANAGEMENT_URL": addresses.management_url,
            "AUREA_MANAGEMENT_SOCKET": str(addresses.management_socket),
            "AUREA_TORCHSERVE_METRICS_URL": addresses.metrics_url,
            "AUREA_KEY_FILE": str(addresses.key_file),
            "AUREA_ROUTING_FILE": str(self._registry.routing_file),
            "AUREA_DRAIN_S": str(self._settings.drain_s),
            "AUREA_LOG_FILE": str(self._log_dir / _PROXY_LOG),
        }
        return Child(
            "The proxy",
            [sys.executable, "-m", "proxy"],
            environment,
            cwd=self._scratch,
            output=self._log_dir / "proxy.out",
            logs=[self._log_dir / _PROXY_LOG],
        )

    def _workers(self, version: str) -> int:
        wanted = self._state.versions[version].workers or self._settings.workers
        return wanted or self._machine.workers(self._registry, self._state, version)

    def _await_torchserve(self, torchserve: TorchServe) -> None:
        deadline = time.monotonic() + self._settings.ready_timeout_s
        while True:
            self._check_alive()
            try:
                torchserve.versions()
                return
            except Unreachable:
                pass
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    f"TorchServe did not answer within {self._settings.ready_timeout_s:g} s.\n"
                    + tail(self._log_dir / SERVER_LOG)
                )
            time.sleep(0.1)

    def _await_proxy(self, path: str = "/readyz") -> None:
        url = self._proxy_url()
        deadline = time.monotonic() + _PROXY_TIMEOUT_S
        while True:
            self._check_alive()
            try:
                if self._http.get(f"{url}{path}").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    "The proxy did not become ready.\n" + tail(self._log_dir / _PROXY_LOG)
                )
            time.sleep(0.05)

    def _prove_ready(self) -> None:
        if self._probe is None:
            raise RuntimeError("start() has not run")
        if self._probe.default().ready == 0:
            raise ManagementError("TorchServe has none.")

    def _check_alive(self) -> None:
        for child in (self._torchserve, self._proxy):
            if child is not None:
                child.check()
