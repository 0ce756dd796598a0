"""The network that is to be trained: its shape, and its weights before the first step."""

from dataclasses import replace

import torch
from accent.ecapa.loading import EcapaModel
from accent.ecapa.network import AccentNetwork
from accent.ecapa.specification import NetworkSpec

from aurea.lab.training.recipe import Recipe


def new_network(recipe: Recipe, n_labels: int, init: EcapaModel | None) -> AccentNetwork:
    """A network with weights drawn by the seed, or with the embedding of `init`."""
    torch.manual_seed(recipe.seed)
    network = AccentNetwork(network_spec(recipe, n_labels, init))
    if init is not None:
        network.embedding_model.load_state_dict(init.network.embedding_model.state_dict())
    return network


def network_spec(recipe: Recipe, n_labels: int, init: EcapaModel | None) -> NetworkSpec:
    """The network's shape: that of `init`, else the recipe's."""
    if init is not None:
        return replace(init.spec, n_labels=n_labels, softmax_scale=recipe.scale)
    return NetworkSpec(
        n_mels=recipe.n_mels,
        channels=(recipe.channels,) * 4 + (3 * recipe.channels,),
        kernel_sizes=(5, 3, 3, 3, 1),
        dilations=(1, 2, 3, 4, 1),
        attention_channels=recipe.attention_channels,
        se_channels=min(recipe.channels, 128),
        res2net_scale=8,
        embedding_size=recipe.embedding_size,
        n_labels=n_labels,
        activation="torch.nn.LeakyReLU",
        std_norm=False,
        softmax_scale=recipe.scale,
    )
