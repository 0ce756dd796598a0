"""The documents of the public contract's successes."""

from pydantic import BaseModel, ConfigDict, Field

from proxy.upstream.model_status import UNKNOWN_VERSION


class UsConfidence(BaseModel):
    """The answer to a clip."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"us_confidence": 85.5}]})

    us_confidence: float = Field(
        ge=0, le=100, description="How much the speech sounds like US English, in percent."
    )


class Alive(BaseModel):
    """The process answers."""

    status: str = Field(examples=["alive"])


class ReadyVersion(BaseModel):
    """One version beside others."""

    version: str = Field(examples=["2.0"])
    workers: int = Field(
        ge=0, description="Workers that can take a clip. 0: it could not be loaded, or not yet."
    )


class ReadyCanary(ReadyVersion):
    """The version that gets a share of the requests. Without workers the default answers."""

    percent: float = Field(ge=0, le=100, examples=[10])


class Ready(BaseModel):
    """A prediction can be made now, by the default version."""

    status: str = Field(examples=["ready"])
    model: str = Field(examples=["commonaccent"])
    version: str = Field(examples=["1.0"])
    workers: int = Field(ge=1, description="Workers that can take a clip.")
    versions: list[ReadyVersion] = Field(description="All versions that should be served.")
    canary: ReadyCanary | None


class ServedModel(BaseModel):
    """The model that answers unless it is replaced while you ask."""

    name: str
    version: str = Field(description=f"`{UNKNOWN_VERSION}` until the model was first seen.")
    notice: str = Field(description="What to know about it, such as being a fallback.")


class Limits(BaseModel):
    """What a clip may be."""

    max_upload_bytes: int
    max_audio_s: float
    min_audio_s: float
    formats: list[str]


class About(BaseModel):
    """What is served."""

    service: str
    model: ServedModel
    versions: list[str] = Field(description="All registered versions of the model.")
    limits: Limits
    links: dict[str, str]
