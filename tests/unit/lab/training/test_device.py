"""What training computes on."""

import pytest
import torch

from aurea.lab.training.device import device_called, device_text


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


def test_a_card_says_what_was_computed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_text(torch.device("cpu")).startswith("1 thread(s) of an ")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    assert device_text(torch.device("cuda:1")) == "a GPU (NVIDIA X)"
