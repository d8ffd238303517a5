"""Dropout lives in layers that are made in ``__init__`` and read each time they run, so it can still be changed when training starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from store.names import canonical_name
from store.values import same_value


def is_rate_name(raw_name: str) -> bool:
    """Say whether a hyperparameter is a dropout rate by its name: ``dropout``, ``attn_dropout``, ``drop_rate``."""
    return canonical_name(raw_name) == "dropout" or "dropout" in raw_name.lower()


def rate_holders(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return every layer that drops with the attribute that holds its rate.

    These are the ``p`` of dropout layers, and the ``dropout`` of recurrent, attention and other layers that keep it as a number. The
    module itself is left out: its attributes are hyperparameters.
    """
    found: list[tuple[nn.Module, str]] = []
    for layer in module.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            found.append((layer, "p"))
        elif layer is not module and isinstance(vars(layer).get("dropout"), float | int) and not isinstance(layer, torch.jit.ScriptModule):
            found.append((layer, "dropout"))
    return found


def rates(module: nn.Module) -> list[float]:
    """Return the distinct dropout rates of a module's layers, in increasing order."""
    return sorted({float(getattr(layer, name)) for layer, name in rate_holders(module)})


def layers_at(module: nn.Module, rate: Any) -> list[tuple[nn.Module, str]]:
    """Return the layers whose rate is this one."""
    return [(layer, name) for layer, name in rate_holders(module) if same_value(float(getattr(layer, name)), rate)]


def why_not(module: nn.Module, raw_name: str, rate: Any, others: Mapping[str, Any], *, is_attribute: bool) -> str | None:
    """Say why the layers that hold a rate cannot be told, or None where they can.

    Args:
        module: The module, its layers made.
        raw_name: Name of the rate.
        rate: Its present value.
        others: The module's other hyperparameters; one with the same rate makes its layers indistinguishable.
        is_attribute: Whether the module has a hyperparameter of this name.
    """
    known = rates(module)
    if not is_attribute and len(known) > 1:
        shown = ", ".join(f"{value:g}" for value in known)
        return f"the layers have several rates ({shown}) and no hyperparameter says which one is meant; give the module an argument for it"
    twins = sorted(
        name for name, value in others.items() if name != raw_name and is_rate_name(name) and _is_number(value) and same_value(value, rate)
    )
    if twins:
        return f"{' and '.join([raw_name, *twins])} have the same value, so their layers cannot be told apart"
    if layers_at(module, rate):
        return None
    shown = ", ".join(f"{value:g}" for value in known) or "none"
    return f"no layer drops with this rate (rates of the layers: {shown}); make the layers in configure_model(), or read it in forward()"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
