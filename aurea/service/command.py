"""`make serve` and `make stop`: the service from its model to its end."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir
from types import FrameType
from typing import Final, NoReturn

from accent.cores import available_cores

from aurea.archive.build import PackagingError
from aurea.command_line import read
from aurea.models.choice import DEFAULT_EMBEDDED, ModelUnavailable, choose_model
from aurea.service.console import say
from aurea.service.declared_start import default_archive
from aurea.service.disk import trouble
from aurea.service.errors import ServiceFailed, StopRequested
from aurea.service.following import Following
from aurea.service.packaging import PackagingOrder, archive_to_serve
from aurea.service.ports import local_url
from aurea.service.preflight import (
    check_port,
    check_public_files,
    check_upload_limit,
    check_workers,
    only_one,
    stop_running,
)
from aurea.service.settings import ServeSettings, SharedSettings, read_shared_settings
from aurea.service.supervisor import Supervisor
from aurea.versions.capacity import Capacity, free_memory_bytes
from aurea.versions.declared import DeclarationFaulty, read_declaration
from aurea.versions.registry import STATE_FOLDER, Registry, RegistryError

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOCK_TIMEOUT_S: Final = 30.0


def serve(settings: ServeSettings) -> None:
    """Run the service until a signal asks it to end or a part of it dies for good."""
    shared = read_shared_settings()
    check_upload_limit(shared)
    check_public_files(shared)
    if not settings.force:
        check_workers(settings.workers, Capacity(available_cores(), free_memory_bytes()))
    with ExitStack() as stack:
        stack.enter_context(only_one(settings.run_dir))
        check_port(settings.host, settings.port)
        if settings.versions is not None:
            _serve_declared(settings, settings.versions, shared, stack)
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
        order = PackagingOrder(
            model=choice.folder,
            name=name,
            version=settings.version,
            engine=settings.engine,
            precision=settings.precision,
        )
        archive = archive_to_serve(order, registry, settings.model_store)
        supervisor = Supervisor(settings, shared, registry, name)
        stack.callback(_end_in_order, supervisor)
        # From here on the parts are ended in order, whatever arrives meanwhile.
        with registry.locked(_LOCK_TIMEOUT_S):
            version = supervisor.start(archive, choice.notice)
            _announce(settings, shared, name, version, supervisor)
            supervisor.start_others()
        supervisor.watch()


def _serve_declared(
    settings: ServeSettings, file: Path, shared: SharedSettings, stack: ExitStack
) -> NoReturn:
    """Serve what `file` declares, from its default on, and follow it."""
    declaration = read_declaration(file)
    name, version = declaration.model, declaration.default
    say(f"Versions ({file})")
    registry = Registry(settings.run_dir / STATE_FOLDER / name, name)
    registry.prepare()
    own = {"version": version, "workers": declaration.versions[version].workers or 0}
    supervisor = Supervisor(settings.model_copy(update=own), shared, registry, name)
    stack.callback(supervisor.stop)
    with registry.locked(_LOCK_TIMEOUT_S):
        archive = default_archive(declaration, file.parent, registry)
        answering = supervisor.start(archive, "")
        _announce(settings, shared, name, answering, supervisor)
        supervisor.start_others()
    following = Following(file, registry, run_dir=settings.run_dir, environment=os.environ)
    stack.callback(following.close)
    supervisor.watch(following.look)


def main() -> None:
    """Start or stop the service as the command line says."""
    settings = read(ServeSettings)
    try:
        if settings.stop:
            print(stop_running(settings.run_dir))
            return
        for number in _STOP_SIGNALS:
            signal.signal(number, _request_stop)
        serve(settings)
    except StopRequested:
        say("Stopped")
    except (
        ServiceFailed,
        PackagingError,
        ModelUnavailable,
        RegistryError,
        DeclarationFaulty,
    ) as error:
        sys.exit(f"\n{error}")
    except OSError as error:
        sentence = trouble(error, (settings.run_dir, settings.model_store, Path(gettempdir())))
        if sentence is None:
            raise
        sys.exit(f"\n{sentence}")


def _announce(
    settings: ServeSettings,
    shared: SharedSettings,
    name: str,
    version: str,
    supervisor: Supervisor,
) -> None:
    url = local_url(settings.host, settings.port, shared.scheme)
    key = "-H 'X-API-Key: KEY' " if shared.keys_file else ""
    print(
        f"\nready: {name}/{version} at {url} (docs: {url}/docs, stop: Ctrl-C)\n"
        f"TorchServe: {', '.join(supervisor.listening())}\n"
        f"Proxy: {supervisor.metrics_address()}\n\n"
        f"    curl {key}-F file=@clip.m4a {url}/classify-us-accent\n",
        flush=True,
    )


def _request_stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    # A second signal must not break off the orderly end that the first one began.
    _ignore_signals()
    raise StopRequested


def _end_in_order(supervisor: Supervisor) -> None:
    # A part that has died began this end; a signal that comes now asks for no other.
    _ignore_signals()
    supervisor.stop()


def _ignore_signals() -> None:
    for each in _STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
