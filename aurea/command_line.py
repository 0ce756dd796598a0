"""Settings classes as command lines: each field is an option, told once with its default."""

import sys
from collections.abc import Sequence
from typing import TypeVar, get_origin

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

_Settings = TypeVar("_Settings", bound=BaseSettings)


class CommandLine(BaseSettings):
    """What a command is told. The docstring under a field is its line of help.

    Options are named as the fields are, with hyphens. Nothing is read from the environment.
    """

    model_config = SettingsConfigDict(
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_enforce_required=True,
        extra="forbid",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the command was told counts."""
        return (init_settings,)


def read(settings: type[_Settings], arguments: Sequence[str] | None = None) -> _Settings:
    """The settings that a command line tells; ends the process with a message and status 2
    where it tells nonsense, and with 0 after `--help`.
    """
    told = sys.argv[1:] if arguments is None else arguments
    try:
        return CliApp.run(settings, cli_args=_one_option_a_value(settings, told))
    except ValidationError as error:
        for fault in error.errors():
            place = ".".join(str(part) for part in fault["loc"]).replace("_", "-")
            message = fault["msg"].removeprefix("Value error, ")
            print(f"--{place}: {message}", file=sys.stderr)
        sys.exit(2)


def _one_option_a_value(settings: type[BaseSettings], told: Sequence[str]) -> list[str]:
    """`--data a b` as `--data a --data b`, for options that take several values."""
    several = {
        "--" + name.replace("_", "-")
        for name, field in settings.model_fields.items()
        if get_origin(field.annotation) is list
    }
    spelt_out: list[str] = []
    option = ""
    for place, word in enumerate(told):
        if not word.startswith("-"):
            spelt_out += [option, word] if option else [word]
            continue
        has_value = place + 1 < len(told) and not told[place + 1].startswith("-")
        option = word if word in several and has_value else ""
        if not option:
            spelt_out.append(word)
    return spelt_out
