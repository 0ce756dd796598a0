"""The network before its first step."""

import torch
from accent.ecapa.loading import EcapaModel

from aurea.lab.training.network import new_network
from aurea.lab.training.recipe import Recipe


def test_training_can_start_from_the_embedding_of_another_model(
    small_model: EcapaModel,
) -> None:
    network = new_network(Recipe(), 3, small_model)
    theirs = small_model.network.embedding_model.state_dict()
    ours = network.embedding_model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert network.classifier.weight.shape == (3, small_model.spec.embedding_size)
