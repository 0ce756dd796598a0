"""Ray Serve, set up as its documentation does for a model on CPUs: a replica a worker."""

import signal
from pathlib import Path

import ray
from ray import serve
from starlette.requests import Request

from aurea.command_line import CommandLine, read
from bench.rivals.scorers import Kind, open_scorer

_OBJECT_STORE_BYTES = 100_000_000


class AccentReplica:
    """Loads in its constructor, as the documentation's examples do."""

    def __init__(self, kind: Kind, folder: str, threads: int) -> None:
        self._score = open_scorer(kind, Path(folder), threads=threads)

    async def __call__(self, request: Request) -> dict[str, float]:
        """The contract's document for an upload."""
        async with request.form() as form:
            upload = form["file"]
            if isinstance(upload, str):
                raise TypeError("the field file is no file")
            data = await upload.read()
        return {"us_confidence": round(self._score(data), 1)}


class RayOptions(CommandLine):
    """Serve a model on a port of 127.0.0.1 by Ray Serve."""

    kind: Kind
    """Whose model: SpeechBrain's, or our engine's."""

    model: str
    """Folder of the model, or of the unpacked archive."""

    port: int
    """Port of 127.0.0.1."""

    workers: int
    """Replicas."""

    threads: int
    """Threads of each."""

    scratch: str
    """A folder with a short path: sockets lie there."""


def main() -> None:
    """Serve a model on a port of 127.0.0.1 with so many replicas."""
    options = read(RayOptions)
    ray.init(
        num_cpus=options.workers * options.threads,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=options.scratch,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    replica = serve.deployment(AccentReplica).options(
        num_replicas=options.workers,
        ray_actor_options={"num_cpus": options.threads},
        # A replica computes one clip at a time; what waits for it could as well be taken by
        # another.
        max_ongoing_requests=2,
    )
    serve.run(
        replica.bind(options.kind, options.model, options.threads),
        route_prefix="/classify-us-accent",
    )
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    main()
