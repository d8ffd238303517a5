"""Which source tasks are like a new one, by what is known of them before training: sizes, classes, imbalance.

The task effects (``task_gps``) are correlated by descriptors: ``B = (1 - rho) 1 + rho K`` with a squared-exponential
kernel ``K`` over descriptors, an inverse squared width each. With few tasks descriptors tempt any flexible model (they name each task),
so ``rho`` and the widths are learned by their likelihood, where a width says "does not matter" unless the tasks contradict.

References:
    Bonilla, Chai & Williams, "Kernel multi-task learning using task-specific features", AISTATS 2007.
    MacKay, "Bayesian non-linear modelling for the prediction competition", 1994 (automatic relevance determination).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from metamodel.space.arrays import FloatArray
from metamodel.space.dimensions import LOG_RATIO

MIN_DESCRIBED_TASKS = 8
"""Described tasks from which widths can be learned."""
MAX_LEARNED = 128
"""Tasks the widths are learned from; the work grows with the cube of their number."""
MIN_PRESENT = 0.8
"""Share of the tasks that must have a descriptor for it to count."""
DESCRIPTOR_MARGIN = 0.25
"""Standard deviations by which a new task may lie outside what was seen; beyond, it counts as the outermost one."""
MIXTURE_SHARPENING = 2.0
"""Factor on the inverse widths where tasks are mixed instead of regressed on: a mixture has no negative weights."""
MIN_INVERSE_WIDTH = 0.02
"""Inverse squared width below which a descriptor changes nothing: tasks four standard deviations apart stay correlated by 0.85."""

MIN_CORRELATION = 0.15
"""``rho`` below which descriptors are not used: what they explain is smaller than what noise makes them explain."""

_LOGIT_SPREAD = 1.5
"""Weak prior of ``rho``: about one half, before anything is seen."""
_STARTS = (-2.0, -0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Relatedness:
    """How source tasks are related to a new one.

    Attributes:
        names: Descriptors used, ``f`` of them.
        is_log: Which of them are taken as logarithms: sizes that span decades.
        centre: Their means, shape ``(f,)``.
        scale: Their standard deviations, shape ``(f,)``.
        values: Standardised descriptors of the source tasks, shape ``(T, f)``; unknown ones are 0.
        inverse_widths: Inverse squared widths, shape ``(f,)``; 0 where a descriptor does not matter.
        correlation: ``rho``, in [0, 1]: which part of the task effects descriptors can explain; 0 where nothing was learned.
    """

    names: tuple[str, ...]
    is_log: tuple[bool, ...]
    centre: FloatArray
    scale: FloatArray
    values: FloatArray
    inverse_widths: FloatArray
    correlation: float = 0.0

    @property
    def informative(self) -> list[str]:
        """Descriptors that make a difference."""
        if self.correlation <= 0:
            return []
        return [name for name, width in zip(self.names, self.inverse_widths, strict=True) if width >= MIN_INVERSE_WIDTH]

    def weights(self, features: Mapping[str, float], keep: npt.NDArray[np.bool_] | None = None) -> FloatArray:
        """Return the weight of each source task in a mixture.

        Args:
            features: Descriptors of the new task; with none of them known all tasks weigh the same.
            keep: Which source tasks may count, shape ``(T,)``.

        Returns:
            Shape ``(T,)``, sum 1; 0 where ``keep`` is false.
        """
        distance = MIXTURE_SHARPENING * self._distance(self._row(features)) if self._is_known(features) else np.zeros(len(self.values))
        kept = np.ones(len(distance), dtype=bool) if keep is None else keep
        logits = np.where(kept, -0.5 * distance, -np.inf)
        weights = np.exp(logits - logits[kept].max())
        result: FloatArray = weights / weights.sum()
        return result

    def regression(self, features: Mapping[str, float], index: npt.NDArray[np.intp]) -> tuple[FloatArray, float]:
        """Return how the effect of a new task is predicted from those of source tasks.

        Args:
            features: Descriptors of the new task.
            index: Source tasks, ``k`` of them.

        Returns:
            Weights of their effects, shape ``(k,)``, and the share of its variance that they leave open. 0 and 1 where nothing is known.
        """
        if not self._is_known(features):
            return np.zeros(len(index)), 1.0
        past = self.values[index]
        between = np.exp(-0.5 * (np.square(past[:, None] - past[None]) * self.inverse_widths).sum(-1))
        to_new = self.correlation * np.exp(-0.5 * self._distance(self._row(features))[index])
        matrix = self.correlation * between + (1 - self.correlation) * np.eye(len(index))
        weights = np.linalg.solve(matrix + 1e-9 * np.eye(len(index)), to_new)
        return weights, float(np.clip(1 - to_new @ weights, 0.0, 1.0))

    def _is_known(self, features: Mapping[str, float]) -> bool:
        return self.correlation > 0 and any(name in features for name in self.names)

    def _row(self, features: Mapping[str, float]) -> FloatArray:
        row = np.nan_to_num((_row(features, self.names, self.is_log) - self.centre) / self.scale)
        return np.clip(row, self.values.min(0) - DESCRIPTOR_MARGIN, self.values.max(0) + DESCRIPTOR_MARGIN)

    def _distance(self, row: FloatArray) -> FloatArray:
        distance: FloatArray = (np.square(self.values - row) * self.inverse_widths).sum(1)
        return distance

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "names": list(self.names),
            "is_log": list(self.is_log),
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "values": self.values.tolist(),
            "inverse_widths": self.inverse_widths.tolist(),
            "correlation": self.correlation,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Relatedness:
        """Rebuild from ``to_json``."""
        names = tuple(content["names"])
        values = np.asarray(content["values"], dtype=np.float64).reshape(len(content["values"]), len(names))
        centre, scale, widths = (np.asarray(content[key], dtype=np.float64) for key in ("centre", "scale", "inverse_widths"))
        return cls(names, tuple(content["is_log"]), centre, scale, values, widths, float(content["correlation"]))


def fit_relatedness(features: Sequence[Mapping[str, float]], task_effects: FloatArray, seed: int = 0) -> Relatedness:
    """Choose descriptors and learn how tasks are related by them.

    Args:
        features: Descriptors of the source tasks, ``T`` mappings.
        task_effects: The task effects at ``p`` configurations, shape ``(T, p)``.
        seed: Which tasks are learned from where there are many.
    """
    if len(task_effects) != len(features) or task_effects.ndim != 2:
        raise AssertionError(f"task_effects must have shape ({len(features)}, p), got {task_effects.shape}")
    names = tuple(name for name in sorted({name for item in features for name in item}) if is_informative(name, features))
    is_log = tuple(_spans_decades([float(item[name]) for item in features if name in item]) for name in names)
    values = np.array([_row(item, names, is_log) for item in features], dtype=np.float64).reshape(len(features), len(names))
    centre, scale = (np.nanmean(values, axis=0), np.nanstd(values, axis=0)) if names else (np.zeros(0), np.zeros(0))
    standardised = np.nan_to_num((values - centre) / scale) if names else values
    found = Relatedness(names, is_log, centre, scale, standardised, np.zeros(len(names)))
    if not names or len(features) < MIN_DESCRIBED_TASKS:
        return found
    learned = np.arange(len(features))
    if len(learned) > MAX_LEARNED:
        learned = np.sort(np.random.default_rng(seed).choice(learned, MAX_LEARNED, replace=False))
    correlation, widths = _learn(task_effects[learned], standardised[learned])
    if correlation < MIN_CORRELATION:
        return found
    return replace(found, inverse_widths=np.where(widths >= _MIN_WIDTH * 1.01, widths, 0.0), correlation=correlation)


def _learn(task_effects: FloatArray, descriptors: FloatArray) -> tuple[float, FloatArray]:
    """Maximise the likelihood of the task effects, shape ``(T, p)``, under ``B``; return ``rho`` and the inverse widths, shape ``(f,)``.

    Effects at neighbouring configurations are not independent: the Wishart likelihood of their products counts their effective number, the
    participation ratio of the spectrum.
    """
    import torch
    from scipy.optimize import minimize

    n_tasks, f = descriptors.shape
    spectrum = np.linalg.svd(task_effects, compute_uv=False) ** 2
    if spectrum.sum() <= 0:
        return 0.0, np.zeros(f)
    n_independent = float(spectrum.sum() ** 2 / np.square(spectrum).sum())
    products = torch.as_tensor(task_effects @ task_effects.T / np.square(task_effects).mean() / task_effects.shape[1])
    squared = torch.as_tensor(np.square(descriptors[:, None] - descriptors[None]))
    eye = torch.eye(n_tasks, dtype=torch.double)

    def loss(values: FloatArray) -> tuple[float, FloatArray]:
        parameters = torch.tensor(values, requires_grad=True)
        rho, widths, scale = parameters[0].sigmoid(), parameters[1:-1].exp(), parameters[-1].exp()
        matrix = scale * ((1 - rho) * eye + rho * torch.exp(-0.5 * squared @ widths)) + 1e-6 * eye
        factor = torch.linalg.cholesky(matrix)
        fit = factor.diagonal().log().sum() + 0.5 * torch.cholesky_solve(products, factor).diagonal().sum()
        prior = 0.5 * (parameters[0] / _LOGIT_SPREAD).square() + widths.sum() + 0.5 * parameters[-1].square()
        total = n_independent * fit + prior
        (gradient,) = torch.autograd.grad(total, parameters)
        return float(total.detach()), gradient.numpy()

    bounds = [(-4.0, 4.0), *[(np.log(_MIN_WIDTH), 2.0)] * f, (-2.0, 2.0)]
    found = [minimize(loss, np.array([0.0, *[start] * f, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds) for start in _STARTS]
    best = min(found, key=lambda result: float(result.fun)).x
    return float(1 / (1 + np.exp(-best[0]))), np.exp(best[1:-1])


_MIN_WIDTH = float(np.exp(-5.0))


def _row(features: Mapping[str, float], names: Sequence[str], is_log: Sequence[bool]) -> FloatArray:
    """Return the descriptors as numbers, shape ``(f,)``, NaN where unknown or without a logarithm."""
    row = np.array([float(features.get(name, np.nan)) for name in names], dtype=np.float64)
    logs = np.array(is_log, dtype=bool)
    row[logs] = np.log10(np.where(row[logs] > 0, row[logs], np.nan))
    return row


def _spans_decades(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > LOG_RATIO * min(values)


def is_informative(name: str, features: Sequence[Mapping[str, float]]) -> bool:
    """Say whether a descriptor is known of enough tasks, finite, and not the same for all."""
    values = [float(item[name]) for item in features if name in item]
    return len(values) >= MIN_PRESENT * len(features) and bool(np.isfinite(values).all()) and float(np.std(values)) > 1e-9
