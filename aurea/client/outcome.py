"""What became of one clip, as a line of the results holds it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from aurea.client.clips import Clip

Status = Literal["scored", "refused", "failed"]


class Outcome(BaseModel):
    """A score, a refusal of the clip, or a failure that says nothing of the clip.

    `us_confidence` is in [0, 100]; `code` and `detail` say why there is none; `seconds` is how
    long the last request took. `band`, `accent` (the likeliest) and `advice` (ids with `;`
    between them) are there with details only, and `document` is all of the detailed answer.
    """

    model_config = ConfigDict(extra="forbid")

    path: str
    status: Status
    us_confidence: float | None = None
    code: str = ""
    detail: str = ""
    model: str = ""
    version: str = ""
    seconds: float | None = None
    band: str = ""
    accent: str = ""
    advice: str = ""
    size_bytes: int
    modified_ns: int
    document: dict[str, Any] | None = None

    def settles(self, clip: Clip, *, details: bool) -> bool:
        """Whether `clip`, at the same place, need not be sent: it is scored and unchanged."""
        return (
            self.status == "scored"
            and (self.size_bytes, self.modified_ns) == (clip.size_bytes, clip.modified_ns)
            and (not details or bool(self.band))
        )
