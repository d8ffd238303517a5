"""Hard limits of a batch per device: the share of the data a process sees, and the memory of its card."""

from __future__ import annotations

from metahp_tuning.lazy_history import LazyHistory
from metahp_tuning.precedence import Constraint
from metamodel.data.task import TaskDescription
from store.hyperparameters import PER_DEVICE_BATCH_SIZE


def batch_limits(history: LazyHistory, description: TaskDescription, world_size: int, precision: str | None) -> list[Constraint]:
    """Return the tightest limit of a batch per device, as a list of at most one.

    Args:
        history: Where runs that ran out of memory are.
        description: What is trained.
        world_size: Processes that share the data.
        precision: How numbers are held: what ran out of memory in 32 bits says nothing about 16.
    """
    found = []
    if description.n_train:
        share = max(1, description.n_train // max(1, world_size))
        found.append(Constraint(PER_DEVICE_BATCH_SIZE, share, f"the data set has {description.n_train} samples"))
    if not history.is_new:
        from metahp_tuning.memory_limit import known_limit, this_card

        memory = known_limit(history.history, description, this_card(), precision)
        if memory is not None:
            found.append(Constraint(PER_DEVICE_BATCH_SIZE, memory.max_per_device, memory.reason))
    return sorted(found, key=lambda limit: limit.high)[:1]
