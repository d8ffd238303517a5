"""The suite's tasks: 24 data sets, each learned by one network as people write it, by one four times as wide, and three times as long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compare_baselines.live.small_nets.data import Split, load
from compare_baselines.live.small_nets.networks import NetShape, build
from compare_baselines.live.tasks.base import LiveTask, Training
from store.errors import InvalidArgumentError
from store.extras import needed_for
from store.records import RunStatus

if TYPE_CHECKING:
    from metamodel.data.task import TaskDescription
    from store import RunRecorder

SUITE = "small-nets"
VARIANTS = ("base", "wide", "long")
FAMILIES = ("mlp", "cnn", "rnn", "transformer")
WIDER, LONGER = 4, 3
DEVELOPMENT, HELD_OUT = "development", "held-out"
HALVES = (DEVELOPMENT, HELD_OUT, "all")
SCHEDULE_FREE, PRODIGY = "schedule-free", "prodigy"
"""Optimizers that need no learning rate: Defazio et al. 2024; Mishchenko and Defazio 2023."""
_EPOCH_SHARES = {"tiny": 0.2, "small": 1.0, "full": 3.0}


@dataclass(frozen=True, slots=True)
class Spec:
    """A task of the suite in its base form.

    Attributes:
        data: Name of the data set.
        shape: The network.
        epochs: Passes over the training data.
        optimizer: ``Adam``, ``AdamW`` or ``SGD``, with momentum .9.
        schedule: ``constant`` or ``cosine``.
        is_held_out: Whether it is of the half that is reported and not chosen by.
    """

    data: str
    shape: NetShape
    epochs: int
    optimizer: str = "Adam"
    schedule: str = "constant"
    is_held_out: bool = False


def _specs() -> tuple[Spec, ...]:
    dense = [
        Spec("flat-digits", NetShape("mlp", 64, 2), 15),
        Spec("arm", NetShape("mlp", 48, 3, "layer", True), 20, "AdamW"),
        Spec("tree", NetShape("mlp", 64, 2), 20, "Adam", "cosine"),
        Spec("parity", NetShape("mlp", 48, 2), 25),
        Spec("orbit", NetShape("mlp", 32, 2), 20, "SGD"),
        Spec("spirals", NetShape("mlp", 32, 3, "batch"), 20),
    ]
    convolutions = [
        Spec("shapes", NetShape("cnn", 12, 3), 8),
        Spec("textures", NetShape("cnn", 8, 3, "batch", True), 6, "AdamW"),
        Spec("counting", NetShape("cnn", 12, 3), 8, "Adam", "cosine"),
        Spec("ellipses", NetShape("cnn", 8, 4, "batch"), 8),
        Spec("digits", NetShape("cnn", 12, 2, "batch"), 8, "SGD"),
        Spec("pulses", NetShape("cnn", 16, 3), 12),
    ]
    recurrent = [
        Spec("adding", NetShape("rnn", 32, 1), 12),
        Spec("mackey-glass", NetShape("rnn", 24, 1), 10, "AdamW"),
        Spec("lorenz", NetShape("rnn", 24, 2), 10),
        Spec("brackets", NetShape("rnn", 32, 1, "layer"), 15),
        Spec("recall", NetShape("rnn", 32, 1), 12, "Adam", "cosine"),
        Spec("languages", NetShape("rnn", 24, 1), 10),
    ]
    attention = [
        Spec("lookup", NetShape("transformer", 32, 2, "layer"), 10),
        Spec("marked-sum", NetShape("transformer", 32, 1), 8, "AdamW"),
        Spec("range", NetShape("transformer", 32, 2), 8),
        Spec("distinct", NetShape("transformer", 32, 2, "layer"), 8, "AdamW", "cosine"),
        Spec("digit-rows", NetShape("transformer", 32, 2, "layer"), 8, "AdamW"),
        Spec("clouds", NetShape("transformer", 32, 1), 10),
    ]
    # Every other task of each family: both halves have classes and numbers, norms and none. The digits are all in one.
    return tuple(
        replace(spec, is_held_out=i % 2 == 1) for family in (dense, convolutions, recurrent, attention) for i, spec in enumerate(family)
    )


SPECS = {spec.data: spec for spec in _specs()}


def suite_tasks(half: str = "all", variants: tuple[str, ...] = VARIANTS) -> tuple[str, ...]:
    """Return the names of the suite's tasks.

    Args:
        half: ``development``, ``held-out`` or ``all``.
        variants: Some of ``VARIANTS``.

    Raises:
        InvalidArgumentError: If there is no such half or variant.
    """
    if half not in HALVES:
        raise InvalidArgumentError(f"The half must be one of {', '.join(HALVES)}, but got {half!r}. Pass one of these.")
    if not variants or not set(variants) <= set(VARIANTS):
        raise InvalidArgumentError(f"Variants must be some of {', '.join(VARIANTS)}, but got {', '.join(variants) or 'none'}.")
    chosen = [spec.data for spec in SPECS.values() if half == "all" or spec.is_held_out is (half == HELD_OUT)]
    return tuple(f"{SUITE}/{data}-{variant}" for data in chosen for variant in variants)


class SmallNet(LiveTask):
    """One task of the suite.

    Args:
        name: As ``suite_tasks`` gives it.

    Raises:
        InvalidArgumentError: If there is no such task.
    """

    grid = {  # noqa: RUF012  # fixed
        "learning_rate": (1e-5, 1e-1, "log"),
        "weight_decay": (1e-6, 1e-1, "log"),
        "dropout": (0.0, 0.5, "linear"),
        "batch_size": (16, 32, 64, 128),
    }
    defaults = {"learning_rate": 1e-3, "weight_decay": 0.0, "dropout": 0.1, "batch_size": 32}  # noqa: RUF012  # fixed

    def __init__(self, name: str) -> None:
        data, _, variant = name.removeprefix(f"{SUITE}/").rpartition("-")
        if data not in SPECS or variant not in VARIANTS:
            raise InvalidArgumentError(f"A task of {SUITE} must be known, but got {name!r}; possible are {', '.join(suite_tasks())}.")
        spec = SPECS[data]
        self.spec, self.variant = spec, variant
        self.shape = replace(spec.shape, width=spec.shape.width * (WIDER if variant == "wide" else 1))
        self.epochs = spec.epochs * (LONGER if variant == "long" else 1)
        is_classes = load(data, 0).n_classes is not None
        self.name = name  # type: ignore[misc]  # one class serves all of them
        self.about = f"{data}, {spec.shape.family} {variant}"  # type: ignore[misc]
        self.objective = "accuracy" if is_classes else "loss"  # type: ignore[misc]
        self.direction = "max" if is_classes else "min"  # type: ignore[misc]
        self.metrics = ("accuracy", "loss") if is_classes else ("loss",)  # type: ignore[misc]
        self.logged_objective = f"val_{self.objective}"  # type: ignore[misc]
        self.model_family = spec.shape.family  # type: ignore[misc]
        self.optimizer = spec.optimizer  # type: ignore[misc]
        self.part = HELD_OUT if spec.is_held_out else DEVELOPMENT
        # The digits are three of the data sets.
        self.same_data = (f"{SUITE}/{'digits' if 'digit' in data else data}",)  # type: ignore[misc]

    def prepare(self, training: Training) -> None:
        """Make and split the data."""
        load(self.spec.data, training.seed)

    def trained_epochs(self, epochs: int, size: str) -> int:
        """Return how many epochs are really trained."""
        return max(1, round(epochs * _EPOCH_SHARES[size]))

    def fixed(self, size: str) -> dict[str, Any]:
        """Return what every run of the task has in common and nobody may change."""
        return {
            "optimizer": self.spec.optimizer,
            "lr_scheduler": self.spec.schedule,
            "num_epochs": self.trained_epochs(self.epochs, size),
            **({"momentum": 0.9} if self.spec.optimizer == "SGD" else {}),
        }

    def describe(self, size: str) -> TaskDescription:
        """Return what a host would know of the task before anything is trained."""
        return _described(self, size)

    def train(self, config: Mapping[str, Any], training: Training) -> None:
        """Train one configuration; ``optimizer`` in it replaces the task's own."""
        data = load(self.spec.data, training.seed)
        epochs = self.trained_epochs(self.epochs, training.size)
        hparams = {**self.fixed(training.size), **config, "seed": training.seed}
        if hparams["optimizer"] == SCHEDULE_FREE:
            hparams["lr_scheduler"] = "constant"
        torch.manual_seed(1000 + training.seed)
        net = self._network(float(config.get("dropout", self.defaults["dropout"])))
        about = self.describe(training.size)
        with training.history.start_run(
            task=self.history_name(training.size),
            hparams=hparams,
            objective=self.logged_objective,
            direction=self.direction,
            description=about.to_dict(),
            model_class=about.model_class,
            model_family=about.model_family,
            n_parameters=about.n_parameters,
        ) as run:
            training.opened(run)
            if not _fit(net, data, hparams, epochs, run):
                run.finish(RunStatus.DIVERGED)
                return
            run.log({f"test_{name}": value for name, value in _measured(net, data.test, data.n_classes).items()})

    def _network(self, dropout: float) -> nn.Module:
        data = load(self.spec.data, 0)
        return build(self.shape, data.input_shape, data.n_classes or 1, dropout)


@lru_cache(maxsize=128)
def _described(task: SmallNet, size: str) -> TaskDescription:
    from metahp_tuning.task_description import describe_module
    from metamodel.data.task import TaskDescription

    data = load(task.spec.data, 0)
    with torch.device("meta"):
        net = task._network(0.1)
    features = {}
    if data.n_classes is not None:
        counts = torch.bincount(torch.as_tensor(data.train[1]), minlength=data.n_classes)
        features["class_imbalance"] = float(counts.max() / counts.min().clamp(min=1))
    return TaskDescription(
        name=task.history_name(size),
        objective=task.logged_objective,
        direction=task.direction,
        n_train=len(data.train[1]),
        n_val=len(data.val[1]),
        input_shape=data.input_shape,
        n_classes=data.n_classes,
        features=features,
        **describe_module(net),
    )


def _fit(net: nn.Module, data: Split, hparams: Mapping[str, Any], epochs: int, run: RunRecorder) -> bool:
    """Train and log every epoch; return whether it came to its end without diverging."""
    inputs, targets = (torch.from_numpy(part) for part in data.train)
    size = int(hparams["batch_size"])
    optimizer = _optimizer(net, hparams)
    n_steps = epochs * math.ceil(len(targets) / size)
    is_cosine = hparams["lr_scheduler"] == "cosine"
    step = 0
    for epoch in range(epochs):
        net.train()
        _switch(optimizer, "train")
        total = 0.0
        for index in torch.split(torch.randperm(len(targets)), size):
            if len(index) == 1:  # batch norm needs two
                continue
            if is_cosine:
                for group in optimizer.param_groups:
                    group["lr"] = group.setdefault("initial_lr", group["lr"]) * 0.5 * (1 + math.cos(math.pi * step / n_steps))
            loss = _loss(net(inputs[index]), targets[index], data.n_classes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            total += loss.item() * len(index)
        _switch(optimizer, "eval")
        if hparams["optimizer"] == SCHEDULE_FREE:
            _renew_statistics(net, inputs, size)
        found = _measured(net, data.val, data.n_classes)
        run.log({"train_loss": total / len(targets), **{f"val_{name}": value for name, value in found.items()}}, step=step, epoch=epoch + 1)
        if not (math.isfinite(total) and math.isfinite(found["loss"])):
            return False
    return True


def _optimizer(net: nn.Module, hparams: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Return the optimizer.

    Raises:
        MissingDependencyError: If its package is not installed.
    """
    name, parameters = hparams["optimizer"], net.parameters()
    settings = {"lr": hparams.get("learning_rate", 1e-3), "weight_decay": hparams.get("weight_decay", 0.0)}
    if name == "SGD":
        return torch.optim.SGD(parameters, momentum=0.9, **settings)
    if name in ("Adam", "AdamW"):
        kind: type[torch.optim.Adam | torch.optim.AdamW] = getattr(torch.optim, name)
        return kind(parameters, **settings)
    with needed_for(f"the control {name}"):
        if name == SCHEDULE_FREE:
            from schedulefree import AdamWScheduleFree

            return AdamWScheduleFree(parameters)  # type: ignore[no-any-return]
        from prodigyopt import Prodigy

        return Prodigy(parameters)  # type: ignore[no-any-return]


def _switch(optimizer: torch.optim.Optimizer, mode: str) -> None:
    """Schedule-free optimizers train at one point and are judged at another."""
    if hasattr(optimizer, mode):
        getattr(optimizer, mode)()


@torch.no_grad()
def _renew_statistics(net: nn.Module, inputs: Tensor, size: int) -> None:
    """Let batch norm see the averaged weights that are judged, as the package of schedule-free optimizers asks for."""
    if any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in net.modules()):
        for batch in torch.split(inputs, size):
            if len(batch) > 1:
                net(batch)


def _loss(outputs: Tensor, targets: Tensor, n_classes: int | None) -> Tensor:
    return F.mse_loss(outputs.squeeze(1), targets) if n_classes is None else F.cross_entropy(outputs, targets)


@torch.no_grad()
def _measured(net: nn.Module, part: tuple[Any, Any], n_classes: int | None) -> dict[str, float]:
    net.eval()
    targets = torch.from_numpy(part[1])
    outputs = net(torch.from_numpy(part[0]))
    found = {"loss": float(_loss(outputs, targets, n_classes))}
    if n_classes is not None:
        found["accuracy"] = float((outputs.argmax(1) == targets).float().mean())
    return found
