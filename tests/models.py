"""Stand-in models of the tests."""

from pathlib import Path

from aurea.models.stand_in import FULL_CHANNELS, HYPERPARAMS, SMALL_CHANNELS, write_stand_in

__all__ = ["HYPERPARAMS", "REAL_HEAD", "SHARED", "SMALL_CHANNELS", "write_stand_in"]

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL_HEAD = SHARED / "model" / "commonaccent-ecapa"


def write_full_width_stand_in(folder: Path, *, seed: int = 0) -> Path:
    """The pretrained model's width with seeded weights under the real head and labels.

    Needs `REAL_HEAD`; the caller skips where that is absent.
    """
    labels = [f"accent-{index}" for index in range(15)] + ["us"]
    write_stand_in(folder, labels=labels, channels=FULL_CHANNELS, embedding_size=192, seed=seed)
    for name in ("classifier.ckpt", "accent_encoder.txt"):
        (folder / name).write_bytes((REAL_HEAD / name).read_bytes())
    return folder
