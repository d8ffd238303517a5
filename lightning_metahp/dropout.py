"""Dropout lives in layers that are made in ``__init__`` and read each time they run, so it can still be changed when training starts."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_metahp.second_building import UnrepeatableError, driven_numbers, forget
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


def why_several(module: nn.Module) -> str | None:
    """Say why layers that no hyperparameter made cannot be told apart, or None where they all have one rate."""
    known = rates(module)
    shown = ", ".join(f"{value:g}" for value in known)
    if len(known) > 1:
        return f"the layers have several rates ({shown}) and no hyperparameter says which one is meant; give the module an argument for it"
    return None if known else "no layer drops; make the layers in configure_model(), or read it in forward()"


_OTHER_RATE = 0.12345678901
"""A rate that no module has by itself."""


def driven_rates(
    module: LightningModule, raw_name: str, old: Any, new: Any, *, is_built: bool
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return where in a module's layers a rate ended up: path and attribute -> what is there, and what belongs there for another rate.

    Raises:
        UnrepeatableError: If that cannot be known.
    """
    found = driven_numbers(module, raw_name, old, _OTHER_RATE, is_built=is_built)
    if not found or same_value(new, _OTHER_RATE):
        return found
    try:
        return driven_numbers(module, raw_name, old, new, is_built=is_built)
    except UnrepeatableError:
        # Without dropout many a module makes no layer for it; a layer with a rate of zero does the same.
        if not all(same_value(there / old, other / _OTHER_RATE) for there, other in found.values()):
            raise
        return {place: (there, there / old * new) for place, (there, _) in found.items()}


def why_unknown(module: LightningModule, raw_name: str, rate: Any, *, is_built: bool) -> str | None:
    """Say why the layers that a rate made cannot be told, empty where it made none, None where they are known."""
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        return f"a rate is a number, and it is a {type(rate).__name__}"
    forget(module)
    try:
        return None if driven_rates(module, raw_name, rate, _OTHER_RATE, is_built=is_built) else ""
    except UnrepeatableError as error:
        return f"which layers it made cannot be known: {error}"
