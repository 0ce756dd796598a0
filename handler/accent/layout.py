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

WAV2VEC2_FILE: Final = "wav2vec2.ckpt"
WAV2VEC2_HEAD_FILE: Final = "model.ckpt"
WAV2VEC2_LABELS_FILE: Final = "label_encoder.txt"


@dataclass(frozen=True)
class Layout:
    """The files of a kind of model."""

    kind: str
    title: str
    """What it is, for people."""

    files: tuple[str, ...]
    """All that a folder of it holds."""

    mark: str
    """The file that tells it from the kinds after it."""

    labels: str
    """The file with the labels."""

    settings: str
    """The file that describes the network and has the calibration; the others are weights."""

    on_gpu: bool = False
    """Whether a GPU computes it, where there is one."""


ECAPA: Final = Layout(
    "ecapa",
    "an ECAPA-TDNN in SpeechBrain's layout",
    (EMBEDDING_FILE, CLASSIFIER_FILE, LABELS_FILE, HYPERPARAMS_FILE),
    mark=HYPERPARAMS_FILE,
    labels=LABELS_FILE,
    settings=HYPERPARAMS_FILE,
    on_gpu=True,
)
PROBE: Final = Layout(
    "probe",
    "a speech encoder with a probe",
    (ENCODER_FILE, PROBE_WEIGHTS_FILE, LABELS_FILE, PROBE_FILE),
    mark=PROBE_FILE,
    labels=LABELS_FILE,
    settings=PROBE_FILE,
)
WAV2VEC2: Final = Layout(
    "wav2vec2",
    "a wav2vec 2.0 in SpeechBrain's layout",
    (WAV2VEC2_FILE, WAV2VEC2_HEAD_FILE, WAV2VEC2_LABELS_FILE, HYPERPARAMS_FILE),
    mark=WAV2VEC2_FILE,
    labels=WAV2VEC2_LABELS_FILE,
    settings=HYPERPARAMS_FILE,
    on_gpu=True,
)
LAYOUTS: Final = (WAV2VEC2, ECAPA, PROBE)
"""In the order in which they are looked for: an ECAPA-TDNN's mark is in a wav2vec 2.0 too."""


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
