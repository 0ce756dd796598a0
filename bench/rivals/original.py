"""The original's design, written anew: the whole work inside `async def`, by way of the disk."""

import os
import tempfile
from pathlib import Path

import uvicorn
from fastapi import FastAPI, File, UploadFile

from aurea.command_line import CommandLine, read
from bench.rivals.speechbrain_model import SpeechBrainModel


def create_app(model: SpeechBrainModel) -> FastAPI:
    """One route that stores the upload, has it classified, and deletes it."""
    app = FastAPI()

    @app.post("/classify-us-accent")
    async def classify_us_accent(file: UploadFile = File(...)) -> dict[str, float]:  # noqa: B008
        suffix = Path(file.filename or "clip.wav").suffix
        with tempfile.NamedTemporaryFile(delete=False, suffix=suffix) as temporary:
            temporary.write(await file.read())
        try:
            return {"us_confidence": round(model.classify_file(temporary.name), 1)}
        finally:
            os.remove(temporary.name)  # noqa: PTH107 - as the original does

    return app


class OriginalOptions(CommandLine):
    """Serve a model on a port of 127.0.0.1 as the original does."""

    model: Path
    """Folder of the model."""

    port: int
    """Port of 127.0.0.1."""


def main() -> None:
    """Serve a model on a port of 127.0.0.1."""
    options = read(OriginalOptions)
    app = create_app(SpeechBrainModel(options.model, Path.cwd() / "savedir"))
    uvicorn.run(app, host="127.0.0.1", port=options.port)


if __name__ == "__main__":
    main()
