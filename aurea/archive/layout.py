"""The names in an archive that only packaging and vetting know.

What a worker reads is named in `accent.layout`.
"""

from typing import Final

CORE_FOLDER: Final = "accent"
HANDLER_FILE: Final = "accent_handler.py"
METRICS_FILE: Final = "accent_metrics.py"

CONFIG_FILE: Final = "model-config.yaml"
"""The settings of TorchServe, of the handler and of the core."""

MANIFEST_FILE: Final = "MAR-INF/MANIFEST.json"
"""What TorchServe reads first: the model's name and version, and what it is to run."""

PROVENANCE_FILE: Final = "provenance.json"
"""The digest of all that an archive was built from."""

CARD_FILE: Final = "README.md"
"""The model's card; in an archive it ends with a section on precision."""

CALIBRATION_FILE: Final = "calibration.json"
"""What a model's softmax scale rests on; `make calibrate` writes it into the model's folder."""

REFERENCE_FOLDER: Final = "reference"
"""The clips that `accent.layout.REFERENCE_FILE` has the scores of."""
