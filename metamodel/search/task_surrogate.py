"""The meta-model, conditioned on one task: configurations encoded, predicted, ranked and compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from metamodel.data.observations import TaskRuns
from metamodel.data.run_groups import RunGroups
from metamodel.data.task import TaskDescription
from metamodel.data.units import Unit
from metamodel.gp.calibration import Calibration
from metamodel.gp.meta_model import MetaModel
from metamodel.gp.prediction import TargetTaskData, TaskPosterior
from metamodel.gp.single_task import SingleTaskPosterior
from metamodel.search.acquisition import Acquisition, lies_within
from metamodel.search.feasibility import TARGET_WEIGHT, Feasibility
from metamodel.search.query import Query
from metamodel.space.arrays import FloatArray
from metamodel.space.coordinates import Coordinates
from metamodel.space.dimensions import LOG_RATIO, Space, is_number
from metamodel.space.encoding import OVERHANG, Encoder, fit_encoder
from metamodel.space.run_configs import Config, varies
from store.hyperparameters import is_always_log
from store.names import natural_bounds

MAX_TARGET_RUNS = 400
"""Runs of the target task a posterior is conditioned on; beyond that the best half and the newest half of them."""
NORMAL_HALF_WIDTH = float(norm.ppf(0.9))
"""Half width of a central 80 % interval of a normal in standard deviations; what calibration makes of it scales every spread."""
N_ELITES = 4
MAX_FAILED_RUNS_FOR_FEASIBILITY = 1_000
MAX_RUNS_FOR_FEASIBILITY = 2_000
"""Runs of the task, and of the others, from which is learned where runs fail; of more, so many are drawn."""
LEAST_DIFFERENCE = 0.15
"""In normal scores, by how much outcomes differ at least where they are free of noise, for two recommendations to be two."""
MIN_OUTCOMES_FOR_UNITS = 3
"""Distinct outcomes of the task from which a prediction can be given in the objective's units."""


@dataclass(frozen=True, slots=True)
class CandidatePrediction:
    """The prediction of one configuration. Fields as in ``Recommendation``; ``is_own``: it is the user's own configuration."""

    prediction: float
    interval: tuple[float, float]
    own_prediction: float | None
    gain_probability: float | None
    finish_probability: float
    unit: Unit
    is_own: bool = False


class TaskSurrogate:
    """The meta-model, conditioned on the task of a query.

    Pending runs count as if they had ended with their expected outcome, so that others are proposed. Tasks of the starter history count for
    which values were tried; that small networks seldom fail is no evidence about others.

    Args:
        model: The meta-model; None uses a single-task GP, which needs runs of the task with outcomes.
        query: What is asked.
        candidates: Configurations to choose among where the query has no space.
    """

    def __init__(self, model: MetaModel | None, query: Query, candidates: Sequence[Config] = ()) -> None:
        self._model, self._query = model, query
        target = query.target
        self._context = _context(target, query.current, query.description)
        self._tasks = [*query.sources, *query.feasibility_only_tasks, *([target] if target is not None else [])]
        self._seen: dict[str, tuple[float, float, bool]] = {}
        keep = _kept_runs(target)
        configs = [target.configs[i] for i in keep] if target is not None else []
        tuned = {name for name in {key for config in configs for key in config} if varies(configs, name)}
        self._target_names = tuned if model is None or model.uses_target_columns else set()
        known = model.encoder if model is not None else Encoder(())
        self._encoder = _with_target_columns(known, configs, query.space, candidates, self._target_names)
        self._model_names = {column.name for column in known.columns if not column.is_context}
        self._n_extra = self._encoder.width - known.width
        self._outcomes = target.filled[keep] if target is not None else np.zeros(0)
        inputs = self._encode(configs) if configs else np.zeros((0, self._encoder.width))
        groups = RunGroups.asked(len(keep)) if target is None or target.groups is None else target.groups[keep]
        data = TargetTaskData(inputs, self._outcomes, groups)
        self._posterior = self._posterior_with_pending = self._condition(data)
        if query.pending:
            self._posterior_with_pending = self._condition(self._with_pending(data, self._encode(query.pending)))
        self._calibration = Calibration({}, {}) if model is None else model.calibration
        self._feasibility = self._fit_feasibility()

    @property
    def mode(self) -> str:
        """``best`` or ``explore``, as asked."""
        return self._query.mode

    def with_pending(self, configs: Sequence[Config]) -> TaskSurrogate:
        """Return the same with further configurations that are being tried."""
        return TaskSurrogate(self._model, replace(self._query, pending=(*self._query.pending, *configs)))

    def is_alike(self, inputs: FloatArray) -> npt.NDArray[np.bool_]:
        """Say which encoded configurations, shape ``(n, d)``, differ by less than two draws of one do, or hardly: ``(n, n)``."""
        predicted = self._posterior.predict(inputs, is_joint=True)
        gap = predicted.mean[:, :, None] - predicted.mean[:, None, :]
        variance = predicted.variance[:, :, None] + predicted.variance[:, None, :] - 2 * predicted.covariance
        squared = np.einsum("e,enm->nm", predicted.weights, gap**2 + variance)
        return np.asarray(squared < max(2 * self._posterior.noise_variance, LEAST_DIFFERENCE**2), dtype=np.bool_)

    @property
    def informed_names(self) -> frozenset[str]:
        """Names with evidence: those that varied within a task."""
        return frozenset(self._model_names | self._target_names)

    @property
    def informed_space(self) -> Space:
        """The part of the space with evidence; the rest stays at the user's values."""
        return {name: dim for name, dim in self._query.space.items() if name in self.informed_names}

    def unseen(self, config: Config) -> list[str]:
        """Return the numbers of a configuration that lie far outside what any run had: by more than a quarter of the range seen."""
        numbers = {name: float(value) for name, value in config.items() if is_number(value)}
        return [name for name, value in numbers.items() if not lies_within(np.array([value]), self._seen_bounds(name))[0]]

    def _seen_bounds(self, name: str) -> tuple[float, float, bool]:
        if name not in self._seen:
            self._seen[name] = _seen_range(name, [*self._tasks, *self._query.starter_tasks])
        return self._seen[name]

    def elites(self) -> list[Config]:
        """Return configurations worth searching around: the best few of the task and of each source task, and the user's own."""
        target = [] if self._query.target is None else [self._query.target]
        found = [config for task in (*target, *self._query.sources, *self._query.starter_tasks) for config in _best_configs(task)]
        return [*found, self._query.current] if self._query.current else found

    @cached_property
    def coordinates(self) -> Coordinates:
        """The informed space as arrays."""
        return Coordinates(self.informed_space, self._encoder, self._context)

    def rank(self, configs: Sequence[Config]) -> list[int]:
        """Order configurations, best first.

        Args:
            configs: What they leave out is the task's context.

        Returns:
            Indices into ``configs``.
        """
        return [int(i) for i in np.argsort(-self.acquisition.values(self._encode(configs)), kind="stable")]

    @cached_property
    def acquisition(self) -> Acquisition:
        """What a search in the query's mode maximises: ``best`` only where runs were made, ``explore`` everywhere."""
        seen_bounds = self._seen_bounds if self._query.mode == "best" else None
        return Acquisition(self._posterior_with_pending, self._feasibility, self._query.mode, seen_bounds)

    def predict(self, config: Config) -> CandidatePrediction:
        """Predict one configuration and compare it with the user's own."""
        current = self._query.current
        inputs = self._encode([dict(config)] + ([current] if current else []))
        predicted = self._posterior.predict(inputs, is_joint=True)
        finish = self._feasibility.finish_probability(inputs)
        mean, variance = predicted.mixture()
        width = self._calibration.half_width(len(self._outcomes))
        half = width * math.sqrt(max(float(variance[0]), 0.0) + self._posterior.noise_variance)
        unit, in_units = self._units()
        # A good score is a small number where the objective is minimised.
        low, high = sorted((in_units(float(mean[0]) - half), in_units(float(mean[0]) + half)))
        gain = own = None
        is_own = False
        if current:
            own = in_units(float(mean[1]))
            difference = predicted.mean[:, 0] - predicted.mean[:, 1]
            covariance = predicted.covariance
            scale = np.sqrt(np.maximum(covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1], 1e-10))
            scale *= width / NORMAL_HALF_WIDTH
            is_own = bool(np.allclose(inputs[0], inputs[1], atol=1e-6))
            better = 0.0 if is_own else float(predicted.weights @ norm.cdf(difference / scale))
            gain = 0.0 if is_own else float(finish[0] * (finish[1] * better + 1 - finish[1]))
        return CandidatePrediction(in_units(float(mean[0])), (low, high), own, gain, float(finish[0]), unit, is_own)

    def _units(self) -> tuple[Unit, Callable[[float], float]]:
        """Return the unit of predictions and the map from scores to it."""
        scores, task = self._posterior.target_scores, self._query.target
        if scores is None or task is None or not task.is_level_known or len(np.unique(self._outcomes)) < MIN_OUTCOMES_FOR_UNITS:
            return Unit.RANK, lambda score: float(norm.cdf(score))
        order = np.argsort(scores, kind="stable")
        x: FloatArray = scores[order]
        y: FloatArray = self._outcomes[order]
        first, last, middle = float(x[0]), float(x[-1]), len(x) // 2
        # Outcomes crowd near the best, so each end is continued with the slope of its own half.
        below, above = _slope(x[: middle + 1], y[: middle + 1]), _slope(x[middle:], y[middle:])
        bounds = natural_bounds(task.objective, [task.in_units(float(value)) for value in y])

        def in_units(score: float) -> float:
            outside = below * min(score - first, 0.0) + above * max(score - last, 0.0)
            return float(np.clip(task.in_units(float(np.interp(score, x, y)) + outside), *bounds))

        return Unit.OBJECTIVE, in_units

    def _encode(self, configs: Sequence[Config]) -> FloatArray:
        return self._encoder.encode([{**self._context, **config} for config in configs])

    def _condition(self, data: TargetTaskData) -> TaskPosterior:
        """Return the posterior of the task after these runs."""
        if self._model is not None:
            task_id = None if self._query.target is None else self._query.target.task_id
            return self._model.posterior(data, self._query.description, self._n_extra, task_id)
        return SingleTaskPosterior(data, self._encoder.groups)

    def _with_pending(self, data: TargetTaskData, inputs: FloatArray) -> TargetTaskData:
        """Add runs with their expected outcomes (the kriging believer; Ginsbourger, Le Riche & Carraro, 2010)."""
        expected = self._posterior.predict(inputs).mixture()[0]
        scores = self._posterior.target_scores
        if scores is not None and len(scores):
            order = np.argsort(scores, kind="stable")
            expected = np.interp(expected, scores[order], data.outcomes[order])
        return TargetTaskData(
            np.concatenate([data.inputs, inputs]),
            np.concatenate([data.outcomes, expected]),
            data.groups.extended(len(inputs)),
        )

    def _fit_feasibility(self) -> Feasibility:
        tasks, target = self._tasks, self._query.target
        if not any(task.is_failed.any() for task in tasks):
            return Feasibility(np.zeros((0, self._encoder.width)), np.zeros(0, dtype=bool), np.zeros(0))
        rng, found = np.random.default_rng(0), []
        for group, group_weight in ([task for task in tasks if task is not target], 1.0), ([target], TARGET_WEIGHT):
            members = [task for task in group if task is not None]
            for task, share in zip(members, _drawn_shares(members), strict=True):
                kept = rng.random(len(task)) < share
                inputs = self._encoder.encode([config for config, is_kept in zip(task.configs, kept, strict=True) if is_kept])
                found.append((inputs, task.is_failed[kept], group_weight / share[kept]))
        inputs, is_failed, weights = (np.concatenate(part) for part in zip(*found, strict=True))
        return Feasibility(inputs, is_failed, weights)


def _best_configs(task: TaskRuns) -> list[Config]:
    """Return the best few configurations of a task."""
    order = np.argsort(-np.where(np.isfinite(task.values), task.values, -np.inf), kind="stable")
    return [task.configs[i] for i in order[:N_ELITES] if np.isfinite(task.values[i])]


def _drawn_shares(tasks: Sequence[TaskRuns]) -> list[FloatArray]:
    """Return for each run, shape ``(n,)`` a task, how likely it is used to learn where runs fail: certainly, unless there are many."""
    n_failed = sum(int(task.is_failed.sum()) for task in tasks)
    n_finished = sum(map(len, tasks)) - n_failed
    failed, finished = min(1.0, MAX_FAILED_RUNS_FOR_FEASIBILITY / max(1, n_failed)), min(1.0, MAX_RUNS_FOR_FEASIBILITY / max(1, n_finished))
    return [np.where(task.is_failed, failed, finished) for task in tasks]


def _slope(x: FloatArray, y: FloatArray) -> float:
    """Return the slope between the ends of increasing points, 0 where they coincide."""
    rise, run = float(y[-1] - y[0]), float(x[-1] - x[0])
    return rise / run if run > 1e-6 else 0.0


def _seen_range(name: str, tasks: Sequence[TaskRuns]) -> tuple[float, float, bool]:
    """Return the range of a number over all runs, widened by a quarter, and whether it is one of logarithms; all numbers if never seen."""
    bounds = [task.number_range(name) for task in tasks]
    least, most = min((low for low, _ in bounds), default=math.inf), max((high for _, high in bounds), default=-math.inf)
    if least > most:
        return -math.inf, math.inf, False
    is_log = least > 0 and (is_always_log(name) or most / least > LOG_RATIO)
    low, high = (math.log(bound) if is_log else bound for bound in (least, most))
    # A range of one value still has neighbours: a factor of two on a log scale, half of the value on a linear one.
    margin = max(OVERHANG * (high - low), math.log(2) if is_log else 0.5 * abs(high))
    return low - margin, high + margin, is_log


def _kept_runs(target: TaskRuns | None) -> list[int]:
    """Indices of the task's runs with an outcome, bounded so that the Cholesky stays small."""
    if target is None:
        return []
    keep = np.flatnonzero(target.has_outcome)
    if len(keep) > MAX_TARGET_RUNS:
        best = keep[np.argsort(-target.filled[keep], kind="stable")[: MAX_TARGET_RUNS // 2]]
        rest = np.setdiff1d(keep, best)
        keep = np.sort(np.concatenate([best, rest[-(MAX_TARGET_RUNS - len(best)) :]]))
    return [int(i) for i in keep]


def _context(target: TaskRuns | None, current: Mapping[str, Any], description: TaskDescription) -> dict[str, Any]:
    """Return what every candidate has in common: the user's values, else what the task's runs mostly had."""
    context: dict[str, Any] = {}
    if target is not None:
        configs = list(target.configs)
        for name in {key for config in configs for key in config}:
            values = [config[name] for config in configs if name in config]
            common = Counter(map(repr, values)).most_common(1)[0][0]
            context[name] = next(value for value in values if repr(value) == common)
    if description.model_family is not None:
        context["model_family"] = description.model_family
    return {**context, **current}


def _with_target_columns(
    known: Encoder, configs: Sequence[Config], space: Space, candidates: Sequence[Config], varying: set[str]
) -> Encoder:
    """Add columns for what only the target task's runs have tuned."""
    encoder = known.extended({name: dim for name, dim in space.items() if name in varying}, configs)
    if varying <= set(encoder.names):
        return encoder
    new = [column for column in fit_encoder([[*configs, *candidates]]).columns if column.name not in encoder.names]
    return replace(encoder, columns=(*encoder.columns, *(column for column in new if column.name in varying)))
