"""TorchServe's answers as typed models, and what its statuses mean."""

import json
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import httpx
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

_MAX_MESSAGE_CHARS: Final = 300

HeaderWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
"""The name or the version of a model: fit for a header, an address and a label."""

FaultKind = Literal[
    "lost",  # the batch failed as a whole, whatever the clip
    "unavailable",  # the queue is full, or the version has no worker
    "not_registered",  # the version, or the model, is not known
    "token",  # the token is not taken
    "unexpected",  # any other status
]


class Model(BaseModel):
    """Which model answered. Both parts are fit for a header."""

    model_config = ConfigDict(frozen=True)

    name: HeaderWord
    version: HeaderWord

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class Audio(BaseModel):
    """What the handler says of a clip, as far as it is wanted here."""

    duration_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Score(BaseModel):
    """The public part of the handler's answer document, and the model that made it."""

    us_confidence: float = Field(ge=0, le=100, allow_inf_nan=False, strict=True)
    model: Model
    audio: Audio = Audio()
    """Without a length where the document has none that is one: the score is good all the same."""

    @field_validator("audio", mode="wrap")
    @classmethod
    def _unknown_if_malformed(cls, value: object, validate: ValidatorFunctionWrapHandler) -> Audio:
        try:
            audio: Audio = validate(value)
        except ValidationError:
            return Audio()
        return audio


Detail = Literal["score", "recording", "timeline"]
"""How much an answer holds: the score; all about the clip; the score of its parts as well."""


class Accent(BaseModel):
    """One label with its probability."""

    label: str = Field(max_length=100)
    score: float = Field(ge=0, le=1, allow_inf_nan=False)


class TimelineScore(BaseModel):
    """A short window of a clip, scored by itself. Seconds are into the clip."""

    start_s: float = Field(ge=0, allow_inf_nan=False)
    end_s: float = Field(ge=0, allow_inf_nan=False)
    us_confidence: float = Field(ge=0, le=100, allow_inf_nan=False)
    accent: Accent


class Recording(BaseModel):
    """What was found in a file, and ids of what is wrong with the recording."""

    duration_s: float = Field(ge=0, allow_inf_nan=False)
    speech_s: float = Field(ge=0, allow_inf_nan=False)
    scored_s: float = Field(ge=0, allow_inf_nan=False)
    sample_rate_hz: int = Field(gt=0)
    channels: int = Field(gt=0)
    codec: str = Field(max_length=100)
    peak_dbfs: float = Field(allow_inf_nan=False)
    level_dbfs: float = Field(allow_inf_nan=False)
    advice: list[str]


class DescribedModel(Model):
    """Which model answered, and what it is. `worth` says how well it judges, by language."""

    kind: str = Field(max_length=100)
    labels: list[str]
    scale: float = Field(gt=0, allow_inf_nan=False)
    worth: dict[str, str] = {}


class WholeScore(BaseModel):
    """All of the handler's answer document that people want to know."""

    us_confidence: float = Field(ge=0, le=100, allow_inf_nan=False, strict=True)
    accents: list[Accent] = Field(min_length=1)
    timeline: list[TimelineScore] | None = None
    audio: Recording
    model: DescribedModel


AnyScore: TypeAlias = Score | WholeScore


class Clip(NamedTuple):
    """An audio file, and how much its answer should hold."""

    audio: bytes
    detail: Detail = "score"


class Refusal(NamedTuple):
    """The handler's own verdict on one clip."""

    status: int
    code: str
    detail: str | None
    model: Model | None


class Fault(NamedTuple):
    """An error of TorchServe's own, which says nothing about the clip."""

    status: int
    type: str
    """The Java exception that its body names, or empty."""
    message: str

    @property
    def kind(self) -> FaultKind:
        """What the status means, together with `type`."""
        if self.status in (500, 507):
            return "lost"
        if self.status == 503:
            return "lost" if self.type == "InternalServerException" else "unavailable"
        if self.status == 404:
            return "not_registered"
        return "token" if self._refuses_token() else "unexpected"

    def _refuses_token(self) -> bool:
        # A refused token is 400 in TorchServe, and only the words tell it from other faults.
        # 403 is also how it refuses to remove the default version.
        if self.status in (401, 403) and not self.type:
            return True
        words = f"{self.type} {self.message}".lower()
        return self.status in (400, 401, 403) and ("token" in words or "invalidkey" in words)


class Worker(BaseModel):
    """One worker as TorchServe describes it."""

    id: str
    status: str
    pid: int
    memory_bytes: int = Field(alias="memoryUsage", default=0)

    @property
    def ready(self) -> bool:
        """Whether it takes clips."""
        return self.status == "READY"


class Queue(BaseModel):
    """Clips of one version that wait for a worker."""

    pending: int = Field(alias="pendingRequests", default=0)


class RegisteredVersion(BaseModel):
    """One version as TorchServe describes it."""

    version: HeaderWord = Field(alias="modelVersion")
    archive: str = Field(alias="modelUrl")
    wanted: int = Field(alias="minWorkers")
    batch_size: int = Field(alias="batchSize")
    workers: list[Worker] = []
    queue: Queue = Field(alias="jobQueueStatus", default_factory=Queue)

    @property
    def ready(self) -> int:
        """Workers that take clips."""
        return sum(worker.ready for worker in self.workers)


_DESCRIPTION: Final = TypeAdapter(list[RegisteredVersion])


def read_description(answer: httpx.Response) -> list[RegisteredVersion]:
    """The versions that a success describes. Raises pydantic's `ValidationError`."""
    return _DESCRIPTION.validate_json(answer.content)


def read_error(answer: httpx.Response) -> Refusal | Fault:
    """What an answer other than a success says. The handler's `code` is text, TorchServe's not."""
    body = json_object(answer)
    code, detail = body.get("code"), body.get("detail")
    if isinstance(code, str):
        return Refusal(
            answer.status_code,
            code,
            detail if isinstance(detail, str) else None,
            _model(body.get("model")),
        )
    return Fault(answer.status_code, str(body.get("type", "")), str(body.get("message", "")))


def refuses_token(answer: httpx.Response) -> bool:
    """Whether TorchServe did not take the token."""
    if answer.is_success:
        return False
    error = read_error(answer)
    return isinstance(error, Fault) and error.kind == "token"


def words_of(answer: httpx.Response) -> str:
    """Status and words of an answer, for people."""
    body = json_object(answer)
    words = body.get("message") or body.get("detail") or json.dumps(body or answer.text)
    return f"TorchServe answered {answer.status_code}: {words!s:.{_MAX_MESSAGE_CHARS}}"


def json_object(answer: httpx.Response) -> dict[str, Any]:
    """The body as a JSON object, empty where it is none."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _model(value: object) -> Model | None:
    try:
        return Model.model_validate(value)
    except ValidationError:
        return None
