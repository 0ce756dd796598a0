"""The JSON documents in an archive, typed: what packaging writes and everyone else reads.

Nothing here needs torch or numpy, which a supervisor goes without: so the names of engines and
precisions stand here as they do in `accent.engine`.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from aurea.archive.layout import REFERENCE_FOLDER

EngineName: TypeAlias = Literal["torch", "openvino", "onnxruntime"]
Precision: TypeAlias = Literal["fp32", "bf16", "int8"]


def write_document(document: BaseModel, path: Path) -> None:
    """Write `document` as indented JSON under the names of its format."""
    path.write_text(document.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")


class DeviationPoints(BaseModel):
    """How far `us_confidence` strays from the reference, in points."""

    p50: float
    p99: float
    max: float


class Bounds(BaseModel):
    """What `auto` accepts of deviations, in points."""

    p99: float
    max: float


class EngineEntry(BaseModel):
    """One engine of a model and what was measured of it; nothing where it was not measured."""

    engine: EngineName
    precision: Precision
    graph: str | None = None
    """A file beside the document; None for torch and for what is not packed."""

    size_bytes: int = 0
    """Of the graph's files."""

    within_bounds: bool = False
    deviation_points: DeviationPoints | None = None
    top_accent_agreement: float | None = None
    """Share of the clips whose best accent is the same as torch's in fp32, 0 to 1."""

    milliseconds_for_5_s: float | None = None
    """Processor time of a pass over 5 s on one thread."""


class Measured(BaseModel):
    """What the engines were measured on, and where."""

    clips: int
    speech: str
    softmax_scale: float
    us_bias: float = 0.0
    processor: str
    instructions_for: list[str]
    """Precisions that the processor has instructions for."""

    openvino: str
    torch: str


class EnginesDocument(BaseModel):
    """`engines.json`: what a worker can use, the fastest first, and what was measured of all."""

    engines: list[EngineEntry]
    not_packed: list[EngineEntry] = []
    bounds_points: Bounds | None = None
    auto: dict[str, str] = {}
    """For people: what `auto` comes to be, by the instructions that a processor has."""

    measured: Measured | None = None


class ReferenceClip(BaseModel):
    """A clip in the archive and what its packager measured on it."""

    file: str
    us_confidence: dict[str, float]
    """By precision, 0 to 100."""

    top_accent: str

    @property
    def member(self) -> str:
        """Its name in the archive: early documents left the folder out."""
        folder = f"{REFERENCE_FOLDER}/"
        return self.file if self.file.startswith(folder) else folder + self.file


class ReferenceDocument(BaseModel):
    """`reference.json`: what a running worker must reproduce."""

    clips: list[ReferenceClip] = Field(min_length=1)
    tolerance_points: dict[str, float]
    """By precision: the largest deviation of us_confidence, in points."""


class Provenance(BaseModel):
    """`provenance.json`: what an archive was built from."""

    inputs_sha256: str
    """Of everything that decides the archive: the same inputs need no packaging."""

    handler_sha256: dict[str, str] = {}
    """Of each Python file of the handler and the core, by its name in the archive."""


def _not_empty(value: str | None) -> str | None:
    return value or None


_Named: TypeAlias = Annotated[str | None, AfterValidator(_not_empty)]


class ManifestModel(BaseModel):
    """What TorchServe's manifest says of the model; files are None where it names none."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        validate_by_name=True,
    )

    model_name: str
    model_version: str
    handler: _Named = None
    config_file: _Named = None
    model_file: _Named = None
    serialized_file: _Named = None
    requirements_file: _Named = None
    envelope: _Named = None
    extensions: _Named = None


class Manifest(BaseModel):
    """`MAR-INF/MANIFEST.json`, which torch-model-archiver writes."""

    runtime: _Named = None
    model: ManifestModel
