"""The folder that training writes."""

from pathlib import Path

import pytest
import torch
from accent.decode import decode
from accent.ecapa.loading import load_model

from aurea.lab.training.export import write_model
from aurea.lab.training.network import network_spec, new_network
from tests.clips import encode, voice
from tests.unit.lab.training.helpers import LABELS, TINY


def test_speechbrain_itself_loads_the_folder_and_gives_the_same_cosines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechbrain.inference.classifiers import EncoderClassifier

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    network = new_network(TINY, len(LABELS), None).eval()
    write_model(network, network_spec(TINY, len(LABELS), None), LABELS, folder)
    clip = tmp_path / "clip.wav"
    clip.write_bytes(encode(voice(2.0, seed=3), 16_000, "wav-s16"))
    reference = EncoderClassifier.from_hparams(
        source=str(folder),
        savedir=str(tmp_path / "saved"),
        overrides={"pretrained_path": str(folder)},
    )
    theirs, _, index, label = reference.classify_file(str(clip))
    model = load_model(folder)
    ours = model.network(torch.from_numpy(decode(clip.read_bytes()).waveform)[None])
    assert torch.allclose(ours.squeeze(), theirs.squeeze(), atol=1e-4)
    assert label == [model.labels[int(index)]]
