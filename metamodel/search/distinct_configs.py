"""Several recommendations at once, each of which differs from the others by more than noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from metamodel.search.maximizer import best_configs
from metamodel.search.task_surrogate import TaskSurrogate
from metamodel.space.dimensions import Space


def distinct_configs(surrogate: TaskSurrogate, space: Space, k: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Find up to ``k`` configurations that differ from each other, best first.

    Exploring, each counts as if it had ended as expected before the next is chosen (the kriging believer).
    Else they are the best ones whose outcomes can be told apart.

    Args:
        surrogate: The meta-model, conditioned on the task.
        space: The space, not empty.
        k: How many.
        rng: Source of randomness.
    """
    search = surrogate.acquisition, space, surrogate.coordinates, surrogate.elites()
    if surrogate.mode != "explore" or k == 1:
        return best_configs(*search, k, rng, is_alike=surrogate.is_alike)
    chosen: list[dict[str, Any]] = []
    while len(chosen) < k:
        found = best_configs(surrogate.acquisition, *search[1:], 1, rng, taken=chosen)
        if not found:
            break
        chosen += found
        surrogate = surrogate.with_pending(found)
    return chosen
