"""The public contract over HTTP. Knows TorchServe by HTTP alone, and nothing of audio."""

from typing import Final

VERSION: Final = "0.1.0"
"""Of the project, as pyproject.toml says."""
