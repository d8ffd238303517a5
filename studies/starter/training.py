"""Training many configurations of one shape at once, and one of them plainly: the same numbers, which a test holds together.

A group shares family, depth, width, batch size, epochs, the order of its batches and the noise of its dropout. Learning rate, schedule,
warm-up, weight decay, momentum, dropout rate, initial weights, and whether weight decay is decoupled, are each configuration's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from studies.starter.data import StarterDataset
from studies.starter.networks import Network, build

Config = Mapping[str, Any]

SHARED = ("num_layers", "hidden_size", "batch_size", "num_epochs")
"""What the configurations of a group have in common, beside SGD or one of Adam and AdamW."""
BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What ``G`` configurations reached after each of ``E`` epochs; NaN and infinity from where one diverged.

    Attributes:
        train_loss: Mean over the epoch's batches, shape ``(G, E)``.
        val_loss: Cross entropy, or squared error in units of the target's variance; shape ``(G, E)``.
        val_accuracy: Shape ``(G, E)``; None for regression.
    """

    train_loss: NDArray[np.float32]
    val_loss: NDArray[np.float32]
    val_accuracy: NDArray[np.float32] | None


def rate_factor(config: Config, step: int, n_steps: int) -> float:
    """Return the share of the learning rate at a step from 0: linear warm-up, then constant, linear or cosine."""
    n_warm = int(config["warmup_ratio"] * n_steps)
    if step < n_warm:
        return (step + 1) / n_warm
    done = (step - n_warm) / max(1, n_steps - n_warm)
    if config["lr_scheduler"] == "linear":
        return 1.0 - done
    return 0.5 * (1 + math.cos(math.pi * done)) if config["lr_scheduler"] == "cosine" else 1.0


def batches(n: int, size: int, n_epochs: int, generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
    """Yield epoch and indices of every batch, a new order each epoch; the last batch of an epoch may be smaller."""
    for epoch in range(n_epochs):
        order = torch.randperm(n, generator=generator)
        for start in range(0, n, size):
            yield epoch, order[start : start + size]


def train_group(
    family: str, data: StarterDataset, configs: Sequence[Config], seeds: Sequence[int], group_seed: int, device: str = "cpu"
) -> Curves:
    """Train configurations that share ``SHARED`` and the kind of optimizer, in one batched pass.

    Args:
        family: One of ``NETWORK_FAMILIES``.
        data: What to learn.
        configs: ``G`` configurations.
        seeds: Seed of each one's initial weights.
        group_seed: Seed of the batches and the dropout.
        device: Torch device.
    """
    first = configs[0]
    if any(config[name] != first[name] for config in configs for name in SHARED):
        raise AssertionError(f"the configurations of a group must share {SHARED}")
    n_outputs = data.n_classes or 1
    networks = [build(family, data.input_shape, n_outputs, first["num_layers"], first["hidden_size"], seed) for seed in seeds]
    base = networks[0].to("meta")
    state = {name: value.detach().to(device) for name, value in stack_module_state(_fresh(networks, family, data, first, seeds))[0].items()}
    flat, leaves = _flattened(state)
    rate = torch.tensor([config["dropout"] for config in configs], device=device)
    optimizer = _Optimizer(flat, configs)
    train_x, train_y, val_x, val_y = _tensors(data, device)
    generator = torch.Generator().manual_seed(group_seed)

    def forward(parameters: dict[str, Tensor], share: Tensor, x: Tensor, noise: Tensor | None) -> Tensor:
        outputs: Tensor = functional_call(base, parameters, (x, noise, share))
        return outputs

    batched = vmap(forward, in_dims=(0, 0, None, None))
    n_steps = first["num_epochs"] * math.ceil(len(train_y) / first["batch_size"])
    losses, curves = [], []
    for step, (_, index) in enumerate(batches(len(train_y), first["batch_size"], first["num_epochs"], generator)):
        noise = base.noise(len(index), generator).to(device)
        loss = _losses(batched(leaves, rate, train_x[index], noise), train_y[index])
        gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
        optimizer.step(torch.cat([gradient.flatten(1) for gradient in gradients], 1), step, n_steps)
        losses.append(loss.detach())
        if (step + 1) % (n_steps // first["num_epochs"]) == 0:
            with torch.no_grad():
                outputs = batched(leaves, rate, val_x, None)
            curves.append((torch.stack(losses).mean(0), _losses(outputs, val_y), _accuracy(outputs, val_y)))
            losses.clear()
    train, val, accuracy = (torch.stack(parts, 1).float().cpu().numpy() for parts in zip(*curves, strict=True))
    return Curves(train, val, None if data.n_classes is None else accuracy)


def train_plainly(family: str, data: StarterDataset, config: Config, seed: int, group_seed: int) -> Curves:
    """Train one configuration as anyone would, with ``torch.optim``: what the batched pass must agree with."""
    network = build(family, data.input_shape, data.n_classes or 1, config["num_layers"], config["hidden_size"], seed)
    settings = {"lr": config["learning_rate"], "weight_decay": config["weight_decay"]}
    optimizer: torch.optim.Optimizer
    if config["optimizer"] == "SGD":
        optimizer = torch.optim.SGD(network.parameters(), momentum=config["momentum"], **settings)
    else:
        optimizer = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[config["optimizer"]](network.parameters(), **settings)
    train_x, train_y, val_x, val_y = _tensors(data, "cpu")
    generator = torch.Generator().manual_seed(group_seed)
    rate = torch.tensor(config["dropout"])
    n_steps = config["num_epochs"] * math.ceil(len(train_y) / config["batch_size"])
    per_epoch = n_steps // config["num_epochs"]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(config, step, n_steps))
    losses: list[float] = []
    rows = []
    for step, (_, index) in enumerate(batches(len(train_y), config["batch_size"], config["num_epochs"], generator)):
        noise = network.noise(len(index), generator)
        loss = _plain_loss(network(train_x[index], noise, rate), train_y[index])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % per_epoch == 0:
            with torch.no_grad():
                outputs = network(val_x, None, rate)
            accuracy = float((outputs.argmax(-1) == val_y).float().mean()) if data.n_classes is not None else math.nan
            rows.append((float(np.mean(losses)), float(_plain_loss(outputs, val_y)), accuracy))
            losses.clear()
    train, val, accuracies = (np.array(column, dtype=np.float32)[None] for column in zip(*rows, strict=True))
    return Curves(train, val, None if data.n_classes is None else accuracies)


class _Optimizer:
    """SGD with momentum, Adam and AdamW as ``torch.optim`` has them, with every setting a configuration's own.

    Args:
        flat: The parameters of all configurations, shape ``(G, p)``, changed in place.
        configs: All SGD, or none.
    """

    def __init__(self, flat: Tensor, configs: Sequence[Config]) -> None:
        self._flat, self._configs = flat, configs
        self.is_sgd = configs[0]["optimizer"] == "SGD"
        if any((config["optimizer"] == "SGD") is not self.is_sgd for config in configs):
            raise AssertionError("the configurations of a group must all use SGD, or none")
        self._rates = np.array([config["learning_rate"] for config in configs])
        decay = [config["weight_decay"] for config in configs]
        is_decoupled = [config["optimizer"] == "AdamW" for config in configs]
        self._coupled = self._column([0.0 if apart else value for value, apart in zip(decay, is_decoupled, strict=True)])
        self._decoupled = np.array([value if apart else 0.0 for value, apart in zip(decay, is_decoupled, strict=True)])
        self._momentum = self._column([config.get("momentum") or 0.0 for config in configs])
        self._first = torch.zeros_like(flat)
        self._second = torch.zeros_like(flat) if not self.is_sgd else None

    def _column(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self._flat.device)[:, None]

    @torch.no_grad()
    def step(self, gradient: Tensor, step: int, n_steps: int) -> None:
        """Make step number ``step`` from 0, with gradients of shape ``(G, p)``."""
        rates = self._rates * np.array([rate_factor(config, step, n_steps) for config in self._configs])
        if self._second is None:
            gradient = torch.addcmul(gradient, self._coupled, self._flat)
            self._first.mul_(self._momentum).add_(gradient)
            self._flat.addcmul_(self._column(-rates), self._first)
            return
        self._flat.mul_(self._column(1 - rates * self._decoupled))
        gradient = torch.addcmul(gradient, self._coupled, self._flat)
        self._first.lerp_(gradient, 1 - BETAS[0])
        self._second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        scale = math.sqrt(1 - BETAS[1] ** (step + 1))
        denominator = (self._second.sqrt() / scale).add_(EPS)
        self._flat.addcmul_(self._column(-rates / (1 - BETAS[0] ** (step + 1))), self._first / denominator)


def _fresh(networks: Sequence[Network], family: str, data: StarterDataset, first: Config, seeds: Sequence[int]) -> list[Network]:
    """Return the networks with real weights: the first became a template without any."""
    again = build(family, data.input_shape, data.n_classes or 1, first["num_layers"], first["hidden_size"], seeds[0])
    return [again, *networks[1:]]


def _flattened(state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return all parameters as one tensor ``(G, p)``, and views of it under their names that gradients are taken of."""
    flat = torch.cat([value.flatten(1) for value in state.values()], 1)
    leaves, start = {}, 0
    for name, value in state.items():
        size = value[0].numel()
        leaves[name] = flat[:, start : start + size].view(value.shape).detach().requires_grad_()
        start += size
    return flat, leaves


def _tensors(data: StarterDataset, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parts = (data.train_x, data.train_y, data.val_x, data.val_y)
    found = [torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in parts]
    return found[0], found[1], found[2], found[3]


def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of each configuration, ``(G, n, k)`` to ``(G,)``."""
    if targets.dtype.is_floating_point:
        return (outputs.squeeze(-1) - targets).square().mean(1)
    index = targets[None, :, None].expand(outputs.shape[0], -1, 1)
    return -outputs.log_softmax(-1).gather(-1, index).mean((1, 2))


def _accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(-1) == targets).float().mean(1)


def _plain_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.dtype.is_floating_point:
        return F.mse_loss(outputs.squeeze(-1), targets)
    return F.cross_entropy(outputs, targets)
