"""What an optimizer and a schedule are, read from the objects themselves, and whether a setting is in force in their groups.

Users give an optimizer as a class, a partial, a dictionary or a dotted text; it is known by the name of its class. The learning rate
that a user turns is a setting; parameter groups may have it as it is, or values that follow from it: layer-wise decay, a head at ten
times the rate.
Nothing here raises for an object it does not know: what cannot be read is absent.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch

from store.hyperparameters import hyperparameter
from store.values import read_item, same_value

_CLASS_KEYS = ("class_path", "_target_")
"""Under which LightningCLI and hydra keep the class of an object that is to be made."""


def optimizer_name(value: object) -> str | None:
    """Return the class name of the optimizer that a user's value stands for, None where it stands for none.

    Args:
        value: An optimizer, its class, a partial of it, ``{"class_path": ...}`` as LightningCLI and ``{"_target_": ...}`` as hydra
            write it, a dotted text, or a function whose code names one optimizer: ``lambda params: torch.optim.SGD(params, lr=0.1)``.
    """
    if isinstance(value, torch.optim.Optimizer):
        return type(value).__name__
    if isinstance(value, functools.partial):
        return optimizer_name(value.func)
    if isinstance(value, type):
        return value.__name__ if _is_optimizer(value) else None
    if isinstance(value, Mapping):
        path = next((read_item(value, key) for key in _CLASS_KEYS if key in value), None)
        return _named_by(path) if isinstance(path, str) else None
    if isinstance(value, str):
        return _named_by(value) if "." in value else None
    if not isinstance(value, FunctionType):
        return None
    scope = value.__globals__
    named = {name for name in value.__code__.co_names if _is_optimizer(scope.get(name)) or _is_optimizer(getattr(torch.optim, name, None))}
    return next(iter(named)) if len(named) == 1 else None


def optimizer_arguments(value: object) -> Mapping[str, Any]:
    """Return the arguments that a partial or a dictionary already holds for an optimizer, by name; empty where it holds none."""
    if optimizer_name(value) is None:
        return {}
    if isinstance(value, functools.partial):
        return dict(value.keywords)
    if not isinstance(value, Mapping):
        return {}
    arguments = read_item(value, "init_args") if "class_path" in value else value
    names = arguments if isinstance(arguments, Mapping) else ()
    return {name: read_item(arguments, name) for name in names if isinstance(name, str) and not name.startswith("_")}


def with_argument(value: Any, name: str, argument: Any) -> Any:
    """Return a partial or dictionary with another value for one of the arguments it holds; the given one stays as it is."""
    if isinstance(value, functools.partial):
        twin = copy.copy(value)  # of hydra's own class of partials it keeps what they carry besides
        state = (value.func, value.args, {**value.keywords, name: argument}, dict(vars(value)) or None)
        twin.__setstate__(state)  # type: ignore[attr-defined]  # not in the stubs
        return twin
    changed = copy.deepcopy(value)
    (changed["init_args"] if "class_path" in changed else changed)[name] = argument
    return changed


def _named_by(path: str) -> str | None:
    """Return the last part of a dotted text that names an optimizer class; nothing is imported for it."""
    home, _, name = path.rpartition(".")
    made = getattr(sys.modules.get(home), name, None)
    is_known = _is_optimizer(made) or "optim" in home.split(".") or _is_optimizer(getattr(torch.optim, name, None))
    return name if is_known else None


def _is_optimizer(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer)


def group_values(groups: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Return the value of a hyperparameter in each parameter group that has it, as it was before any schedule.

    Args:
        groups: ``optimizer.param_groups``, of several optimizers one after the other.
        name: Canonical name: ``learning_rate``, ``weight_decay`` or ``momentum``; of a schedule with a peak of its own it is the peak.
    """
    row = hyperparameter(name)
    key = name if row is None or row.group_key is None else row.group_key
    found = []
    for group in groups:
        value = group.get("max_lr", group.get("initial_lr", group.get("lr"))) if key == "lr" else group.get(key)
        if key == "momentum" and value is None and "betas" in group:
            value = group["betas"][0]
        value = group.get("max_momentum", value) if key == "momentum" else value
        plain = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            found.append(float(plain))
    return found


def value_in_force(values: Sequence[float], setting: float, instead_of: float | None = None) -> float | None:
    """Return the setting where parameter groups follow from it, else what the first of them has; None where there are no groups.

    A host reads the groups with ``group_values`` once training starts, and asks here whether the setting that the user turns
    (``hparams.lr``, ``args.learning_rate``) is in force. Where the answer is the setting, the setting is what was observed, whatever
    the first group has: layer-wise decay, a head at ten times the rate, a rate scaled with the batch. Any other answer means that it
    is not in force at all: warn, and record the answer.

    Args:
        values: The values of the groups.
        setting: What the setting is now.
        instead_of: What it was before a recommendation replaced it, None where nothing was replaced.

    Returns:
        The setting if one group has it; or if a group is a plain multiple of it (10, 1/8, the square root of 2, .9 ** 2) and no
        plainer number or multiple of the old setting. Groups that say nothing either way count as following.
    """
    if not values:
        return None
    if any(same_value(value, setting) for value in values):
        return setting
    if all(instead_of is not None and same_value(value, instead_of) for value in values):
        return values[0]
    return setting if any(_follows(value, setting, instead_of) for value in values) else values[0]


def _follows(value: float, setting: float, instead_of: float | None) -> bool:
    if not all(math.isfinite(number) and number for number in (value, setting)) or (value < 0) is not (setting < 0):
        return False
    if instead_of is not None and same_value(value, instead_of):
        return False
    others = [_digits(value)] + ([] if not instead_of else [_plainness(value / instead_of)])
    return _plainness(value / setting) <= min(others)


def _plainness(ratio: float) -> int:
    """Return in how few digits a ratio, its inverse or its square can be written: 1 for 10, 1/3 and the square root of 2."""
    return min(_digits(ratio), _digits(1 / ratio), _digits(ratio * ratio))


def _digits(number: float) -> int:
    """Return the significant digits of a number, of nine at most: 3 for 0.0125."""
    return len(f"{number:.8e}".partition("e")[0].replace(".", "").strip("-").rstrip("0"))


def read_optimizer(optimizer: Any) -> dict[str, Any]:
    """Read what an optimizer really uses.

    Args:
        optimizer: A torch optimizer, or anything with ``param_groups``.

    Returns:
        ``optimizer`` (class name) and ``optimizer.<name>`` for every scalar of the first parameter group; further groups as
        ``optimizer.<index>.<name>`` where they differ from it. ``lr`` is the value before any schedule (``initial_lr``).
    """
    values: dict[str, Any] = {"optimizer": type(optimizer).__name__}
    first: dict[str, Any] = {}
    for index, group in enumerate(getattr(optimizer, "param_groups", [])):
        scalars = _group_scalars(group)
        if index == 0:
            first = scalars
            values.update({f"optimizer.{name}": value for name, value in scalars.items()})
        else:
            values.update({f"optimizer.{index}.{name}": value for name, value in scalars.items() if first.get(name) != value})
    return values


_GROUP_PLUMBING = frozenset(
    {"params", "param_names", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}
    | {"foreach", "capturable", "differentiable", "fused", "maximize"}
)


def _group_scalars(group: Mapping[str, Any]) -> dict[str, Any]:
    scalars = {}
    for name, value in {**group, "lr": group.get("initial_lr", group.get("lr"))}.items():
        plain = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        is_scalar = isinstance(plain, bool | int | float | str)
        is_scalars = isinstance(plain, tuple | list) and all(isinstance(item, int | float) for item in plain)
        if name not in _GROUP_PLUMBING and (is_scalar or is_scalars):
            scalars[name] = tuple(plain) if isinstance(plain, list) else plain
    return scalars


def read_scheduler(scheduler: Any) -> dict[str, Any]:
    """Read what a learning rate schedule was made with.

    Returns:
        ``lr_scheduler`` (class name), and ``lr_scheduler.<name>`` for each scalar argument of its constructor that it keeps as a
        public attribute; ``lr_scheduler.max_lr`` where it has a peak of its own.
    """
    values: dict[str, Any] = {"lr_scheduler": type(scheduler).__name__}
    try:
        names = list(inspect.signature(type(scheduler).__init__).parameters)
    except (TypeError, ValueError):
        names = []
    for name in names:
        value = getattr(scheduler, name, None)
        if name not in ("self", "last_epoch", "verbose") and isinstance(value, bool | int | float | str):
            values[f"lr_scheduler.{name}"] = value
    groups = getattr(getattr(scheduler, "optimizer", None), "param_groups", None) or [{}]
    peak = groups[0].get("max_lr")
    if "max_lr" in names and isinstance(peak, int | float):
        values["lr_scheduler.max_lr"] = peak
    return values
