"""Where the project's own files lie."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
HANDLER: Final = ROOT / "handler"
MODEL_STORE: Final = ROOT / "model_store"
DEPLOY: Final = ROOT / "deploy"
