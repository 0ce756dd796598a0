"""A service whose TorchServe is played in memory, over a registry on disk."""

import json
import zipfile
from pathlib import Path
from typing import Any

from accent.layout import REFERENCE_FILE

from aurea.archive.layout import MANIFEST_FILE
from aurea.archive.repacking import repack
from aurea.paths import HANDLER
from aurea.torchserve.addresses import Addresses
from aurea.torchserve.answers import RegisteredVersion
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError, NotRegistered
from aurea.versions.lifecycle import Lifecycle
from aurea.versions.registry import Registry
from aurea.versions.state import State

LABELS = "'us' => 0\n'england' => 1\n================\n'starting_index' => 0\n"
SCORES = {"1.0": 20.0, "2.0": 70.0, "3.0": 90.0}
CODE = {code.relative_to(HANDLER).as_posix(): code.read_bytes() for code in HANDLER.rglob("*.py")}
SETTINGS = (HANDLER / "model-config.yaml").read_text()
LIMITS = {"max_audio_s": 300.0, "min_audio_s": 0.5}


class Played(TorchServe):
    """TorchServe's versions in memory. Workers are ready at once, unless a test says not."""

    def __init__(self) -> None:
        self.workers: dict[str, list[str]] = {}
        self.archives: dict[str, str] = {}
        self.answering = ""
        self.never_ready: set[str] = set()
        self.scores = dict(SCORES)
        self.steps: list[str] = []

    def versions(self) -> dict[str, RegisteredVersion]:
        return {version: self.version(version) for version in self.workers}

    def version(self, version: str) -> RegisteredVersion:
        if version not in self.workers:
            raise NotRegistered(version)
        return RegisteredVersion.model_validate(
            {
                "modelVersion": version,
                "modelUrl": self.archives[version],
                "minWorkers": len(self.workers[version]),
                "batchSize": 2,
                "workers": [
                    {"id": str(index), "status": status, "pid": -1}
                    for index, status in enumerate(self.workers[version])
                ],
            }
        )

    def default(self) -> RegisteredVersion:
        return self.version(self.answering)

    def register(self, archive_name: str, **batching: int) -> None:
        assert not batching, "there is no GPU"
        version = archive_name.removeprefix("small-").removesuffix(".mar").partition("~")[0]
        self.steps.append(f"register {version}")
        self.workers[version], self.archives[version] = [], archive_name
        self.answering = self.answering or version

    def unregister(self, version: str) -> None:
        self.steps.append(f"unregister {version}")
        if version == self.answering:
            raise ManagementError("Cannot remove default version")
        if version not in self.workers:
            raise NotRegistered(version)
        del self.workers[version]

    def set_default(self, version: str) -> None:
        self.steps.append(f"default {version}")
        self.version(version)
        self.answering = version

    def ask_workers(self, version: str, count: int) -> None:
        self.steps.append(f"workers {version} {count}")
        ready = len(self.workers[version])
        status = "UNLOADING" if version in self.never_ready else "READY"
        self.workers[version] = (self.workers[version] + [status] * (count - ready))[:count]

    def predict(self, audio: bytes, version: str | None = None) -> dict[str, Any]:
        version = version or self.answering
        assert audio == b"speech"
        score = self.scores[version]
        return {
            "us_confidence": score,
            "accents": [
                {"label": "us", "score": score / 100},
                {"label": "england", "score": 1 - score / 100},
            ],
            "model": {"name": "small", "version": version},
        }


class Service:
    """A run folder in which version 1.0 answers with two workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.torchserve = Played()
        self.free_bytes = 100_000_000_000
        self.registry = Registry(folder / "state", "small")
        self.registry.prepare()
        self.progress: list[tuple[str, int, int]] = []
        state, _ = self.registry.adopt(self.archive("1.0"), "1.0", 2)
        self.registry.save(state)
        self.torchserve.register("small-1.0.mar")
        self.torchserve.ask_workers("1.0", 2)
        self.torchserve.steps.clear()
        self.lifecycle = Lifecycle(
            self.torchserve,
            self.registry,
            Addresses(
                model_name="small",
                management_url="",
                metrics_url="",
                inference_socket=folder,
                key_file=folder,
                proxy_url="http://here",
                proxy_metrics_url="",
                cores=4,
                threads_per_worker=1,
            ),
            model_log=folder / "model.log",
            timeout_s=0.3,
            progress=lambda what, done, total: self.progress.append((what, done, total)),
            on_wait=lambda: None,
            free_bytes=lambda: self.free_bytes,
        )

    @property
    def state(self) -> State:
        return self.registry.load()

    @property
    def routing(self) -> Any:
        return json.loads(self.registry.routing_file.read_text())

    @property
    def stored(self) -> set[str]:
        """The names of all files in the model store."""
        return {path.name for path in self.registry.store.iterdir()}

    def archive(
        self,
        version: str,
        *,
        measured: float | None = None,
        name: str = "small",
        settings: str | None = None,
    ) -> Path:
        """An archive as `make mar` builds it, whose packager measured `measured`."""
        reference = {
            "clips": [
                {
                    "file": "one.ogg",
                    "us_confidence": {"fp32": measured or SCORES[version], "int8": 0.0},
                    "top_accent": "us" if SCORES[version] > 50 else "england",
                }
            ],
            "tolerance_points": {"fp32": 0.5, "int8": 1.0},
        }
        model = {"modelName": name, "modelVersion": version, "handler": "accent_handler.py"}
        path, draft = self.folder / f"{version}.mar", self.folder / "draft"
        path.unlink(missing_ok=True)
        with zipfile.ZipFile(draft, "w") as content:

            def put(file_name: str, data: bytes | str) -> None:
                content.writestr(file_name, data)

            for each in ("embedding_model.ckpt", "classifier.ckpt", "hyperparams.yaml"):
                put(each, b"weights")
            for file_name, code in CODE.items():
                put(file_name, code)
            put("model-config.yaml", settings or SETTINGS)
            put("accent_encoder.txt", LABELS)
            put(MANIFEST_FILE, json.dumps({"model": model}))
            put(REFERENCE_FILE, json.dumps(reference))
            put("reference/one.ogg", b"speech")
        repack(draft, path)
        return path

    def registered(self, *versions: str) -> None:
        for version in versions:
            self.lifecycle.register(self.archive(version))
        self.torchserve.steps.clear()


def assert_only_the_first_is_left(service: Service) -> None:
    assert list(service.torchserve.workers) == ["1.0"]
    assert list(service.state.versions) == ["1.0"]
    assert service.stored == {"small-1.0.mar"}


def started(registry: Registry, archive: Path, *versions: str, workers: int = 0) -> State:
    """A registry that has seen `versions` become the default, one after the other."""
    state = State()
    for version in versions:
        state, _ = registry.adopt(archive, version, workers)
        registry.save(state)
    return state
