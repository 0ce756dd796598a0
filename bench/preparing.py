"""What a run needs before it can measure: a model, its archives, their graphs."""

import subprocess
import sys
from pathlib import Path

from accent.layout import PROBE, WAV2VEC2, layout_in
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

    Raises `SystemExit` for a kind that there is nothing to compare with.
    """
    if settings.quick:
        folder = write_stand_in(settings.kept / "models" / "tiny", channels=SMALL_CHANNELS)
        return folder, "a tiny stand-in with random weights: its figures mean nothing"
    if settings.model != "auto":
        folder = Path(settings.model).resolve()
        layout = layout_in(folder)
        if layout in (PROBE, WAV2VEC2):
            raise SystemExit(
                f"{settings.model} is {layout.title}, which SpeechBrain and the other servers of "
                "the bench do not compute: name an ECAPA-TDNN, or look at its engines with "
                f"`.venv/bin/python -m aurea.lab.deviations {settings.model}`."
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
    """Have `folder` hold the archive with the graphs of every precision."""
    command = [sys.executable, "-m", "bench.graphs", str(archive), str(folder)]
    if subprocess.call(command, cwd=ROOT, env=environment()) != 0:
        say("NOTE: not every precision has a graph; what the archive has is compared.")
        return archive
    return folder


def say(text: str) -> None:
    """A step, for people."""
    tqdm.write(f"==> {text}")
    sys.stdout.flush()
