"""NaN in a training, which the Trainer hides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

_MAX_WEIGHTS_LOOKED_AT = 8
"""NaN gradients poison every weight they reach in one step, so a few small tensors are enough."""


class DivergenceWatch:
    """Notices NaN that ``logging_nan_inf_filter`` hides, from what is logged anyway: constant time, no synchronisation.

    The filter replaces a NaN loss by a mean of earlier ones. The gradient norm is not filtered. Under fp16 a single bad gradient
    is normal (the scaler skips that step), so a finite evaluation loss, or a finite gradient norm, afterwards clears it. Other
    metrics do not: an accuracy of NaN predictions is a number.

    Args:
        objective: Name of the objective, None if there is none.
    """

    def __init__(self, objective: str | None = None) -> None:
        self._objective = objective
        self._bad: set[str] = set()

    def see(self, logs: Mapping[str, Any]) -> None:
        """Look at one set of logged values."""
        for name, value in logs.items():
            is_loss = name.startswith("eval_") and name.endswith("loss")
            if not _is_finite(value) and (name in ("grad_norm", self._objective) or is_loss):
                self._bad.add(name)
            elif name == "grad_norm":
                self._bad.clear()
            elif is_loss or name == self._objective:  # of one evaluation set, which says nothing of the others
                self._bad -= {name, "grad_norm"} if is_loss else {name}

    def is_diverged(self, model: nn.Module | None) -> bool:
        """Say whether the training ended in NaN; a few weights are looked at for runs too short to have logged a gradient norm."""
        return bool(self._bad) or (model is not None and _has_bad_weights(model))


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return True  # not a number: no sign of divergence


def _has_bad_weights(model: nn.Module) -> bool:
    trained = sorted((p for p in model.parameters() if p.requires_grad and p.numel() > 0), key=torch.Tensor.numel)
    return any(not bool(torch.isfinite(p.detach()).all()) for p in trained[:_MAX_WEIGHTS_LOOKED_AT])
