"""From a global batch to samples per device and accumulated batches, and from a user's space of these to one of global batches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metamodel.space.batch import BatchLayout
from store.errors import InvalidArgumentError
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.names import canonical_name

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_LISTED_ACCUMULATION = 64
"""Entries of a range of accumulations that are looked at one by one."""


def split_global(
    global_size: float,
    world_size: int,
    accumulations: Sequence[int] = (1,),
    *,
    sizes: Collection[int] | None = None,
    max_per_device: float | None = None,
) -> BatchLayout:
    """Split a global batch over processes and accumulated batches.

    The result comes as near to the global batch as whole numbers allow. Of several exact splits the one with the fewest accumulated
    batches wins: larger device batches are faster.

    Args:
        global_size: Samples of one optimizer step.
        world_size: Processes that train together.
        accumulations: Possible numbers of accumulated batches; one element where accumulation is fixed.
        sizes: Possible sizes per device, None for any.
        max_per_device: Largest size per device, None for no limit. Where no possible size fits below it, the smallest is taken.

    Raises:
        InvalidArgumentError: If ``accumulations`` or ``sizes`` is empty, or a number is below 1.
    """
    if not accumulations or (sizes is not None and not sizes):
        raise InvalidArgumentError(
            f"A batch needs a possible size and accumulation, but got accumulations={accumulations!r}, sizes={sizes!r}. List at least one."
        )
    limit = float("inf") if max_per_device is None else max(1.0, max_per_device)
    best: tuple[float, int, int] | None = None
    for accumulation in sorted(set(accumulations)):
        BatchLayout(1, accumulation, world_size)  # checks the numbers
        exact = float(global_size) / (accumulation * world_size)
        if sizes is None:
            size = max(1, round(min(exact, limit // 1)))
        else:
            possible = [size for size in sizes if size <= limit] or [min(sizes)]
            size = min(possible, key=lambda size: (abs(size - exact), size))
        key = (abs(size * accumulation * world_size - global_size), accumulation, size)
        best = key if best is None or key < best else best
    if best is None:
        raise AssertionError("accumulations was checked above")
    return BatchLayout(best[2], best[1], world_size)


def global_space(space: Mapping[str, Any], layout: BatchLayout) -> dict[str, Any]:
    """Turn a user's space, whose batch size is per device, into one whose batch size is global.

    Where a space names both the batch size and the accumulation, or the accumulation alone, what it offers is a set of global batches:
    ``split_global`` finds the two numbers for the one that is chosen.

    Args:
        space: Raw name -> Optuna distribution or list of values.
        layout: How the batch is put together without us.

    Returns:
        The space to ask the meta-model with. With one process and no accumulation it is the same as before.
    """
    by_name = {canonical_name(raw): raw for raw in space}
    has_accumulation = ACCUMULATION in by_name and GLOBAL_BATCH_SIZE not in by_name
    if not has_accumulation and (PER_DEVICE_BATCH_SIZE not in by_name or layout.factor == 1):
        return dict(space)
    if GLOBAL_BATCH_SIZE in by_name:
        return {raw: values for raw, values in space.items() if canonical_name(raw) != PER_DEVICE_BATCH_SIZE}
    sizes: Any = space[by_name[PER_DEVICE_BATCH_SIZE]] if PER_DEVICE_BATCH_SIZE in by_name else [layout.per_device]
    factors = [layout.accumulation] if not has_accumulation else whole_numbers(space[by_name[ACCUMULATION]])
    factors = sorted({factor * layout.world_size for factor in factors or [layout.accumulation]})
    offered = _scaled(sizes, factors)
    wanted = {PER_DEVICE_BATCH_SIZE, ACCUMULATION} if has_accumulation else {PER_DEVICE_BATCH_SIZE}
    result: dict[str, Any] = {}
    for raw, values in space.items():
        if canonical_name(raw) not in wanted:
            result[raw] = values
        elif GLOBAL_BATCH_SIZE not in result:
            result[GLOBAL_BATCH_SIZE] = offered
    return result


def per_device_config(
    config: Mapping[str, Any],
    layout: BatchLayout,
    space: Mapping[str, Any] | None = None,
    *,
    max_per_device: float | None = None,
) -> dict[str, Any]:
    """Turn the global batch of a recommendation into what a host sets.

    Args:
        config: A recommendation's configuration, raw or canonical names; ``batch_size`` and ``global_batch_size`` mean the global batch.
        layout: How the batch is put together without us; its world size and, unless the space names it, its accumulation are given.
        space: The user's own space, whose lists of sizes and accumulations are kept to.
        max_per_device: Largest size a device can take.

    Returns:
        The configuration by canonical name, with ``batch_size`` per device and, where the space names it, the accumulation.
    """
    result = {canonical_name(raw): value for raw, value in config.items()}
    size = result.pop(GLOBAL_BATCH_SIZE, result.pop(PER_DEVICE_BATCH_SIZE, None))
    if size is None:
        return result
    by_name = {canonical_name(raw): values for raw, values in (space or {}).items()}
    accumulations: Sequence[int] = [layout.accumulation]
    if ACCUMULATION in by_name:
        accumulations = whole_numbers(by_name[ACCUMULATION]) or accumulations
    sizes: Collection[int] | None = (
        whole_numbers(by_name[PER_DEVICE_BATCH_SIZE]) if isinstance(by_name.get(PER_DEVICE_BATCH_SIZE), list | tuple) else None
    )
    if ACCUMULATION in by_name and PER_DEVICE_BATCH_SIZE not in by_name and GLOBAL_BATCH_SIZE not in by_name:
        sizes = [layout.per_device]
    found = split_global(size, layout.world_size, accumulations, sizes=sizes or None, max_per_device=max_per_device)
    result[PER_DEVICE_BATCH_SIZE] = found.per_device
    if ACCUMULATION in by_name:
        result[ACCUMULATION] = found.accumulation
    return result


def whole_numbers(values: Any) -> list[int]:
    """Return the whole numbers above 0 that a list or an integer distribution offers; none for anything else."""
    if hasattr(values, "choices"):
        values = list(values.choices)
    if isinstance(values, list | tuple):
        return sorted({int(value) for value in values if not isinstance(value, bool) and value == int(value) and value >= 1})
    if not hasattr(values, "low") or values.low != int(values.low):
        return []
    low, high = max(1, int(values.low)), int(values.high)
    step = int(getattr(values, "step", 1) or 1)
    listed = list(range(low, high + 1, step))
    if len(listed) <= MAX_LISTED_ACCUMULATION:
        return listed
    # Of a long range only its powers of two and its ends are taken.
    return sorted({low, high, *(2**power for power in range(high.bit_length()) if low <= 2**power <= high)})


def _scaled(sizes: Any, factors: Sequence[int]) -> BaseDistribution | list[Any]:
    """Multiply every size on offer by every factor; a range stays a range, of the smallest to the largest product."""
    if hasattr(sizes, "choices"):
        sizes = list(sizes.choices)
    if isinstance(sizes, list | tuple):
        return sorted({size * factor for size in sizes for factor in factors})
    from optuna.distributions import IntDistribution

    step = 1 if sizes.log or len(factors) > 1 else int((getattr(sizes, "step", 1) or 1) * factors[0])
    low, high = int(sizes.low * factors[0]), int(sizes.high * factors[-1])
    return IntDistribution(low, high, log=bool(sizes.log), step=step)
