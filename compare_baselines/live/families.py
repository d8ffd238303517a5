"""Four families of models as Lightning modules: fully connected, convolutional, recurrent, attention.

All four share one training procedure and four hyperparameters. They build their layers in ``configure_model``, which runs after
every ``setup`` hook, so a callback that rewrites ``hparams`` before decides about depth and dropout as well.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MLP_WIDTH = 64
CNN_CHANNELS = 16
RNN_WIDTH = 32
TRANSFORMER_WIDTH = 16
TRANSFORMER_HEADS = 2


class FamilyModule(L.LightningModule):
    """Training and validation shared by the families; classification where ``n_classes`` is given, else regression.

    Logs ``train_loss``, ``val_loss`` and, for classification, ``val_acc``.

    Args:
        input_shape: Shape of one sample: ``(columns,)`` of a table or ``(rows, columns)`` of an image.
        n_classes: Number of classes, None for regression.
        learning_rate: Step size of Adam.
        num_layers: Number of hidden layers, blocks or cells on top of each other.
        dropout: Share of activations dropped after each of them.
        weight_decay: L2 penalty of Adam.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int | None,
        learning_rate: float = 1e-3,
        num_layers: int = 2,
        dropout: float = 0.1,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net: nn.Module | None = None

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, dropout: float) -> nn.Module:
        """Return the network: inputs ``(batch, *input_shape)`` to outputs ``(batch, n_outputs)``."""

    def configure_model(self) -> None:
        """Build the network from ``hparams`` as they stand now; a second call changes nothing."""
        if self.net is None:
            n_outputs = self.hparams["n_classes"] or 1
            self.net = self.build(tuple(self.hparams["input_shape"]), n_outputs, self.hparams["num_layers"], self.hparams["dropout"])

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(batch, *input_shape)`` to logits ``(batch, n_classes)``, or to values ``(batch, 1)`` for regression."""
        if self.net is None:
            self.configure_model()
        outputs: Tensor = self.net(inputs)  # type: ignore[misc]  # configure_model has just filled it
        return outputs

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy, or the mean squared error for regression."""
        if self.hparams["n_classes"] is None:
            return F.mse_loss(outputs.squeeze(1), targets)
        return F.cross_entropy(outputs, targets)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        inputs, targets = batch
        loss = self.loss(self(inputs), targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(targets))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy; Lightning averages them over the epoch, weighted by batch size."""
        inputs, targets = batch
        outputs = self(inputs)
        self.log("val_loss", self.loss(outputs, targets), batch_size=len(targets))
        if self.hparams["n_classes"] is not None:
            self.log("val_acc", (outputs.argmax(dim=1) == targets).float().mean(), batch_size=len(targets))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"], weight_decay=self.hparams["weight_decay"])


class MLP(FamilyModule):
    """Fully connected layers on the flattened sample."""

    def build(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, dropout: float) -> nn.Module:
        """Return ``num_layers`` hidden layers of ``MLP_WIDTH`` units and a linear output."""
        layers: list[nn.Module] = [nn.Flatten()]
        n_inputs = math.prod(input_shape)
        for _ in range(num_layers):
            layers += [nn.Linear(n_inputs, MLP_WIDTH), nn.ReLU(), nn.Dropout(dropout)]
            n_inputs = MLP_WIDTH
        return nn.Sequential(*layers, nn.Linear(n_inputs, n_outputs))


class CNN(FamilyModule):
    """Convolutions over the pixels of an image, or over the neighbouring columns of a table."""

    def build(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, dropout: float) -> nn.Module:
        """Return ``num_layers`` convolutions of width 3 that keep the size, and a linear output on all positions."""
        convolution: type[nn.Conv1d] | type[nn.Conv2d] = nn.Conv1d if len(input_shape) == 1 else nn.Conv2d
        layers: list[nn.Module] = [nn.Unflatten(1, (1, input_shape[0]))]
        n_inputs = 1
        for _ in range(num_layers):
            layers += [convolution(n_inputs, CNN_CHANNELS, kernel_size=3, padding=1), nn.ReLU(), nn.Dropout(dropout)]
            n_inputs = CNN_CHANNELS
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_inputs * math.prod(input_shape), n_outputs))


class RNN(FamilyModule):
    """An LSTM that reads an image row by row, or a table column by column."""

    def build(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, dropout: float) -> nn.Module:
        """Return ``num_layers`` LSTM layers and a linear output on the last state."""
        return LastState(_token_size(input_shape), RNN_WIDTH, n_outputs, num_layers, dropout)


class Transformer(FamilyModule):
    """Self-attention over the rows of an image, or over the columns of a table."""

    def build(self, input_shape: tuple[int, ...], n_outputs: int, num_layers: int, dropout: float) -> nn.Module:
        """Return ``num_layers`` encoder layers and a linear output on the mean over positions."""
        return MeanAttention(input_shape[0], _token_size(input_shape), TRANSFORMER_WIDTH, n_outputs, num_layers, dropout)


class LastState(nn.Module):
    """LSTM with a linear output on the state after the last position; input ``(batch, positions[, size])``."""

    def __init__(self, token_size: int, width: int, n_outputs: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(token_size, width, num_layers, dropout=dropout if num_layers > 1 else 0.0, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs ``(batch, n_outputs)``."""
        states, _ = self.recurrent(_as_tokens(inputs))
        outputs: Tensor = self.head(self.dropout(states[:, -1]))
        return outputs


class MeanAttention(nn.Module):
    """Transformer encoder with learned positions and a linear output on their mean; input ``(batch, positions[, size])``."""

    def __init__(self, n_positions: int, token_size: int, width: int, n_outputs: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(token_size, width)
        self.position = nn.Parameter(torch.randn(n_positions, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, TRANSFORMER_HEADS, 2 * width, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs ``(batch, n_outputs)``."""
        states = self.encoder(self.embed(_as_tokens(inputs)) + self.position)
        outputs: Tensor = self.head(states.mean(dim=1))
        return outputs


def _token_size(input_shape: tuple[int, ...]) -> int:
    """Numbers per position: a row of an image, or the one value of a column."""
    return input_shape[1] if len(input_shape) > 1 else 1


def _as_tokens(inputs: Tensor) -> Tensor:
    """Return ``(batch, positions, size)``: columns of a table become positions of size 1."""
    return inputs.unsqueeze(2) if inputs.dim() == 2 else inputs


LIVE_FAMILIES: dict[str, type[FamilyModule]] = {"mlp": MLP, "cnn": CNN, "rnn": RNN, "transformer": Transformer}
"""Family name -> module class."""
