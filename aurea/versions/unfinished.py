"""What a step is about to change at the server, noted before it does."""

from pydantic import BaseModel


class Unfinished(BaseModel):
    """What a step changes at the server."""

    version: str
    """The version that the step is about."""
    workers_before: int | None = None
    """The workers that it had; None where their number stays."""
    workers_after: int | None = None
    """The workers that it is given."""
