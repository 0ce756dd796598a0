"""What the engines of a model are worth, on the speech that ships or on other labelled speech."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from accent.decode import decode
from accent.errors import ModelFolderError, Refusal
from accent.kinds import load_model
from accent.selection import EngineSettings
from pydantic_settings import CliPositionalArg

from aurea.archive.card import terminal_table
from aurea.archive.engines import engines_to_pack
from aurea.archive.graph_files import make_graphs
from aurea.archive.judging import judge
from aurea.archive.reference import SpeechClip, verification_speech
from aurea.command_line import CommandLine, read
from aurea.lab.corpus import read_clips
from aurea.models.choice import DEFAULT_CACHE, DEFAULT_EMBEDDED, ModelUnavailable, choose_model


class DeviationsOptions(CommandLine):
    """Judge the engines of a model by how far they stray from its reference."""

    model: CliPositionalArg[str]
    """auto, commonaccent, commonaccent-xlsr, embedded, embedded-ecapa or a folder"""

    data: Path | None = None
    """manifest of other speech to judge by than what ships"""


def speech_of(manifest: Path) -> list[SpeechClip]:
    """The clips of a manifest that can be decoded, named by their paths."""
    clips = []
    for clip in read_clips(manifest):
        try:
            clips.append(SpeechClip(str(clip.path), decode(clip.path.read_bytes()).waveform))
        except Refusal:
            continue
    return clips


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and print the engines with their deviations and speed."""
    options = read(DeviationsOptions, arguments)
    try:
        choice = choose_model(options.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
        model = load_model(choice.folder)
    except (ModelUnavailable, ModelFolderError) as error:
        raise SystemExit(str(error)) from None
    clips = speech_of(options.data) if options.data else verification_speech()
    with tempfile.TemporaryDirectory() as scratch:
        judgement = judge(model, make_graphs(model, Path(scratch)), clips)
    print(terminal_table(judgement, engines_to_pack(judgement, EngineSettings())))


if __name__ == "__main__":
    main()
