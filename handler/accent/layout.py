"""The names of the files that a worker reads: a model's, and what packaging puts beside them."""

from typing import Final

EMBEDDING_FILE: Final = "embedding_model.ckpt"
CLASSIFIER_FILE: Final = "classifier.ckpt"
LABELS_FILE: Final = "accent_encoder.txt"
HYPERPARAMS_FILE: Final = "hyperparams.yaml"
MODEL_FILES: Final = (EMBEDDING_FILE, CLASSIFIER_FILE, LABELS_FILE, HYPERPARAMS_FILE)
"""A model in SpeechBrain's layout."""

ENGINES_FILE: Final = "engines.json"
"""The compiled engines of an archive, and what was measured of each."""

REFERENCE_FILE: Final = "reference.json"
"""The scores that an archive's reference clips must get."""

US_LABEL: Final = "us"
"""The label that every model must have."""
