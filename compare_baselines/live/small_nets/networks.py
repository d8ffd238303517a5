"""The suite's networks, as people write them: fully connected, convolutional, recurrent (GRU) and attention, by their size and norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class NetShape:
    """A network's shape.

    Attributes:
        family: ``mlp``, ``cnn``, ``rnn`` or ``transformer``.
        width: Units, channels, state, or features between blocks.
        depth: Hidden layers or blocks.
        norm: ``none``, ``batch`` or ``layer``; of a transformer, ``layer`` means the norm comes first.
        is_residual: Whether the input of a layer is added to its output, where they fit.
    """

    family: str
    width: int
    depth: int
    norm: str = "none"
    is_residual: bool = False


def build(shape: NetShape, input_shape: tuple[int, ...], n_outputs: int, dropout: float) -> nn.Module:
    """Return a network: inputs ``(n, *input_shape)`` to outputs ``(n, n_outputs)``."""
    return _FAMILIES[shape.family](shape, input_shape, n_outputs, dropout)


class _Layer(nn.Module):
    """A dense layer or a convolution with its norm, ReLU and dropout, and its input added where that is asked for and fits."""

    def __init__(self, layer: nn.Module, norm: nn.Module, dropout: float, is_residual: bool) -> None:
        super().__init__()
        self.layer, self.norm, self.dropout, self.is_residual = layer, norm, nn.Dropout(dropout), is_residual

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, features, *positions)`` likewise."""
        made: Tensor = self.dropout(torch.relu(self.norm(self.layer(x))))
        return x + made if self.is_residual and x.shape == made.shape else made


class DenseNet(nn.Module):
    """Fully connected layers on the flattened sample."""

    def __init__(self, shape: NetShape, input_shape: tuple[int, ...], n_outputs: int, dropout: float) -> None:
        super().__init__()
        sizes = [math.prod(input_shape), *[shape.width] * shape.depth]
        norm = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[shape.norm]
        layers = [_Layer(nn.Linear(a, b), norm(b), dropout, shape.is_residual) for a, b in pairwise(sizes)]
        self.net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(shape.width, n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, *input_shape)`` to ``(n, n_outputs)``."""
        outputs: Tensor = self.net(x)
        return outputs


class ConvolutionNet(nn.Module):
    """Convolutions of width 3, a pooling after the first, the mean over positions and a linear output."""

    def __init__(self, shape: NetShape, input_shape: tuple[int, ...], n_outputs: int, dropout: float) -> None:
        super().__init__()
        is_flat = len(input_shape) == 1
        convolution = nn.Conv1d if is_flat else nn.Conv2d
        batch_norm = nn.BatchNorm1d if is_flat else nn.BatchNorm2d
        layers: list[nn.Module] = []
        n_inputs = 1
        for i in range(shape.depth):
            norm = batch_norm(shape.width) if shape.norm == "batch" else nn.Identity()
            layers.append(_Layer(convolution(n_inputs, shape.width, 3, padding=1), norm, dropout, shape.is_residual))
            if i == 0:
                layers.append((nn.MaxPool1d if is_flat else nn.MaxPool2d)(2))
            n_inputs = shape.width
        self.net = nn.Sequential(*layers)
        self.head = nn.Linear(shape.width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, *input_shape)`` to ``(n, n_outputs)``."""
        outputs: Tensor = self.head(self.net(x.unsqueeze(1)).flatten(2).mean(-1))
        return outputs


class RecurrentNet(nn.Module):
    """GRU layers over the positions and a linear output on the last state."""

    def __init__(self, shape: NetShape, input_shape: tuple[int, ...], n_outputs: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(input_shape[1], shape.width, shape.depth, dropout=dropout if shape.depth > 1 else 0.0, batch_first=True)
        self.norm = nn.LayerNorm(shape.width) if shape.norm == "layer" else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(shape.width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, positions, features)`` to ``(n, n_outputs)``."""
        outputs: Tensor = self.head(self.dropout(self.norm(self.gru(x)[0][:, -1])))
        return outputs


class AttentionNet(nn.Module):
    """Transformer blocks with learned positions and a linear output on the mean over positions."""

    def __init__(self, shape: NetShape, input_shape: tuple[int, ...], n_outputs: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(input_shape[1], shape.width)
        self.position = nn.Parameter(0.1 * torch.randn(input_shape[0], shape.width))
        block = nn.TransformerEncoderLayer(
            shape.width, max(2, shape.width // 16), 2 * shape.width, dropout, batch_first=True, norm_first=shape.norm == "layer"
        )
        self.encoder = nn.TransformerEncoder(block, shape.depth, enable_nested_tensor=False)
        self.head = nn.Linear(shape.width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, positions, features)`` to ``(n, n_outputs)``."""
        outputs: Tensor = self.head(self.encoder(self.embed(x) + self.position).mean(1))
        return outputs


_FAMILIES: dict[str, type[DenseNet | ConvolutionNet | RecurrentNet | AttentionNet]] = {
    "mlp": DenseNet,
    "cnn": ConvolutionNet,
    "rnn": RecurrentNet,
    "transformer": AttentionNet,
}
