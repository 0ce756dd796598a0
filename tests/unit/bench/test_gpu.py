"""The table of a GPU, with a CPU in its place."""

import re
from pathlib import Path

import pytest
import torch

from bench.gpu import Work, gpu_here, gpu_report


@pytest.mark.slow
def test_the_table_has_the_limits_the_engine_its_share_and_the_peer(small_folder: Path) -> None:
    report = gpu_report(
        small_folder,
        torch.device("cpu"),
        work=[Work.equal(1), Work("2 mixed", [0.5, 1.1])],
        shapes=[(64, 64, 64), (32, 16, 8)],
        rounds=2,
        peer_clips=1,
        precisions=["fp32", "bf16"],
    )
    assert "medians of 2 rounds" in report
    assert "32 x 16 x 8" in report
    for precision in ("fp32", "bf16"):
        for work in ("1 x 5 s", "2 mixed"):
            assert re.search(rf"{precision}\W+{work}\W.*\d\.\d+.* %", report), report
    assert re.search(r"The peer, .* TF32: \d", report)


def test_mixed_lengths_are_hardly_ever_alike_and_the_same_in_every_run() -> None:
    work = Work.mixed(64)
    assert work == Work.mixed(64)
    sizes = [window.size for window in work.windows()]
    assert len(set(sizes)) == 64
    assert min(sizes) >= 2 * 16_000
    assert max(sizes) <= 10 * 16_000


def test_what_no_gpu_computes_is_refused(probe_folder: Path) -> None:
    with pytest.raises(SystemExit, match="computed on the CPU"):
        gpu_report(probe_folder, torch.device("cpu"))


def test_without_a_gpu_there_is_no_table_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit, match="There is no GPU here"):
        gpu_here()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpu_here() == torch.device("cuda:0")
