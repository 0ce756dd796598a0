"""`make mar`: from a model to model_store/NAME.mar."""

import sys
from collections.abc import Sequence

from pydantic_settings import CliPositionalArg

from aurea.archive.build import PackagingError, package
from aurea.command_line import CommandLine, read
from aurea.models.choice import (
    DEFAULT_CACHE,
    DEFAULT_EMBEDDED,
    ModelUnavailable,
    choose_model,
)
from aurea.paths import ROOT


class PackagingOptions(CommandLine):
    """Build model_store/NAME.mar: the handler, the core, a model and their settings."""

    model: CliPositionalArg[str]
    """auto, commonaccent, embedded or a folder"""

    name: str = ""
    """name of the archive; the model's by default"""

    version: str = "1.0"
    """version it is registered as"""

    engine: str = ""
    """auto, torch or openvino"""

    precision: str = ""
    """auto, fp32, bf16 or int8"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, package and say what became of it."""
    options = read(PackagingOptions, arguments)
    try:
        choice = choose_model(options.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
        archive = package(
            choice.folder,
            name=options.name or choice.name,
            version=options.version,
            engine=options.engine,
            precision=options.precision,
        )
    except (ModelUnavailable, PackagingError) as error:
        sys.exit(f"{error}")
    if choice.notice:
        print(choice.notice)
    if archive.report:
        print(archive.report)
    state = "built" if archive.rebuilt else "up to date"
    print(f"{archive.path.relative_to(ROOT)} ({archive.name} {archive.version}): {state}")


if __name__ == "__main__":
    main()
