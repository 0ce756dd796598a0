"""A service that follows `versions.yaml`, from its start to a version that is no good."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from accent.layout import REFERENCE_FILE

from aurea.files import sha256_of
from tests.clips import encode, voice
from tests.e2e.archives import content, renumbered
from tests.e2e.services import RunningService, make

MODEL = "embedded-ecapa"
AGREED_S = 10.0


@pytest.mark.long
def test_replicas_follow_the_file_and_none_serves_what_is_no_good(
    archive: Path, running: list[RunningService], tmp_path: Path
) -> None:
    reference = json.loads(content(archive, REFERENCE_FILE))
    for clip in reference["clips"]:
        clip["us_confidence"] = {each: 99.0 for each in clip["us_confidence"]}
    archives = {
        "1.0": archive,
        "2.0": renumbered(archive, tmp_path / "2.0.mar", "2.0"),
        "3.0": renumbered(
            archive, tmp_path / "3.0.mar", "3.0", **{REFERENCE_FILE: json.dumps(reference).encode()}
        ),
    }
    file = tmp_path / "versions.yaml"

    def declare(default: str, *versions: str, **roles: Any) -> None:
        entries = {
            each: {
                "archive": str(archives[each]),
                "sha256": sha256_of(archives[each]),
                "workers": 1,
            }
            for each in versions
        }
        draft = tmp_path / "draft.yaml"
        draft.write_text(
            yaml.safe_dump({"model": MODEL, "default": default, "versions": entries, **roles})
        )
        draft.replace(file)

    def agree(seen: Callable[[dict[str, Any]], bool], within_s: float) -> None:
        """Wait until every replica is `seen` so; each must answer clips meanwhile."""
        deadline = time.monotonic() + within_s
        waiting = list(replicas)
        while waiting:
            assert all(each.classify(clip).status_code == 200 for each in replicas)
            waiting = [each for each in waiting if not seen(each.client.get("/readyz").json())]
            assert time.monotonic() < deadline, [each.output for each in waiting]

    clip = encode(voice(1.0, seed=1), 16_000, "flac")
    declare("1.0", "1.0")
    replicas: list[RunningService] = []
    for name in ("a", "b"):
        replicas.append(RunningService(tmp_path / name, versions=str(file)))
        running.append(replicas[-1])
    agree(lambda ready: ready["version"] == "1.0", AGREED_S)

    declare("1.0", "1.0", "2.0", canary={"version": "2.0", "percent": 50})
    # Two loads of a model on one machine take longer than what this is about.
    agree(lambda ready: (ready["canary"] or {}).get("version") == "2.0", 120)
    declare("2.0", "1.0", "2.0")
    agree(lambda ready: (ready["version"], ready["canary"]) == ("2.0", None), AGREED_S)
    declare("1.0", "1.0", "2.0")
    agree(lambda ready: ready["version"] == "1.0", AGREED_S)

    declare("3.0", "1.0", "3.0")
    for replica in replicas:
        replica.await_output("does not score the reference clips")
        ready = replica.client.get("/readyz").json()
        assert ready["version"] == "1.0"
        assert "3.0" not in [each["version"] for each in ready["versions"]]

    exported = tmp_path / "exported.yaml"
    done = make("models", f"RUN_DIR={replicas[0].run_dir}", f"ARGS=export {exported}")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(exported.read_text())["versions"]["1.0"]["sha256"] == sha256_of(archive)
    for replica in replicas:
        assert replica.stop() == 0
