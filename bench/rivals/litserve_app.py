"""LitServe, set up as its documentation does for a form with a file on CPUs."""

from pathlib import Path

import litserve

from aurea.command_line import CommandLine, read
from bench.rivals.scorers import Kind, open_scorer


class AccentApi(litserve.LitAPI):  # type: ignore[misc] # LitServe is not where this is checked
    """A worker: loads in `setup`, answers one upload at a time."""

    def __init__(self, kind: Kind, folder: Path, threads: int) -> None:
        super().__init__(api_path="/classify-us-accent")
        self._kind, self._folder, self._threads = kind, folder, threads

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load what is served, once a worker."""
        self._score = open_scorer(self._kind, self._folder, threads=self._threads)

    def decode_request(self, request: litserve.Request) -> bytes:
        """The upload of a parsed form."""
        return bytes(request["file"].file.read())

    def predict(self, data: bytes) -> float:
        """Encoded audio -> us_confidence."""
        return self._score(data)

    def encode_response(self, score: float) -> dict[str, float]:
        """The contract's document."""
        return {"us_confidence": round(score, 1)}


class LitServeOptions(CommandLine):
    """Serve a model on a port of 127.0.0.1 by LitServe."""

    kind: Kind
    """Whose model: SpeechBrain's, or our engine's."""

    model: Path
    """Folder of the model, or of the unpacked archive."""

    port: int
    """Port of 127.0.0.1."""

    workers: int
    """Processes that score."""

    threads: int
    """Threads of each."""


def main() -> None:
    """Serve a model on a port of 127.0.0.1 with so many workers."""
    options = read(LitServeOptions)
    server = litserve.LitServer(
        AccentApi(options.kind, options.model, options.threads),
        accelerator="cpu",
        workers_per_device=options.workers,
        timeout=120,
    )
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)


if __name__ == "__main__":
    main()
