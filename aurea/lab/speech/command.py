"""`make speech`: the command line of synthesis."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from accent.cores import available_cores
from pydantic import Field

from aurea.command_line import CommandLine, read
from aurea.lab.speech.synthesis import make_speech
from aurea.lab.speech.utterances import LICENCE
from aurea.models.packages import PackageUnavailable
from aurea.paths import ROOT

DEFAULT_OUT: Final = ROOT / ".cache" / "speech"
SENTENCES: Final = Path(__file__).with_name("sentences.txt")


class SpeechOptions(CommandLine):
    """Synthesise speech in several accents to train on."""

    out: Path = DEFAULT_OUT
    """Folder of the clips."""
    rounds: int = Field(default=4, ge=1)
    """How often all sentences are said, each in two accents."""
    jobs: int = Field(default_factory=available_cores, ge=1)
    """Processes that speak side by side."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and make speech."""
    options = read(SpeechOptions, arguments)
    sentences = [line for line in SENTENCES.read_text(encoding="utf-8").splitlines() if line]
    try:
        manifest = make_speech(options.out, options.rounds, options.jobs, sentences)
    except PackageUnavailable as error:
        raise SystemExit(str(error)) from None
    print(f"{manifest}: {2 * options.rounds * len(sentences)} clips, {LICENCE}")
