"""How far recommended hyperparameters are from the best ones, in the units people think in.

A learning rate is wrong by a factor, so its error is counted in powers of ten; a batch size is right or wrong, and else wrong by so many
doublings; numbers of layers and dropout are wrong by a difference; a label is right or wrong.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from metamodel.space.dimensions import is_number
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE, Scale, has_scale

EXACT, LOG10, LOG2, ABSOLUTE = "exact", "log10_error", "log2_error", "absolute_error"
_DOUBLINGS = frozenset({PER_DEVICE_BATCH_SIZE, GLOBAL_BATCH_SIZE})


def hyperparameter_errors(
    recommended: Mapping[str, Any], optimum: Mapping[str, Any], is_log: Collection[str] = ()
) -> dict[str, dict[str, float]]:
    """Compare a recommended configuration with the best one.

    Args:
        recommended: By canonical name.
        optimum: By canonical name.
        is_log: Further names whose numbers are compared by factors, in powers of ten.

    Returns:
        For each name both have: ``log10_error`` of learning rates and the like, ``exact`` (1 or 0) and ``log2_error`` of batch sizes,
        ``absolute_error`` of other numbers, ``exact`` of labels. A log of a number that is not positive is left out.
    """
    found: dict[str, dict[str, float]] = {}
    for name, best in optimum.items():
        if name not in recommended or best is None or recommended[name] is None:
            continue
        given = recommended[name]
        if not (is_number(best) and is_number(given)):
            found[name] = {EXACT: float(given == best)}
            continue
        a, b = float(given), float(best)
        if name in _DOUBLINGS and min(a, b) > 0:
            found[name] = {EXACT: float(a == b), LOG2: abs(math.log2(a / b))}
        elif has_scale(name, Scale.LOG) or name in is_log:
            if min(a, b) > 0:
                found[name] = {LOG10: abs(math.log10(a / b))}
        else:
            found[name] = {ABSOLUTE: abs(a - b)}
    return found


def mean_errors(errors: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Average errors over tasks; the mean of ``exact`` is the rate of exact matches."""
    values: dict[str, dict[str, list[float]]] = {}
    for item in errors:
        for name, measures in item.items():
            for measure, value in measures.items():
                values.setdefault(name, {}).setdefault(measure, []).append(value)
    return {name: {measure: sum(seen) / len(seen) for measure, seen in measures.items()} for name, measures in sorted(values.items())}
