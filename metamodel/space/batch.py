"""The batch that an optimizer step sees, and the one a device loads.

What training depends on is the global batch: samples per device x accumulated batches x processes. The meta-model therefore knows
one number, the global batch, whatever the hardware; a host turns it into samples per device, and a user's own names into it. So a run
on two devices learns from the runs on one, and keeps their batch. Inside the meta-model the number is called ``batch_size``; in a
recommendation ``batch_size`` and ``global_batch_size`` both mean the global batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.errors import InvalidArgumentError

PER_DEVICE = "batch_size"
GLOBAL = "global_batch_size"
ACCUMULATION = "gradient_accumulation_steps"


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

    Where a global batch is known it takes the place of the samples per device, and the accumulation, which it contains, is left out.
    A batch size that stands alone (a bare loop, an imported table) is the global one.

    Args:
        config: By canonical name.
    """
    seen = dict(config)
    size = seen.pop(GLOBAL, None)
    if size is not None:
        seen[PER_DEVICE] = size
        seen.pop(ACCUMULATION, None)
    return seen
