"""What training computes on."""

import pytest
import torch

from aurea.lab.training.device import device_called


def test_a_gpu_is_taken_where_there_is_one_and_missed_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if torch.cuda.is_available():
        assert device_called("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_called("auto") == torch.device("cpu")
    assert device_called("cpu") == torch.device("cpu")
    for name in ("cuda:99", "no such device"):
        with pytest.raises(SystemExit, match=f"--device {name}: cannot be used here"):
            device_called(name)
