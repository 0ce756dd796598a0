"""The document of `POST /v1/accent`, and how it is made of what the handler says."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from aurea.torchserve.answers import Accent, TimelineScore, WholeScore
from proxy.answer.bands import BandId, CertaintyId, band_of, certainty_of
from proxy.answer.language import DEFAULT, Language
from proxy.answer.words import Words, words

SCHEMA_VERSION: Final = "1.0"
"""The second number grows with each field that is added, the first one where one changes."""

AdviceId = Literal[
    "too_quiet",
    "clipped",
    "noisy",
    "little_speech",
    "silent_channel",
    "channels_cancel",
    "long_silence",
    "music",
]

_Score = Field(ge=0, le=100, description="How much it sounds like US English, in percent.")


class BandDocument(BaseModel):
    """What the number means in a word."""

    id: BandId
    label: str = Field(examples=["Close to US English"])
    meaning: str


class RangeDocument(BaseModel):
    """Between which scores a recording and its parts lie."""

    low: float = _Score
    high: float = _Score


class AccentDocument(BaseModel):
    """One accent that the model knows."""

    label: str = Field(description="Stable.", examples=["us"])
    name: str = Field(description="For people.", examples=["US English"])
    score: float = Field(ge=0, le=1, description="Its probability; all of them are 1 in sum.")


class CertaintyDocument(BaseModel):
    """How clearly one accent stands out."""

    id: CertaintyId
    message: str


class TimelineDocument(BaseModel):
    """A short part of the clip, scored by itself. Seconds are into the clip."""

    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)
    us_confidence: float = _Score
    accent: AccentDocument = Field(description="The best one.")


class AdviceDocument(BaseModel):
    """What is wrong with the recording, and the remedy."""

    id: AdviceId
    message: str


class AudioDocument(BaseModel):
    """What was found in the file."""

    duration_s: float = Field(ge=0)
    speech_s: float = Field(ge=0, description="Seconds of speech in it.")
    scored_s: float = Field(ge=0, description="Seconds that were scored: speech with its margins.")
    sample_rate_hz: int = Field(gt=0)
    channels: int = Field(gt=0)
    codec: str = Field(examples=["opus"])
    peak_dbfs: float = Field(description="Largest sample, in dB of full scale.")
    level_dbfs: float = Field(description="Level of the speech, RMS in dB of full scale.")
    advice: list[AdviceDocument] = Field(description="Worst first; empty where all is well.")


class ModelDocument(BaseModel):
    """Which model says so."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    version: str
    kind: str = Field(examples=["ecapa"])
    labels: list[str]
    scale: float = Field(description="Factor on its evidence before the softmax.")
    worth: str = Field(description="How well it judges, from its card.")
    notice: str = Field(description="What to know about it, such as being a fallback, or empty.")


class WholeAnswer(BaseModel):
    """Everything there is to say of a clip. `range` and `timeline` come only where asked for."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    us_confidence: float = Field(ge=0, le=100, description="As `POST /classify-us-accent` has it.")
    band: BandDocument
    range: RangeDocument | None = None
    accents: list[AccentDocument] = Field(description="All that the model knows, best first.")
    certainty: CertaintyDocument
    timeline: list[TimelineDocument] | None = None
    audio: AudioDocument
    model: ModelDocument


def whole_answer(score: WholeScore, language: Language, notice: str) -> WholeAnswer:
    """The document of a score in the words of a language."""
    told = words(language)
    band, certainty = (
        band_of(score.us_confidence),
        certainty_of([each.score for each in score.accents]),
    )
    # The whole lies outside of its parts at times: a window is scored by itself.
    points = [score.us_confidence, *(each.us_confidence for each in score.timeline or ())]
    worth = score.model.worth
    return WholeAnswer(
        us_confidence=score.us_confidence,
        band=BandDocument(id=band, **told.bands[band].model_dump()),
        range=RangeDocument(low=min(points), high=max(points)) if len(points) > 2 else None,
        accents=[_accent(each, told) for each in score.accents],
        certainty=CertaintyDocument(id=certainty, message=told.certainty[certainty]),
        timeline=None
        if score.timeline is None
        else [_window(each, told) for each in score.timeline],
        audio=AudioDocument(
            **score.audio.model_dump(exclude={"advice"}),
            advice=[
                AdviceDocument(id=each, message=told.advice[each])  # type: ignore[arg-type]
                for each in score.audio.advice
                if each in told.advice
            ],
        ),
        model=ModelDocument(
            **score.model.model_dump(exclude={"worth"}),
            worth=worth.get(language) or worth.get(DEFAULT) or told.unknown_worth,
            notice=notice,
        ),
    )


def _window(window: TimelineScore, told: Words) -> TimelineDocument:
    return TimelineDocument(
        start_s=window.start_s,
        end_s=window.end_s,
        us_confidence=window.us_confidence,
        accent=_accent(window.accent, told),
    )


def _accent(accent: Accent, told: Words) -> AccentDocument:
    return AccentDocument(label=accent.label, name=told.accent(accent.label), score=accent.score)
