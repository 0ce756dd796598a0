"""The network before its first step."""

from pathlib import Path

import torch
from accent.loading import load_model

from aurea.lab.training.network import new_network
from aurea.lab.training.recipe import Recipe


def test_training_can_start_from_the_embedding_of_another_model(trained: Path) -> None:
    init = load_model(trained)
    network = new_network(Recipe(), 3, init)
    theirs = init.network.embedding_model.state_dict()
    ours = network.embedding_model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert network.classifier.weight.shape == (3, 8)
