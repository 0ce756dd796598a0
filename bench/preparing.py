"""What a run needs before it can measure: a model, its archives, their graphs."""

import subprocess
import sys
from pathlib import Path

from accent.layout import ECAPA, layout_in, layouts_text
from tqdm import tqdm

from aurea.models.choice import DEFAULT_CACHE
from aurea.models.pinned import COMMONACCENT_FILES, REVISION
from aurea.models.stand_in import FULL_CHANNELS, SMALL_CHANNELS, write_stand_in
from aurea.paths import ROOT
from bench.contestants import build_archive, unpack
from bench.processes import environment
from bench.settings import BenchSettings


def choose_folder(settings: BenchSettings) -> tuple[Path, str]:
    """The model's folder, and a sentence on what it is.

    Raises `SystemExit` for a folder that holds no model.
    """
    if settings.quick:
        folder = write_stand_in(settings.kept / "models" / "tiny", channels=SMALL_CHANNELS)
        return folder, "a tiny stand-in with random weights: its figures mean nothing"
    if settings.model != "auto":
        folder = Path(settings.model).resolve()
        layout = layout_in(folder)
        if layout is None:
            raise SystemExit(f"{settings.model} holds no model: a model is {layouts_text()}.")
        if not computed_by_speechbrain(folder):
            return folder, (
                f"the model in {settings.model}, {layout.title}, which SpeechBrain, and so the "
                "original, does not compute"
            )
        return folder, f"the model in {settings.model}"
    cached = DEFAULT_CACHE / f"commonaccent-{REVISION[:12]}"
    if all((cached / pinned.name).is_file() for pinned in COMMONACCENT_FILES):
        return cached, "the pretrained model"
    labels = [f"accent-{index}" for index in range(15)] + ["us"]
    folder = write_stand_in(
        settings.kept / "models" / "stand-in",
        labels=labels,
        channels=FULL_CHANNELS,
        embedding_size=192,
    )
    return folder, (
        "a stand-in with seeded random weights at the pretrained model's width (that one is not "
        "in the cache): it costs the same time, and its scores mean nothing"
    )


def computed_by_speechbrain(folder: Path) -> bool:
    """Whether those that the service is compared with compute the model in `folder`."""
    return layout_in(folder) == ECAPA


def prepare_archives(settings: BenchSettings) -> None:
    """Build the archives of all precisions, so that a run has its time for measuring."""
    settings.kept.mkdir(parents=True, exist_ok=True)
    model, what = choose_folder(settings)
    say(f"Model: {what}")
    archive = unpack(build_archive(model), settings.kept / "archive")
    complete_archive(archive, settings.kept / "engines")
    for precision in tqdm(settings.precisions, desc="archives", unit="archive", disable=None):
        build_archive(model, precision)


def complete_archive(archive: Path, folder: Path) -> Path:
    """Have `folder` hold the archive with the graphs of every precision.

    Where graphs are no way to compute its kind of model, the archive is all there is.
    """
    if not computed_by_speechbrain(archive):
        return archive
    command = [sys.executable, "-m", "bench.graphs", str(archive), str(folder)]
    if subprocess.call(command, cwd=ROOT, env=environment()) != 0:
        say("NOTE: not every precision has a graph; what the archive has is compared.")
        return archive
    return folder


def say(text: str) -> None:
    """A step, for people."""
    tqdm.write(f"==> {text}")
    sys.stdout.flush()
