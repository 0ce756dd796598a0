"""Starting: what is brought back, what is refused, and with what word about why."""

import json
import time
from pathlib import Path

import psutil
import pytest
from accent.layout import REFERENCE_FILE

from aurea.versions.registry import STATE_FOLDER
from aurea.versions.state import Canary
from tests.e2e.archives import content, registered, renumbered
from tests.e2e.conftest import Serve
from tests.e2e.services import (
    Remains,
    RunningService,
    assert_said_in_order,
    free_port,
    make,
)


def test_a_start_brings_back_all_that_was_registered_and_can_be_loaded(
    serve: Serve, clip: bytes, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("again")
    run_dir, draft = folder / "run", folder / "draft.mar"
    registry, state = registered(archive, run_dir)
    state.versions["2.0"] = registry.place(renumbered(archive, draft, "2.0"), "2.0")
    state.versions["2.0"].workers = 2
    state.versions["3.0"] = registry.place(
        renumbered(archive, draft, "3.0", **{"hyperparams.yaml": b"not: a model"}), "3.0"
    )
    state.versions["4.0"] = registry.place(renumbered(archive, draft, "4.0"), "4.0")
    (registry.store / "embedded-ecapa-4.0.mar").write_bytes(b"half of it")
    state.default, state.previous = "4.0", "2.0"
    state.canary = Canary(version="1.0", percent=50)
    registry.save(state)

    again = serve(run_dir)
    assert "embedded-ecapa/4.0 is not served" in again.output
    assert "embedded-ecapa/2.0 answers in place of 4.0" in again.output
    assert "ready: embedded-ecapa/2.0" in again.output
    assert again.classify(clip).status_code == 200
    again.await_output("embedded-ecapa/3.0 is not served")
    deadline = time.monotonic() + 60
    while registry.load().versions["3.0"].failed == "" or registry.load().canary is None:
        assert time.monotonic() < deadline, "the start does not come to its end"
        time.sleep(0.1)
    listed = make("models", f"RUN_DIR={run_dir}", "ARGS=list --json")
    facts = json.loads(listed.stdout)
    assert (facts["default"], facts["canary"]) == ("2.0", {"version": "1.0", "percent": 50.0})
    versions = {each["version"]: each for each in facts["versions"]}
    ready_workers = {version: each["workers_ready"] for version, each in versions.items()}
    assert ready_workers == {"1.0": 1, "2.0": 2, "3.0": 0, "4.0": 0}
    assert "hyperparams.yaml" in versions["3.0"]["failed"]
    assert "damaged" in versions["4.0"]["failed"]
    ready = again.client.get("/readyz").json()
    assert (ready["status"], ready["version"]) == ("ready", "2.0")
    assert {each["version"]: each["workers"] for each in ready["versions"]} == ready_workers
    answered = {again.classify(clip).headers["x-model"] for _ in range(40)}
    assert answered == {"embedded-ecapa/1.0", "embedded-ecapa/2.0"}
    again.close()


def test_a_version_that_scores_otherwise_than_its_packager_is_taken_away_again(
    service: RunningService, clip: bytes, archive: Path, tmp_path: Path
) -> None:
    reference = json.loads(content(archive, REFERENCE_FILE))
    for each in reference["clips"]:
        for precision, score in each["us_confidence"].items():
            each["us_confidence"][precision] = abs(score - 20)
    changes = {REFERENCE_FILE: json.dumps(reference).encode()}
    wrong = renumbered(archive, tmp_path / "9.mar", "9.0", **changes)
    refused = make(
        "models",
        f"RUN_DIR={service.run_dir}",
        f"ARGS=register {wrong} --workers 1",
        timeout_s=300,
    )
    assert refused.returncode != 0
    assert "taken away again" in refused.stderr
    assert "and not" in refused.stderr
    assert service.classify(clip).headers["x-model"] == "embedded-ecapa/1.0"
    listed = make("models", f"RUN_DIR={service.run_dir}", "ARGS=list --json")
    assert [each["version"] for each in json.loads(listed.stdout)["versions"]] == ["1.0"]
    store = service.run_dir / STATE_FOLDER / "embedded-ecapa" / "store"
    assert [path.name for path in store.iterdir()] == ["embedded-ecapa-1.0.mar"]


def test_a_second_service_in_the_same_folder_is_refused(service: RunningService) -> None:
    second = make(
        "serve", f"PORT={free_port()}", f"RUN_DIR={service.run_dir}", "MODEL=embedded-ecapa"
    )
    assert second.returncode != 0
    assert "make stop" in second.stderr
    assert service.client.get("/readyz").status_code == 200


def test_a_taken_port_is_named_with_what_to_do(service: RunningService, tmp_path: Path) -> None:
    second = make("serve", f"PORT={service.port}", f"RUN_DIR={tmp_path}", "MODEL=embedded-ecapa")
    assert second.returncode != 0
    assert "make serve PORT=" in second.stderr


def test_make_stop_with_nothing_running_says_so(tmp_path: Path) -> None:
    stopped = make("stop", f"RUN_DIR={tmp_path}")
    assert stopped.returncode == 0
    assert "Nothing is being served" in stopped.stdout


@pytest.mark.parametrize("target", ["serve", "mar"])
def test_a_version_that_cannot_be_served_is_refused_before_anything_starts(
    tmp_path: Path, target: str
) -> None:
    started = time.monotonic()
    refused = make(
        target,
        "MODEL=embedded-ecapa",
        "VERSION=1.0+cpu",
        f"PORT={free_port()}",
        f"RUN_DIR={tmp_path / 'run'}",
    )
    assert refused.returncode != 0
    assert "'1.0+cpu' is no version" in refused.stderr
    assert "letters, digits, '.', '_' and '-' are taken" in refused.stderr
    assert not (tmp_path / "run").exists()
    assert time.monotonic() - started < 15


def test_a_folder_that_is_no_model_is_refused_before_anything_starts(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    refused = make("serve", f"PORT={free_port()}", f"RUN_DIR={run_dir}", f"MODEL={tmp_path}")
    assert refused.returncode != 0
    assert "embedding_model.ckpt" in refused.stderr


def test_auto_without_a_hub_serves_the_embedded_model_says_so_and_ends_by_make_stop(
    serve: Serve, clip: bytes, tmp_path: Path
) -> None:
    dead_hub = f"http://127.0.0.1:{free_port()}"
    service = serve(
        model="auto", hub_url=dead_hub, model_cache=str(tmp_path / "cache"), through_make=True
    )
    assert "embedded model" in service.output
    assert "embedded model" in service.log("proxy.log")
    assert "embedded model" in service.client.get("/").json()["model"]["notice"]
    assert service.classify(clip).headers["x-model"].startswith("embedded/")
    remains, started = Remains(service), time.monotonic()
    stopped = make("stop", f"RUN_DIR={service.run_dir}")
    assert (stopped.returncode, stopped.stdout.strip()) == (0, "Stopped."), stopped.stderr
    assert service.process.wait(20) == 0, service.output
    assert time.monotonic() - started < 10
    assert_said_in_order(service)
    remains.assert_gone()


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
    for process in [psutil.Process(service.process.pid), *service.descendants()]:
        for connection in process.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in {"127.0.0.1", "::ffff:127.0.0.1"}
