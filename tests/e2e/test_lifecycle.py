"""Starting, ending and dying: in order, completely, and with a word about why."""

import json
import os
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from accent.layout import REFERENCE_FILE

from aurea.archive.layout import CONFIG_FILE, MANIFEST_FILE
from aurea.paths import ROOT
from aurea.versions.registry import STATE_FOLDER, Canary, Registry, State
from tests.e2e.conftest import (
    RunningService,
    free_port,
    is_listening,
    own_environment,
    ports_of,
)

Serve = Callable[..., RunningService]


def make(*arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=own_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def assert_nothing_is_left(
    service: RunningService, processes: list[psutil.Process], ports: set[int]
) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive
    assert not [port for port in ports if is_listening(port)]
    left = {path.relative_to(service.run_dir).parts[0] for path in service.run_dir.rglob("*")}
    assert left <= {"logs", "serve.pid", "state"}


@pytest.mark.parametrize("how", ["make stop", "SIGTERM", "SIGTERM to make"])
def test_every_way_to_end_it_ends_all_of_it_within_ten_seconds(serve: Serve, how: str) -> None:
    service = serve()
    processes, ports = service.descendants(), ports_of(service)
    assert len(ports) >= 5
    started = time.monotonic()
    if how == "make stop":
        stopped = make("stop", f"RUN_DIR={service.run_dir}")
        assert stopped.returncode == 0, stopped.stderr
        assert "Stopped" in stopped.stdout
    elif how == "SIGTERM to make":
        service.process.terminate()
    else:
        service.supervisor().terminate()
    status = service.process.wait(20)
    assert time.monotonic() - started < 10
    if how != "SIGTERM to make":
        assert status == 0, service.output
    assert_nothing_is_left(service, processes, ports)


def test_a_terminal_ctrl_c_reaches_the_whole_group_and_still_ends_in_order(serve: Serve) -> None:
    service = serve()
    processes, ports = service.descendants(), ports_of(service)
    os.killpg(service.process.pid, signal.SIGINT)
    service.process.wait(20)
    assert service.output.index("Draining the proxy") < service.output.index("Stopping TorchServe")
    assert_nothing_is_left(service, processes, ports)


def test_sigterm_under_load_answers_all_it_accepted_and_it_starts_again(
    serve: Serve, clip: bytes
) -> None:
    service = serve()
    answered: list[int] = []
    broken: list[str] = []

    def load(keep_alive: bool) -> None:
        limits = httpx.Limits(max_keepalive_connections=1 if keep_alive else 0)
        with httpx.Client(limits=limits, timeout=60, trust_env=False) as client:
            while True:
                try:
                    response = client.post(
                        f"{service.url}/classify-us-accent", files={"file": ("clip", clip)}
                    )
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    broken.append(repr(error))
                    return
                answered.append(response.status_code)

    threads = [threading.Thread(target=load, args=(index % 2 == 0,)) for index in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    processes, ports = service.descendants(), ports_of(service)
    service.supervisor().send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0
    for thread in threads:
        thread.join(30)
    assert not broken
    assert len(answered) > 20
    assert set(answered) == {200}
    assert_nothing_is_left(service, processes, ports)

    again = serve(PORT=str(service.port), RUN_DIR=str(service.run_dir))
    assert again.ready_after_s < 15
    assert again.classify(clip).status_code == 200
    again.close()


@pytest.mark.parametrize("victim", ["java", "proxy"])
def test_if_a_part_dies_for_good_all_of_it_ends_with_a_message(serve: Serve, victim: str) -> None:
    service = serve()
    processes, ports = service.descendants(), ports_of(service)
    (service.java() if victim == "java" else service.proxy()).kill()
    assert service.process.wait(20) != 0
    name = "TorchServe" if victim == "java" else "The proxy"
    assert f"{name} ended by itself" in service.output
    assert_nothing_is_left(service, processes, ports)


def test_killed_outright_it_takes_its_parts_along_and_the_next_start_works(serve: Serve) -> None:
    service = serve()
    processes, ports = service.descendants(), ports_of(service)
    service.supervisor().kill()
    service.process.wait(20)
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not alive
    assert not [port for port in ports if is_listening(port)]
    again = serve(RUN_DIR=str(service.run_dir), WORKERS="1")
    (worker,) = again.workers()
    # One worker has all cores to itself: threads times workers are as many as there are.
    assert worker.environ()["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    again.close()


def altered(archive: Path, target: Path, changes: dict[str, bytes]) -> Path:
    """Copy an archive to `target` with other content in some files."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, changes.get(name, source.read(name)))
    return target


def renumbered(archive: Path, target: Path, version: str, **changes: bytes) -> Path:
    """Copy an archive to `target` as another version of the same model."""
    with zipfile.ZipFile(archive) as content:
        manifest = json.loads(content.read(MANIFEST_FILE))
    manifest["model"]["modelVersion"] = version
    return altered(archive, target, {MANIFEST_FILE: json.dumps(manifest).encode(), **changes})


@pytest.fixture(scope="module")
def archive(service: RunningService) -> Path:
    """What the service has packaged, as it lies in its store."""
    return next((service.run_dir / STATE_FOLDER / "embedded" / "store").glob("*.mar"))


def registered(archive: Path, run_dir: Path) -> tuple[Registry, State]:
    """The registry of a run folder that serves the archive as its one version."""
    registry = Registry(run_dir / STATE_FOLDER / "embedded", "embedded")
    registry.prepare()
    state, _ = registry.adopt(archive, "1.0", 1)
    return registry, state


def test_a_start_brings_back_all_that_was_registered_and_can_be_loaded(
    serve: Serve, clip: bytes, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_dir = tmp_path_factory.mktemp("again")
    registry, state = registered(archive, run_dir)
    draft = run_dir / "draft.mar"
    state.versions["2.0"] = registry.place(renumbered(archive, draft, "2.0"), "2.0")
    state.versions["2.0"].workers = 2
    state.versions["3.0"] = registry.place(
        renumbered(archive, draft, "3.0", **{"hyperparams.yaml": b"not: a model"}), "3.0"
    )
    state.versions["4.0"] = registry.place(renumbered(archive, draft, "4.0"), "4.0")
    (registry.store / "embedded-4.0.mar").write_bytes(b"half of it")
    state.default, state.previous = "4.0", "2.0"
    state.canary = Canary(version="1.0", percent=50)
    registry.save(state)

    again = serve(RUN_DIR=str(run_dir), WORKERS="1")
    assert "embedded/4.0 is not served" in again.output
    assert "embedded/2.0 answers in place of 4.0" in again.output
    assert "ready: embedded/2.0" in again.output
    assert again.classify(clip).status_code == 200
    again.await_output("embedded/3.0 is not served")
    deadline = time.monotonic() + 60
    while registry.load().versions["3.0"].failed == "" or registry.load().canary is None:
        assert time.monotonic() < deadline, "the start does not come to its end"
        time.sleep(0.1)
    listed = make("models", f"RUN_DIR={run_dir}", "ARGS=list --json")
    facts = json.loads(listed.stdout)
    assert (facts["default"], facts["canary"]) == ("2.0", {"version": "1.0", "percent": 50.0})
    versions = {each["version"]: each for each in facts["versions"]}
    assert [versions[each]["workers_ready"] for each in ("1.0", "2.0", "3.0", "4.0")] == [
        1,
        2,
        0,
        0,
    ]
    assert "hyperparams.yaml" in versions["3.0"]["failed"]
    assert "damaged" in versions["4.0"]["failed"]
    ready = again.client.get("/readyz").json()
    assert (ready["status"], ready["version"]) == ("ready", "2.0")
    assert {each["version"]: each["workers"] for each in ready["versions"]} == {
        "1.0": 1,
        "2.0": 2,
        "3.0": 0,
        "4.0": 0,
    }
    answered = {again.classify(clip).headers["x-model"] for _ in range(40)}
    assert answered == {"embedded/1.0", "embedded/2.0"}
    again.close()


def test_a_clip_that_torchserve_loses_with_its_worker_is_scored_all_the_same(
    serve: Serve, clip: bytes, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with zipfile.ZipFile(archive) as content:
        config = yaml.safe_load(content.read(CONFIG_FILE))
    # TorchServe takes a clip from its queue, waits so many milliseconds for a second one, and
    # forgets the first if the worker dies meanwhile.
    config |= {"batchSize": 2, "maxBatchDelay": 4000}
    run_dir = tmp_path_factory.mktemp("lossy")
    registry, state = registered(archive, run_dir)
    changes = {CONFIG_FILE: yaml.safe_dump(config).encode()}
    lossy = renumbered(archive, run_dir / "draft.mar", "2.0", **changes)
    state.versions["2.0"] = registry.place(lossy, "2.0")
    state.default = "2.0"
    registry.save(state)
    service = serve(RUN_DIR=str(run_dir), WORKERS="1", AUREA_ASK_AGAIN_AFTER_S="3")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.classify, clip)
        time.sleep(1.5)
        service.workers()[0].kill()
        assert answer.result().status_code == 200
    assert answer.result().headers["x-model"] == "embedded/2.0"
    assert "put to TorchServe once more" in service.log("proxy.log")
    service.close()


def test_a_version_that_scores_otherwise_than_its_packager_is_taken_away_again(
    service: RunningService, clip: bytes, archive: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(archive) as content:
        reference = json.loads(content.read(REFERENCE_FILE))
    for each in reference["clips"]:
        for precision, score in each["us_confidence"].items():
            each["us_confidence"][precision] = abs(score - 20)
    wrong = renumbered(
        archive, tmp_path / "9.mar", "9.0", **{REFERENCE_FILE: json.dumps(reference).encode()}
    )
    refused = make("models", f"RUN_DIR={service.run_dir}", f"ARGS=register {wrong}", timeout_s=300)
    assert refused.returncode != 0
    assert "taken away again" in refused.stderr
    assert "and not" in refused.stderr
    assert service.classify(clip).headers["x-model"] == "embedded/1.0"
    listed = make("models", f"RUN_DIR={service.run_dir}", "ARGS=list --json")
    assert [each["version"] for each in json.loads(listed.stdout)["versions"]] == ["1.0"]
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_a_second_service_in_the_same_folder_is_refused(service: RunningService) -> None:
    second = make("serve", f"PORT={free_port()}", f"RUN_DIR={service.run_dir}", "MODEL=embedded")
    assert second.returncode != 0
    assert "make stop" in second.stderr
    assert service.client.get("/readyz").status_code == 200


def test_a_taken_port_is_named_with_what_to_do(service: RunningService, tmp_path: Path) -> None:
    second = make("serve", f"PORT={service.port}", f"RUN_DIR={tmp_path}", "MODEL=embedded")
    assert second.returncode != 0
    assert "make serve PORT=" in second.stderr


def test_make_stop_with_nothing_running_says_so(tmp_path: Path) -> None:
    stopped = make("stop", f"RUN_DIR={tmp_path}")
    assert stopped.returncode == 0
    assert "Nothing is being served" in stopped.stdout


def test_a_folder_that_is_no_model_is_refused_before_anything_starts(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    refused = make("serve", f"PORT={free_port()}", f"RUN_DIR={run_dir}", f"MODEL={tmp_path}")
    assert refused.returncode != 0
    assert "embedding_model.ckpt" in refused.stderr


def test_auto_without_a_hub_serves_the_embedded_model_and_says_so(
    serve: Serve, clip: bytes, tmp_path: Path
) -> None:
    dead_hub = f"http://127.0.0.1:{free_port()}"
    service = serve("auto", HUB_URL=dead_hub, MODEL_CACHE=str(tmp_path))
    assert "embedded model" in service.output
    assert "embedded model" in service.log("proxy.log")
    assert "embedded model" in service.client.get("/").json()["model"]["notice"]
    assert service.classify(clip).headers["x-model"].startswith("embedded/")
    service.close()


def test_a_named_model_never_falls_back(tmp_path: Path) -> None:
    dead_hub = f"http://127.0.0.1:{free_port()}"
    refused = make(
        "serve",
        "MODEL=commonaccent",
        f"HUB_URL={dead_hub}",
        f"MODEL_CACHE={tmp_path / 'cache'}",
        f"PORT={free_port()}",
        f"RUN_DIR={tmp_path / 'run'}",
    )
    assert refused.returncode != 0
    assert "7ffa5ac9c0ec21fd6677fa8a39b3b045f182236f5c312a8edca385dfa79e7e3c" in refused.stderr


def test_the_inference_socket_and_the_keys_are_closed_to_others(service: RunningService) -> None:
    assert service.run_dir.stat().st_mode & 0o077 == 0
    assert (service.run_dir / "torchserve").stat().st_mode & 0o077 == 0
    key_file = service.run_dir / "torchserve" / "key_file.json"
    assert key_file.stat().st_mode & 0o077 == 0
    for process in service.descendants():
        for connection in process.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in {"127.0.0.1", "::ffff:127.0.0.1"}
