"""Who says what: a plan of utterances that depends on nothing but its seeds.

A voice blended from others says the same words in two accents, so that what differs is the
accent and not the speaker.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

KIND: Final = "kokoro"
LICENCE: Final = "Apache-2.0 (Kokoro-82M)"

# espeak-ng's voices, the label that each stands for, and how often it is drawn.
US_VARIETY: Final = "en-us"
BRITISH_VARIETIES: Final[Mapping[str, tuple[str, float]]] = {
    "en-gb": ("england", 0.36),
    "en-gb-x-rp": ("england", 0.26),
    "en-gb-x-gbclan": ("england", 0.13),
    "en-gb-x-gbcwmd": ("england", 0.10),
    "en-gb-scotland": ("scotland", 0.15),
}


@dataclass(frozen=True)
class Utterance:
    """One clip to be spoken: `voice` is a blend as `first*share+second`, `speed` a factor."""

    file_name: str
    sentence: str
    accent: str
    variety: str
    voice: str
    first: str
    second: str
    share: float
    speed: float

    @property
    def row(self) -> dict[str, str]:
        """The clip's line in the manifest."""
        return {
            "path": self.file_name,
            "accent": self.accent,
            "speaker": f"{self.voice} {self.variety}",
            "kind": KIND,
            "licence": LICENCE,
        }


def utterances(rounds: int, sentences: Sequence[str], voices: Sequence[str]) -> Iterator[Utterance]:
    """Two clips of each sentence in each round, one American and one British.

    In half of the pairs one blended voice says both; in the others each is a blend of voices
    of its own country. Foreign voices are never more than half of a blend.
    """
    american = [name for name in voices if name.startswith("a")]
    british = [name for name in voices if name.startswith("b")]
    foreign = [name for name in voices if name[0] not in "ab"]
    varieties = list(BRITISH_VARIETIES)
    chances = [chance for _, chance in BRITISH_VARIETIES.values()]
    for number in range(rounds):
        for index in np.random.default_rng(number).permutation(len(sentences)).tolist():
            rng = np.random.default_rng((number, index))
            variety = str(rng.choice(varieties, p=chances))
            if rng.uniform() < 0.5:
                blends = [_blend(rng, american + british, foreign)] * 2
            else:
                blends = [_blend(rng, american, foreign), _blend(rng, british, british)]
            speed = float(rng.uniform(0.9, 1.25))
            for spoken, (first, second, share) in zip((US_VARIETY, variety), blends, strict=True):
                yield Utterance(
                    file_name=f"r{number}_{index}_{spoken}.flac",
                    sentence=sentences[index],
                    accent="us" if spoken == US_VARIETY else BRITISH_VARIETIES[spoken][0],
                    variety=spoken,
                    voice=f"{first}*{share:.2f}+{second}",
                    first=first,
                    second=second,
                    share=share,
                    speed=speed,
                )


def _blend(
    rng: np.random.Generator, pool: Sequence[str], others: Sequence[str]
) -> tuple[str, str, float]:
    first = str(rng.choice(pool))
    second = str(rng.choice([*pool, *others]))
    return first, second, float(rng.uniform(0.5, 1.0))
