"""The batch that an optimizer step sees, and the one a device loads.

What training depends on is the global batch: samples per device x accumulated batches x processes. The meta-model therefore knows one
number, ``global_batch_size``, whatever the hardware; a host turns it into samples per device, and a user's own names into it. So a run on
two devices learns from the runs on one, and keeps their batch. A query may name it as it likes: in a space, in candidates and in limits the
name of the per-device batch means the global batch too, and a recommendation keeps the name that the query used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metamodel.space.dimensions import Space
from store.errors import InvalidArgumentError
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """How a global batch is put together.

    Attributes:
        per_device: Samples one process loads at a time.
        accumulation: Batches whose gradients one optimizer step adds up.
        world_size: Processes that train together.

    Raises:
        InvalidArgumentError: If one of them is no whole number above 0.
    """

    per_device: int
    accumulation: int = 1
    world_size: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in (("per_device", self.per_device), ("accumulation", self.accumulation), ("world_size", self.world_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgumentError(f"{name} must be a whole number, at least 1, but got {value!r}. Pass a positive count.")

    @property
    def factor(self) -> int:
        """Global samples for each sample of a device."""
        return self.accumulation * self.world_size

    @property
    def global_size(self) -> int:
        """Samples of one optimizer step."""
        return self.per_device * self.factor


def as_seen_by_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the global batch as its one batch size.

    Where a global batch is known, the samples per device and the accumulation, which it contains, are left out. Where it is not (a bare
    loop, an imported table), the one batch size there is counts as the global one.

    Args:
        config: By canonical name.
    """
    seen = dict(config)
    per_device = seen.pop(PER_DEVICE_BATCH_SIZE, None)
    if seen.get(GLOBAL_BATCH_SIZE) is not None:
        seen.pop(ACCUMULATION, None)
        return seen
    seen.pop(GLOBAL_BATCH_SIZE, None)
    return seen if per_device is None else {**seen, GLOBAL_BATCH_SIZE: per_device}


def with_global_batch(space: Space) -> Space:
    """Return a space in which the batch has the name that the meta-model knows; its dimension keeps the name that the query used."""
    if GLOBAL_BATCH_SIZE in space:
        return space
    return {GLOBAL_BATCH_SIZE if name == PER_DEVICE_BATCH_SIZE else name: dimension for name, dimension in space.items()}


def name_in_model(name: str) -> str:
    """Return the name under which the meta-model knows a hyperparameter, given its canonical name."""
    return GLOBAL_BATCH_SIZE if name == PER_DEVICE_BATCH_SIZE else name
