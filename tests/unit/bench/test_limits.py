from pathlib import Path

import pytest
import torch
from accent.ecapa.loading import load_model
from torch.utils.flop_counter import FlopCounterMode

from bench import limits


@pytest.mark.slow
def test_a_limit_is_the_best_product_of_all_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SHAPES", ((64, 64, 64), (64, 64, 64)))
    fp32, bf16, int8 = [1.0, 7.0, 5.0, 3.0], [5.0, 3.0, 8.0, 4.0], [2.0, 9.0, 6.0, 1.0]
    # The fastest product is asked once more, and for longer.
    rates = iter([*fp32, 7.5, *bf16, 7.0, *int8, 9.0])
    monkeypatch.setattr(limits, "_rate", lambda product, *_: (product(), next(rates))[1])
    assert limits.best_rates(threads=1) == {"fp32": 7.5, "bf16": 8.0, "int8": 9.0}


def test_a_library_without_the_instructions_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SHAPES", ((64, 64, 64),) * 3)
    rates = iter([100.0, 1.0, 90.0, 110.0, 105.0])
    monkeypatch.setattr(limits, "_rate", lambda *_: next(rates))
    assert limits._best_rate("bf16", threads=1) == 110.0
    assert not list(rates)


def test_what_is_the_same_for_all_frames_is_counted_once(small_folder: Path) -> None:
    model = load_model(small_folder)
    spec = model.spec
    constant = 4 * spec.channels[-1] * spec.attention_channels

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.network.cosines(torch.randn(1, 501, spec.n_mels))
    counted = counter.get_total_flops() / 1e9
    assert limits.least_gflop(model) == pytest.approx(counted - 500 * constant / 1e9)
