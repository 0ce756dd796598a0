"""The names of the files that a worker reads: a model's, and what packaging puts beside them.

Nothing here needs torch.
"""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EMBEDDING_FILE: Final = "embedding_model.ckpt"
CLASSIFIER_FILE: Final = "classifier.ckpt"
LABELS_FILE: Final = "accent_encoder.txt"
HYPERPARAMS_FILE: Final = "hyperparams.yaml"

ENCODER_FILE: Final = "encoder_model.ort"
PROBE_WEIGHTS_FILE: Final = "probe.ckpt"
PROBE_FILE: Final = "probe.json"


@dataclass(frozen=True)
class Layout:
    """The files of a kind of model."""

    kind: str
    title: str
    """What it is, for people."""

    files: tuple[str, ...]
    """All that a folder of it holds; the last is in no other kind's."""

    on_gpu: bool = False
    """Whether a GPU computes it, where there is one."""

    @property
    def mark(self) -> str:
        """The file that only this kind has."""
        return self.files[-1]


ECAPA: Final = Layout(
    "ecapa",
    "an ECAPA-TDNN in SpeechBrain's layout",
    (EMBEDDING_FILE, CLASSIFIER_FILE, LABELS_FILE, HYPERPARAMS_FILE),
    on_gpu=True,
)
PROBE: Final = Layout(
    "probe",
    "a speech encoder with a probe",
    (ENCODER_FILE, PROBE_WEIGHTS_FILE, LABELS_FILE, PROBE_FILE),
)
LAYOUTS: Final = (ECAPA, PROBE)


def layout_of(names: Container[str]) -> Layout | None:
    """The layout of a folder or an archive with files of these `names`; None for none."""
    return next((layout for layout in LAYOUTS if layout.mark in names), None)


def layout_in(folder: Path) -> Layout | None:
    """The layout of the model in `folder`; None for none."""
    return layout_of({path.name for path in folder.glob("*") if path.is_file()})


def layouts_text() -> str:
    """What a model may consist of, for people."""
    return " or ".join(f"{layout.title} ({', '.join(layout.files)})" for layout in LAYOUTS)


ENGINES_FILE: Final = "engines.json"
"""The compiled engines of an archive, and what was measured of each."""

REFERENCE_FILE: Final = "reference.json"
"""The scores that an archive's reference clips must get."""

WORTH_FILE: Final = "worth.json"
"""What a model is worth in a sentence or two, by language; a folder may lack it."""

US_LABEL: Final = "us"
"""The label that every model must have."""
