"""Ray Serve, set up as its documentation does for a model on CPUs: a replica a worker."""

import argparse
import signal
from pathlib import Path

import ray
from ray import serve
from starlette.requests import Request

from bench.rivals.scorers import KINDS, open_scorer

_OBJECT_STORE_BYTES = 100_000_000


class AccentReplica:
    """Loads in its constructor, as the documentation's examples do."""

    def __init__(self, kind: str, folder: str, threads: int) -> None:
        self._score = open_scorer(kind, Path(folder), threads=threads)

    async def __call__(self, request: Request) -> dict[str, float]:
        """The contract's document for an upload."""
        async with request.form() as form:
            upload = form["file"]
            if isinstance(upload, str):
                raise TypeError("the field file is no file")
            data = await upload.read()
        return {"us_confidence": round(self._score(data), 1)}


def main() -> None:
    """Serve a model on a port of 127.0.0.1 with so many replicas."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--scratch", required=True, help="a short path: sockets lie there")
    arguments = parser.parse_args()
    ray.init(
        num_cpus=arguments.workers * arguments.threads,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=arguments.scratch,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
    replica = serve.deployment(AccentReplica).options(
        num_replicas=arguments.workers,
        ray_actor_options={"num_cpus": arguments.threads},
        # A replica computes one clip at a time; what waits for it could as well be taken by
        # another.
        max_ongoing_requests=2,
    )
    serve.run(
        replica.bind(arguments.kind, arguments.model, arguments.threads),
        route_prefix="/classify-us-accent",
    )
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    main()
