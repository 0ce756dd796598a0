"""Every word of the whole answer and of problems, by language. Ids never change, words may."""

from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from proxy.answer.language import Language

FOLDER: Final = Path(__file__).with_name("words")


class Band(BaseModel):
    """A band's name and its meaning in a sentence."""

    label: str
    meaning: str


class Words(BaseModel):
    """All words of one language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bands: dict[str, Band]
    certainty: dict[str, str]
    advice: dict[str, str]
    accents: dict[str, str]
    unknown_worth: str
    titles: dict[int, str]
    problems: dict[str, str]

    def accent(self, label: str) -> str:
        """A label's name for people; one that is not known is shown as it is, in capitals."""
        return self.accents.get(label) or label.replace("_", " ").replace("-", " ").title()


@cache
def words(language: Language) -> Words:
    """The words of a language, read once."""
    return Words.model_validate_json((FOLDER / f"{language}.json").read_bytes())
