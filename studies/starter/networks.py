"""Four families of small networks whose forward pass holds no hidden randomness: dropout's noise and rate are arguments.

So one pass with ``torch.func.vmap`` trains many configurations of one shape at once, each with its own rate, and a plain loop over the
same modules must come to the same weights.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEADS = 2
NETWORK_FAMILIES = ("mlp", "cnn", "rnn", "transformer")


class Network(nn.Module):
    """A network with ``n_noises`` places of dropout, each of ``noise_width`` features a sample."""

    def __init__(self, n_noises: int, noise_width: int) -> None:
        super().__init__()
        self.n_noises, self.noise_width = n_noises, noise_width

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw what decides which features are dropped, shape ``(n_noises, n, noise_width)``, uniform in [0, 1)."""
        return torch.rand(self.n_noises, n, self.noise_width, generator=generator)


def dropped(x: Tensor, noise: Tensor | None, rate: Tensor) -> Tensor:
    """Drop features where the noise is below the rate and scale the rest; without noise (validation) nothing is dropped.

    Args:
        x: Shape ``(n, noise_width)``, or ``(n, noise_width, *positions)``: a feature is dropped at all positions.
        noise: Shape ``(n, noise_width)``.
        rate: A scalar.
    """
    if noise is None:
        return x
    keep = (noise >= rate).to(x.dtype) / (1 - rate)
    return x * keep.reshape(keep.shape + (1,) * (x.dim() - keep.dim()))


class StarterMLP(Network):
    """Fully connected layers on the flattened sample."""

    def __init__(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, width: int) -> None:
        super().__init__(num_layers, width)
        sizes = [math.prod(input_shape), *[width] * num_layers]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor, noise: Tensor | None, rate: Tensor) -> Tensor:
        """Map ``(n, *input_shape)`` to ``(n, n_outputs)``."""
        x = x.flatten(1)
        for i, layer in enumerate(self.layers):
            x = dropped(F.relu(layer(x)), None if noise is None else noise[i], rate)
        outputs: Tensor = self.head(x)
        return outputs


class StarterCNN(Network):
    """Convolutions of width 3 over a picture or a signal, their mean over positions, a linear output.

    Each convolution is a linear layer on the neighbourhood of every position: batched over configurations that is one matrix product.
    """

    def __init__(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, width: int) -> None:
        super().__init__(num_layers, width)
        self.n_dims = len(input_shape)
        sizes = [1, *[width] * num_layers]
        self.layers = nn.ModuleList(nn.Linear(3**self.n_dims * a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(width * 2, n_outputs)

    def forward(self, x: Tensor, noise: Tensor | None, rate: Tensor) -> Tensor:
        """Map ``(n, *input_shape)`` to ``(n, n_outputs)``."""
        x = x.unsqueeze(-1)  # features last
        for i, layer in enumerate(self.layers):
            x = F.relu(layer(self._neighbours(x)))
            x = dropped(x.movedim(-1, 1), None if noise is None else noise[i], rate).movedim(1, -1)
        x = x.flatten(1, -2)
        outputs: Tensor = self.head(torch.cat([x.mean(1), x.amax(1)], -1))
        return outputs

    def _neighbours(self, x: Tensor) -> Tensor:
        """Put the 3 (or 3 x 3) neighbours of every position side by side, zeros beyond the edge."""
        if self.n_dims == 1:
            padded = F.pad(x, (0, 0, 1, 1))
            n = x.shape[1]
            return torch.cat([padded[:, i : i + n] for i in range(3)], -1)
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        rows, columns = x.shape[1], x.shape[2]
        return torch.cat([padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)], -1)


class StarterRNN(Network):
    """Gated recurrent layers (GRU) over rows, or over single columns, and a linear output on the last state."""

    def __init__(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, width: int) -> None:
        super().__init__(num_layers, width)
        sizes = [token_size(input_shape), *[width] * num_layers]
        self.inputs = nn.ModuleList(nn.Linear(a, 3 * width) for a in sizes[:-1])
        self.states = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(num_layers))
        # As torch's own recurrent layers are initialised.
        for layer in (*self.inputs, *self.states):
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor, noise: Tensor | None, rate: Tensor) -> Tensor:
        """Map ``(n, *input_shape)`` to ``(n, n_outputs)``."""
        x = as_tokens(x)
        for i, (from_input, from_state) in enumerate(zip(self.inputs, self.states, strict=True)):
            ahead = from_input(x)
            state = x.new_zeros(x.shape[0], self.noise_width)
            states = []
            for t in range(x.shape[1]):
                reset_in, update_in, new_in = ahead[:, t].chunk(3, -1)
                reset_state, update_state, new_state = from_state(state).chunk(3, -1)
                update = torch.sigmoid(update_in + update_state)
                candidate = torch.tanh(new_in + torch.sigmoid(reset_in + reset_state) * new_state)
                state = candidate + update * (state - candidate)
                states.append(state)
            x = torch.stack(states, 1)
            x = dropped(x.movedim(-1, 1), None if noise is None else noise[i], rate).movedim(1, -1)
        outputs: Tensor = self.head(x[:, -1])
        return outputs


class StarterTransformer(Network):
    """Self-attention with the norm before each part, learned positions, a linear output on the mean."""

    def __init__(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, width: int) -> None:
        super().__init__(2 * num_layers, width)
        self.embed = nn.Linear(token_size(input_shape), width)
        self.position = nn.Parameter(torch.randn(input_shape[0], width) * 0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * num_layers + 1))
        self.attend = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(num_layers))
        self.project = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.widen = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(num_layers))
        self.narrow = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(num_layers))
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor, noise: Tensor | None, rate: Tensor) -> Tensor:
        """Map ``(n, *input_shape)`` to ``(n, n_outputs)``."""
        x = self.embed(as_tokens(x)) + self.position
        for i, (attend, project, widen, narrow) in enumerate(zip(self.attend, self.project, self.widen, self.narrow, strict=True)):
            mixed = project(_attention(attend(self.norms[2 * i](x))))
            x = x + _at_all_positions(mixed, None if noise is None else noise[2 * i], rate)
            passed = narrow(F.relu(widen(self.norms[2 * i + 1](x))))
            x = x + _at_all_positions(passed, None if noise is None else noise[2 * i + 1], rate)
        outputs: Tensor = self.head(self.norms[-1](x).mean(1))
        return outputs


def _at_all_positions(x: Tensor, noise: Tensor | None, rate: Tensor) -> Tensor:
    return dropped(x.movedim(-1, 1), noise, rate).movedim(1, -1)


def _attention(qkv: Tensor) -> Tensor:
    """Attention of ``HEADS`` heads over ``(n, positions, 3 width)``, written out: vmap knows every part of it."""
    n, positions, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    query, key, value = qkv.reshape(n, positions, 3, HEADS, width // HEADS).movedim(2, 0).transpose(2, 3)
    weights = (query @ key.transpose(-1, -2) / math.sqrt(width // HEADS)).softmax(-1)
    mixed: Tensor = (weights @ value).transpose(1, 2).reshape(n, positions, width)
    return mixed


def token_size(input_shape: tuple[int, ...]) -> int:
    """Numbers per position: a row of a picture, or the one value of a column."""
    return input_shape[1] if len(input_shape) > 1 else 1


def as_tokens(x: Tensor) -> Tensor:
    """Return ``(n, positions, size)``: columns of a table become positions of size 1."""
    return x.unsqueeze(-1) if x.dim() == 2 else x


_CLASSES: dict[str, type[StarterMLP | StarterCNN | StarterRNN | StarterTransformer]] = {
    "mlp": StarterMLP,
    "cnn": StarterCNN,
    "rnn": StarterRNN,
    "transformer": StarterTransformer,
}


def build(family: str, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, width: int, seed: int) -> Network:
    """Build a network with weights drawn from a seed, leaving torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _CLASSES[family](input_shape, n_outputs, num_layers, width)
