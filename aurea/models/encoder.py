"""The encoder of the model that ships, fetched from its package and put beside its probe.

It is not copied into the repository: set-up takes it from the package index, where its authors
publish it, by its hash.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

from accent.layout import ENCODER_FILE, PROBE

from aurea.files import sha256_of, whole_file
from aurea.models.packages import PackagedFile, PackageUnavailable, fetch
from aurea.paths import MODEL_STORE

ENCODER: Final = PackagedFile(
    "pypi",
    "moonshine-voice",
    "0.0.49",
    "moonshine_voice/assets/tiny-en/encoder_model.ort",
    "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
)
"""Of Moonshine tiny (Jeffries et al., 2024), whose English models are under the MIT licence."""


def place_encoder(folder: Path) -> None:
    """Have the encoder lie in the model folder of a probe, checked; fetch it if need be.

    Raises `PackageUnavailable` or `OSError`.
    """
    target = folder / ENCODER_FILE
    if target.is_file() and sha256_of(target) == ENCODER.sha256:
        return
    (source,) = fetch([ENCODER])
    with whole_file(target) as part:
        shutil.copyfile(source, part)


def main() -> None:
    """Put the encoder beside every probe that ships."""
    for mark in sorted(MODEL_STORE.glob(f"*/{PROBE.mark}")):
        try:
            place_encoder(mark.parent)
        except (PackageUnavailable, OSError) as error:
            # The other models can be served without it, and a start tries again.
            print(f"The encoder of {mark.parent.name} could not be had: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
