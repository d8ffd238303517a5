"""Which past tasks are like a new one, by what is known of them before training: sizes, classes, imbalance.

With few tasks such descriptors tempt any flexible model (they name each task), so they enter through one number only, the width of a kernel
over them, and only where leaving each past task out shows that they help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from metamodel.space import LOG_RATIO
from metamodel.task_gps import FloatArray, TaskGPs

WIDTHS = (2.0, 1.0, 0.6, 0.4)
MIN_TASKS = 8
"""Described tasks from which a width can be judged."""
MIN_CERTAINTY = 2.0
"""Standard errors by which descriptors must help before they count."""
MAX_JUDGED = 64
"""Tasks the widths are judged on; the work grows with their square."""
MIN_PRESENT = 0.8
"""Share of the tasks that must have a descriptor for it to count."""


@dataclass(frozen=True)
class Relatedness:
    """Weights of past tasks by their descriptors.

    Attributes:
        names: Descriptors used, ``f`` of them.
        is_log: Which of them are taken as logarithms: sizes that span decades.
        centre: Their means, shape ``(f,)``.
        scale: Their standard deviations, shape ``(f,)``.
        values: Standardised descriptors of the past tasks, shape ``(T, f)``; unknown ones are 0.
        width: Width of the kernel in standard deviations; None where descriptors do not help, then all tasks weigh the same.
    """

    names: tuple[str, ...]
    is_log: tuple[bool, ...]
    centre: FloatArray
    scale: FloatArray
    values: FloatArray
    width: float | None = None

    def weights(self, features: Mapping[str, float], keep: npt.NDArray[np.bool_] | None = None) -> FloatArray:
        """Return the weight of each past task for a new one.

        Args:
            features: Descriptors of the new task; with none of them known all tasks weigh the same.
            keep: Which past tasks may count, shape ``(T,)``.

        Returns:
            Shape ``(T,)``, sum 1; 0 where ``keep`` is false.
        """
        row = np.nan_to_num((_row(features, self.names, self.is_log) - self.centre) / self.scale)
        known = any(name in features for name in self.names)
        distance = np.square(self.values - row).mean(1) if self.width is not None and known else np.zeros(len(self.values))
        return _kernel(distance, self.width or 1.0, np.ones(len(distance), dtype=bool) if keep is None else keep)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "names": list(self.names),
            "is_log": list(self.is_log),
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "values": self.values.tolist(),
            "width": self.width,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Relatedness:
        """Rebuild from ``to_json``."""
        names = tuple(content["names"])
        values = np.asarray(content["values"], dtype=np.float64).reshape(len(content["values"]), len(names))
        centre, scale = (np.asarray(content[key], dtype=np.float64) for key in ("centre", "scale"))
        return cls(names, tuple(content["is_log"]), centre, scale, values, content["width"])


def fit_relatedness(features: Sequence[Mapping[str, float]], tasks: TaskGPs, seed: int = 0) -> Relatedness:
    """Choose descriptors and the width of the kernel over them.

    Each past task is predicted from the others, weighted by the kernel; the width is taken whose squared error is most surely smaller than
    that of equal weights, if it is by more than ``MIN_CERTAINTY`` standard errors over tasks.

    Args:
        features: Descriptors of the past tasks, ``T`` mappings.
        tasks: The past tasks.
        seed: Which tasks are judged where there are many.
    """
    names = tuple(name for name in sorted({name for item in features for name in item}) if _is_telling(name, features))
    is_log = tuple(_spans_decades([float(item[name]) for item in features if name in item]) for name in names)
    values = np.array([_row(item, names, is_log) for item in features], dtype=np.float64).reshape(len(features), len(names))
    centre, scale = (np.nanmean(values, axis=0), np.nanstd(values, axis=0)) if names else (np.zeros(0), np.zeros(0))
    standardised = np.nan_to_num((values - centre) / scale) if names else values
    found = Relatedness(names, is_log, centre, scale, standardised)
    if not names or len(features) < MIN_TASKS:
        return found
    judged = np.arange(len(features))
    if len(judged) > MAX_JUDGED:
        judged = np.sort(np.random.default_rng(seed).choice(judged, MAX_JUDGED, replace=False))
    errors = _left_out_errors(standardised[judged], tasks.chosen(judged))
    gains = errors[:, :1] - errors[:, 1:]
    # The surest gain, not the largest: narrow kernels fit the many ordinary runs better, but leave fewer tasks to find the best ones.
    certainty = gains.mean(0) / (gains.std(0, ddof=1) / np.sqrt(len(gains)) + 1e-12)
    best = int(np.argmax(certainty))
    return replace(found, width=WIDTHS[best]) if certainty[best] > MIN_CERTAINTY else found


def _row(features: Mapping[str, float], names: Sequence[str], is_log: Sequence[bool]) -> FloatArray:
    """Return the descriptors as numbers, shape ``(f,)``, NaN where unknown or without a logarithm."""
    row = np.array([float(features.get(name, np.nan)) for name in names], dtype=np.float64)
    logs = np.array(is_log, dtype=bool)
    row[logs] = np.log10(np.where(row[logs] > 0, row[logs], np.nan))
    return row


def _spans_decades(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > LOG_RATIO * min(values)


def _is_telling(name: str, features: Sequence[Mapping[str, float]]) -> bool:
    values = [float(item[name]) for item in features if name in item]
    return len(values) >= MIN_PRESENT * len(features) and bool(np.isfinite(values).all()) and float(np.std(values)) > 1e-9


def _left_out_errors(values: FloatArray, tasks: TaskGPs) -> FloatArray:
    """Return the mean squared error of each task's prediction from the others, shape ``(T, 1 + widths)``, equal weights first."""
    errors = np.zeros((len(values), 1 + len(WIDTHS)))
    for i in range(len(values)):
        mask = tasks.mask[i]
        means = tasks.predict(tasks.scaled[i][mask])[0].double().numpy()
        target = tasks.scores[i][mask].double().numpy()
        others = np.arange(len(values)) != i
        distance = np.square(values - values[i]).mean(1)
        for j, width in enumerate((None, *WIDTHS)):
            weights = _kernel(distance if width is not None else np.zeros(len(distance)), width or 1.0, others)
            errors[i, j] = np.square(target - weights @ means).mean()
    return errors


def _kernel(distance: FloatArray, width: float, keep: npt.NDArray[np.bool_]) -> FloatArray:
    logits = np.where(keep, -0.5 * distance / width**2, -np.inf)
    weights = np.exp(logits - logits[keep].max())
    result: FloatArray = weights / weights.sum()
    return result
