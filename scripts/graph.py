"""A model -> the graph that the compiled engine runs: features in, cosines out."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import nncf
import openvino
import torch
from accent.audio import Waveform
from accent.network import AccentModel
from speechbrain.lobes.models.ECAPA_TDNN import SERes2NetBlock, TDNNBlock
from torch import Tensor, nn
from torch.nn import functional

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]


def build_graph(
    model: AccentModel, precision: Precision, calibration: Sequence[Waveform]
) -> openvino.Model:
    """Build the graph of `model`: (1, frames, n_mels) float32 -> (1, labels) float32 cosines.

    The number of frames is free. `calibration` holds waveforms of (samples,) at 16 kHz,
    which int8 is quantized on.
    """
    network = model.network
    features = [
        network.features(torch.from_numpy(waveform)[None]).numpy() for waveform in calibration
    ]
    example = torch.zeros(1, 200, model.spec.n_mels)
    with torch.no_grad():
        graph = openvino.convert_model(_Lean(network), example_input=example)
    graph.reshape([1, -1, model.spec.n_mels])
    if precision == "int8":
        graph = nncf.quantize(
            graph,
            nncf.Dataset(features),
            subset_size=len(features),
            model_type=nncf.ModelType.TRANSFORMER,
        )
    return graph


class _Lean(nn.Module):
    """SpeechBrain's network for one clip of full length: without masks."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.body = network.embedding_model
        self.head = network.classifier

    def forward(self, features: Tensor) -> Tensor:
        x = self.body.blocks[0](features.transpose(1, 2))
        outputs = []
        for block in self.body.blocks[1:]:
            x = self._block(block, x)
            outputs.append(x)
        x = self.body.mfa(torch.cat(outputs, dim=1))
        mean, deviation = _statistics(x, torch.full_like(x[:, :1], 1.0) / x.shape[2])
        attention = self.body.asp.tdnn(
            torch.cat(
                [x, mean.unsqueeze(2).expand_as(x), deviation.unsqueeze(2).expand_as(x)], dim=1
            )
        )
        weights = functional.softmax(self.body.asp.conv(torch.tanh(attention)), dim=2)
        pooled = torch.cat(_statistics(x, weights), dim=1).unsqueeze(2)
        embedding = self.body.fc(self.body.asp_bn(pooled)).squeeze(2)
        return functional.linear(
            functional.normalize(embedding), functional.normalize(self.head.weight)
        )

    @staticmethod
    def _block(block: SERes2NetBlock, x: Tensor) -> Tensor:
        residual = x if block.shortcut is None else block.shortcut(x)
        first: TDNNBlock = block.tdnn1
        x = block.tdnn2(block.res2net_block(first(x)))
        squeezed = torch.relu(block.se_block.conv1(x.mean(dim=2, keepdim=True)))
        return torch.sigmoid(block.se_block.conv2(squeezed)) * x + residual


def _statistics(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * x).sum(2)
    variance = (weights * (x - mean.unsqueeze(2)).pow(2)).sum(2)
    return mean, variance.clamp(1e-12).sqrt()
