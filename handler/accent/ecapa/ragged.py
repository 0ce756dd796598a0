"""ECAPA-TDNN over the frames of clips of any lengths: one matrix of rows, nothing padded.

A convolution of one tap is one product over all rows; a wider one first gathers its neighbours,
mirrored at each clip's own ends. Means, deviations, squeeze-excitation and attentive pooling are
sums over each clip in float32. The arithmetic is that of the graph for CPUs, which docs/engines.md
explains: batch norms are folded where they commute, what the attention knows of a whole clip is
computed once a clip. The weights are cast once.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from accent.ecapa.loading import EcapaModel
from accent.ecapa.ragged_rows import RaggedRows

_VARIANCE_FLOOR: Final = 1e-12
_LEAST_LOGIT: Final = -1e4


@dataclass(frozen=True)
class _Product:
    """`weights` (inputs, outputs) and `bias` (outputs,): x @ weights + bias for each row."""

    weights: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weights)


@dataclass(frozen=True)
class _Layer:
    """A TDNN block: `scale` * activation(product of `taps` neighbours) + `shift`."""

    product: _Product
    taps: int
    dilation: int
    negative_slope: float
    scale: Tensor
    shift: Tensor

    def activation(self, x: Tensor, rows: RaggedRows) -> Tensor:
        """(rows, inputs) -> (rows, outputs), before the batch norm."""
        if self.taps > 1:
            x = x.index_select(0, rows.neighbours(self.taps, self.dilation)).view(len(x), -1)
        return _activate(self.product(x), self.negative_slope)

    def __call__(self, x: Tensor, rows: RaggedRows) -> Tensor:
        return torch.addcmul(self.shift, self.activation(x, rows), self.scale)


@dataclass(frozen=True)
class _Block:
    """An SE-Res2Net block."""

    shortcut: _Product | None
    expand: _Layer
    res2net: tuple[_Layer, ...]
    merge: _Layer
    squeeze: _Product
    excite: _Product
    """The gate, in float32. The merge's batch norm is folded into both sides of it."""
    scale: Tensor
    shift: Tensor

    def __call__(self, x: Tensor, rows: RaggedRows) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        chunks = self.expand(x, rows).chunk(len(self.res2net) + 1, dim=1)
        parts = [chunks[0]]
        for index, (chunk, layer) in enumerate(zip(chunks[1:], self.res2net, strict=True)):
            parts.append(layer(chunk if index == 0 else chunk + parts[-1], rows))
        z = self.merge.activation(torch.cat(parts, dim=1), rows)
        gate = self.excite(self.squeeze(rows.mean(z.float())).relu_()).sigmoid_()
        gained = rows.of_each((gate * self.scale).to(z.dtype))
        shifted = rows.of_each((gate * self.shift).to(z.dtype))
        return torch.addcmul(shifted, z, gained).add_(residual)


class RaggedNetwork:
    """The embedding and cosine modules of a model, over rows. The model stays as it was."""

    def __init__(self, model: EcapaModel, device: torch.device, dtype: torch.dtype) -> None:
        """Products are computed in `dtype`; sums over clips and cosines are float32."""
        self._device, self._dtype = device, dtype
        spec, embedding = model.spec, model.network.embedding_model
        self._first = self._layer(embedding.blocks[0], spec.dilations[0])
        self._blocks = [
            self._block(embedding.blocks[index], spec.dilations[index])
            for index in range(1, len(spec.channels) - 1)
        ]
        self._aggregate = self._layer(embedding.mfa, spec.dilations[-1])
        self._prepare_pooling(embedding)
        weights = functional.normalize(model.network.classifier.weight.double(), dim=1)
        self._directions = self._float(weights)

    def __call__(self, features: Tensor, rows: RaggedRows) -> Tensor:
        """(rows, n_mels) float32 -> (slots + 1, n_labels) float32 cosines; the last is nobody's."""
        x = self._first(features.to(self._dtype), rows)
        outputs = []
        for block in self._blocks:
            x = block(x, rows)
            outputs.append(x)
        z = self._aggregate.activation(torch.cat(outputs, dim=1), rows)
        embeddings = self._embedding(self._statistics(z, rows))
        # Sums of products and no matrix product: that would be rounded to TF32 on some GPUs.
        directions = functional.normalize(embeddings, dim=1)
        return (directions[:, None, :] * self._directions).sum(dim=2)

    def _statistics(self, z: Tensor, rows: RaggedRows) -> Tensor:
        """(rows, channels) before the last batch norm -> (slots + 1, 2 x channels), attended."""
        hidden = torch.mm(z, self._attention_of_frame)
        centred = z.float()
        mean = rows.mean(centred)
        centred = centred - rows.of_each(mean)
        squares = centred.square()
        deviation = _root(rows.mean(squares))
        context = self._attention_of_clip(torch.cat([mean, deviation], dim=1))
        hidden = _activate(hidden.float().add_(rows.of_each(context)), self._attention_slope)
        hidden = torch.addcmul(self._attention_shift, hidden, self._attention_scale).tanh_()
        # A bias that is the same in every frame leaves a softmax over frames as it is.
        logits = torch.mm(hidden.to(self._dtype), self._logits).float()
        weights = logits.sub_(rows.of_each(rows.largest(logits, _LEAST_LOGIT))).exp_()
        total = rows.sum(weights).clamp_min_(torch.finfo(torch.float32).tiny)
        shift = rows.sum(centred.mul_(weights)) / total
        spread = rows.sum(squares.mul_(weights)) / total - shift.square()
        return torch.cat([shift + mean, _root(spread)], dim=1)

    def _prepare_pooling(self, embedding: Any) -> None:
        """Mean and deviation commute with the last batch norm, so they are taken before it."""
        pooling = embedding.asp
        scale, shift = _affine(embedding.mfa.norm.norm)
        magnitude = scale.abs()
        attention = pooling.tdnn
        of_frame, of_mean, of_deviation = attention.conv.conv.weight[:, :, 0].double().chunk(3, 1)
        self._attention_of_frame = self._cast((of_frame * scale).T)
        self._attention_of_clip = self._float_product(
            torch.cat([of_mean * scale, of_deviation * magnitude], dim=1),
            attention.conv.conv.bias.double() + (of_frame + of_mean) @ shift,
        )
        self._attention_slope = _slope(attention.activation)
        attention_scale, attention_shift = _affine(attention.norm.norm)
        self._attention_scale = self._float(attention_scale)
        self._attention_shift = self._float(attention_shift)
        self._logits = self._cast(pooling.conv.conv.weight[:, :, 0].T)
        norm_scale, norm_shift = _affine(embedding.asp_bn.norm)
        weights = embedding.fc.conv.weight[:, :, 0].double()
        bias = embedding.fc.conv.bias.double() + weights @ norm_shift
        weights = weights * norm_scale
        self._embedding = self._float_product(
            weights * torch.cat([scale, magnitude]), bias + weights[:, : len(scale)] @ shift
        )

    def _block(self, block: Any, dilation: int) -> _Block:
        merge = self._layer(block.tdnn2, 1)
        scale, shift = _affine(block.tdnn2.norm.norm)
        squeeze, excite = block.se_block.conv1.conv, block.se_block.conv2.conv
        weights = squeeze.weight[:, :, 0].double()
        shortcut = None
        if block.shortcut is not None:
            conv = block.shortcut.conv
            shortcut = _Product(self._cast(conv.weight[:, :, 0].T), self._cast(conv.bias))
        return _Block(
            shortcut=shortcut,
            expand=self._layer(block.tdnn1, 1),
            res2net=tuple(self._layer(each, dilation) for each in block.res2net_block.blocks),
            merge=merge,
            squeeze=self._float_product(weights * scale, squeeze.bias.double() + weights @ shift),
            excite=self._float_product(excite.weight[:, :, 0], excite.bias),
            scale=self._float(scale),
            shift=self._float(shift),
        )

    def _layer(self, block: Any, dilation: int) -> _Layer:
        weights = block.conv.conv.weight
        outputs, _, taps = weights.shape
        scale, shift = _affine(block.norm.norm)
        return _Layer(
            product=_Product(
                self._cast(weights.permute(0, 2, 1).reshape(outputs, -1).T),
                self._cast(block.conv.conv.bias),
            ),
            taps=taps,
            dilation=dilation,
            negative_slope=_slope(block.activation),
            scale=self._cast(scale),
            shift=self._cast(shift),
        )

    def _float_product(self, weights: Tensor, bias: Tensor) -> _Product:
        return _Product(self._float(weights.T), self._float(bias))

    def _cast(self, values: Tensor) -> Tensor:
        return values.detach().to(self._device, self._dtype).contiguous()

    def _float(self, values: Tensor) -> Tensor:
        return values.detach().to(self._device, torch.float32).contiguous()


def _activate(x: Tensor, negative_slope: float) -> Tensor:
    return functional.leaky_relu(x, negative_slope, inplace=True) if negative_slope else x.relu_()


def _root(variance: Tensor) -> Tensor:
    return variance.clamp_min(_VARIANCE_FLOOR).sqrt_()


def _slope(activation: Any) -> float:
    return activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift, (channels,) float64, that a batch norm applies in evaluation mode."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale
