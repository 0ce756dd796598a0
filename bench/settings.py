"""The options of `make bench`."""

from pathlib import Path
from typing import Final

from pydantic import Field, field_validator

from aurea.command_line import CommandLine
from aurea.paths import ROOT
from bench.results import ORIGINAL, SERVICE

OUT: Final = ROOT / "build"


class BenchSettings(CommandLine):
    """Start all that is compared, put the same load on each in turn, and report."""

    model: str = "auto"
    """auto (the pretrained model where its cache has it, else a stand-in) or a model folder."""

    only: list[str] = Field(default=[])
    """Contestants, with commas between; none: all; engine: only the engine on a GPU, in a table;
    profile: only where the service's processor time goes, by process, thread and function;
    page: only how long the page in a browser takes from a file to its number."""

    rounds: int = Field(default=3, ge=0)
    """How often everything is gone through."""

    repeats: int = Field(default=12, ge=0)
    """How often each engine computes a clip, a round."""

    warm_s: float = Field(default=1.5, ge=0)
    """Seconds at concurrency 8 that nobody counts: after a start, and in each round, since a
    machine may reclaim memory from a process that has been idle for a minute."""

    alone_s: float = Field(default=4.0, ge=0)
    """Seconds of a stretch at concurrency 1."""

    crowd_s: float = Field(default=5.0, ge=0)
    """Seconds of a stretch at concurrency 8."""

    rate_s: float = Field(default=5.0, ge=0)
    """Seconds of a stretch at a fixed rate; 0: none."""

    loop_s: float = Field(default=4.0, ge=0)
    """Seconds of a stretch of the engine alone; 0: none."""

    precisions: list[str] = Field(default=["int8", "bf16", "fp32"])
    """Precisions that the service is also measured in, besides auto, with commas between."""

    second_starts: list[str] = Field(default=[SERVICE, ORIGINAL])
    """Contestants that are started twice, with commas between."""

    budget_s: float = Field(default=570.0, ge=0)
    """Seconds after which no new round, nor another precision, may end."""

    out: Path = OUT
    """Folder of the reports; its subfolder bench keeps what the next run can use."""

    quick: bool = False
    """A tiny network, the original alone, two seconds of load: to see that it works."""

    prepare: bool = False
    """Only build the archives, so that a run has its time for measuring."""

    write_readme: bool = False
    """Put the result into docs/bench.md (the option is older than that page)."""

    @field_validator("only", "precisions", "second_starts")
    @classmethod
    def _split(cls, names: list[str]) -> list[str]:
        return [name for listed in names for name in listed.split(",") if name]

    @field_validator("out")
    @classmethod
    def _absolute(cls, out: Path) -> Path:
        return out.absolute()

    @property
    def kept(self) -> Path:
        """Folder of clips, models, archives and logs, some of which the next run can use."""
        return self.out / "bench"

    def shortened(self) -> "BenchSettings":
        """The same for a quick run."""
        return self.model_copy(
            update={
                "only": [ORIGINAL],
                "rounds": 1,
                "repeats": 0,
                "warm_s": 0.5,
                "alone_s": 1.0,
                "crowd_s": 1.0,
                "rate_s": 0.0,
                "loop_s": 0.0,
                "second_starts": [],
                "precisions": [],
            }
        )
