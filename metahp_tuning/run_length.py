"""How long a run is going to be, in full passes over the training data: epochs, steps and limited batches together."""

from __future__ import annotations

import math

from metamodel.space.batch import BatchLayout


def planned_passes(
    epochs: float | None,
    steps: int | None = None,
    *,
    n_batches: int | None = None,
    limit: int | float | None = None,
    accumulation: int = 1,
) -> float | None:
    """Return how many full passes a run is going to make, None where that cannot be known.

    Args:
        epochs: Epochs it trains for at most, None for any number.
        steps: Steps of the optimizer it trains for at most, None for any number.
        n_batches: Batches that each process loads in a full pass, None where unknown.
        limit: Batches of each epoch (a whole number, also as a float), or their share; None for all.
        accumulation: Batches of one step.
    """
    used: float | None = n_batches
    if isinstance(limit, float) and limit <= 1:
        share: float | None = limit
        if n_batches:
            used = int(n_batches * limit)
            share = used / n_batches
    elif limit is not None:
        used = limit if n_batches is None else min(limit, n_batches)
        share = used / n_batches if n_batches else None
    else:
        share = 1.0
    if not share:
        return None
    planned = [] if epochs is None else [epochs * share]
    if steps is not None:
        if not used:
            return None
        planned.append(steps / math.ceil(used / accumulation) * share)
    found = min(planned, default=0.0)
    return found if 0 < found < math.inf else None


def batches_in_pass(n_samples: int | None, layout: BatchLayout | None) -> int | None:
    """Return the batches that each process loads in a full pass, None where a size is unknown."""
    return None if not n_samples or layout is None else math.ceil(n_samples / (layout.per_device * layout.world_size))
