"""What the meta-model thinks of configurations of one task: encoded, predicted, ranked and judged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from metamodel.data.observations import TaskRuns
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import Calibration
from metamodel.gp.meta_model import LearnedModel, TaskPosterior
from metamodel.gp.posterior import OwnRuns
from metamodel.gp.single_task import AlonePosterior
from metamodel.recommendation import Unit
from metamodel.search.acquisition import Acquisition, lies_within
from metamodel.search.feasibility import OWN_WEIGHT, Feasibility
from metamodel.space.coordinates import Coordinates
from metamodel.space.dimensions import LOG_RATIO, Space, is_number
from metamodel.space.encoding import OVERHANG, Encoder, fit_encoder
from metamodel.space.run_configs import varies
from store.names import natural_bounds

FloatArray = npt.NDArray[np.float64]

MAX_OWN_RUNS = 400
"""Own runs a posterior looks at; beyond that the best half and the newest half of them."""
NORMAL_HALF_WIDTH = float(norm.ppf(0.9))
"""Half width of a central 80 % interval of a normal in standard deviations; what calibration makes of it scales every spread."""
N_ELITES = 4
MAX_FAILED_RUNS = 1_000
MAX_FINISHED_RUNS = 2_000
"""Runs of the task, and of the others, from which is learned where runs fail; of more, so many are drawn."""
MIN_OUTCOMES_FOR_UNITS = 3
"""Distinct own outcomes from which a prediction can be spoken in the objective's units."""


class Judgement(NamedTuple):
    """What is expected of one configuration. Fields as in ``Recommendation``; ``is_own``: it is the user's own configuration."""

    prediction: float
    interval: tuple[float, float]
    own_prediction: float | None
    gain_probability: float | None
    finish_probability: float
    unit: Unit
    is_own: bool = False


class Advisor:
    """The meta-model, conditioned on one task.

    Args:
        model: The meta-model; None uses a Gaussian process on the task's own runs alone.
        own: The task's usable runs; None or without outcomes for a new task, which needs a model.
        others: Other tasks, whose failures count as evidence.
        space: What may change; empty where candidates are given.
        current: The user's own configuration by canonical name; the context of every candidate.
        variant: Source version of the model.
        description: The task, as far as it is known.
        candidates: Configurations to choose among, by canonical name.
        pending: Configurations that are being tried now, by canonical name: what they will show is believed to be what is expected of
            them, so that others are proposed.
        shipped: Tasks of the starter history: what they tried counts, but that small networks seldom fail says nothing of others.
    """

    def __init__(
        self,
        model: LearnedModel | None,
        own: TaskRuns | None,
        others: Sequence[TaskRuns],
        space: Space,
        current: Mapping[str, Any],
        variant: str | None,
        description: TaskDescription | None = None,
        candidates: Sequence[Mapping[str, Any]] = (),
        pending: Sequence[Mapping[str, Any]] = (),
        shipped: Sequence[TaskRuns] = (),
    ) -> None:
        self._own, self._space, self._current = own, space, dict(current)
        self._context = _context(own, current, description)
        self._tasks, self._shipped = [*others, *([own] if own is not None else [])], tuple(shipped)
        self._seen: dict[str, tuple[float, float, bool]] = {}
        keep = _kept_runs(own)
        configs = [own.configs[i] for i in keep] if own is not None else []
        tuned = {name for name in {key for config in configs for key in config} if varies(configs, name)}
        self._own_varying = tuned if model is None or model.knows_own_columns else set()
        known = model.encoder if model is not None else Encoder(())
        self._encoder = _with_own_columns(known, configs, space, candidates, self._own_varying)
        self._model_names = {column.name for column in known.columns if not column.is_context}
        inputs = self._encode(configs) if configs else np.zeros((0, self._encoder.width))
        outcomes = own.filled[keep] if own is not None else np.zeros(0)
        same = np.array([variant is None or (own is not None and own.variants[i] == variant) for i in keep], dtype=bool)
        runs = OwnRuns(inputs, outcomes, same)
        self._model, self._n_extra, self._task_id = model, self._encoder.width - known.width, None if own is None else own.task_id
        self._description = description or (own.description if own is not None else TaskDescription())
        self._posterior = self._believed = self._condition(runs)
        if pending:
            self._believed = self._condition(self._with_pending(runs, self._encode(pending)))
        self._calibration = Calibration({}, {}) if model is None else model.calibration
        self._outcomes = outcomes
        self._inputs = inputs
        self._feasibility = self._fit_feasibility()

    @property
    def informed_names(self) -> frozenset[str]:
        """Names the history says something about: those that varied within a task."""
        return frozenset(self._model_names | self._own_varying)

    @property
    def informed_space(self) -> Space:
        """The part of the space the history says anything about; the rest stays at the user's values."""
        return {name: dim for name, dim in self._space.items() if name in self.informed_names}

    def unseen(self, config: Mapping[str, Any]) -> list[str]:
        """Return the numbers of a configuration that lie far outside what any run had: by more than a quarter of the range seen."""
        numbers = {name: float(value) for name, value in config.items() if is_number(value)}
        return [name for name, value in numbers.items() if not lies_within(np.array([value]), self._seen_bounds(name))[0]]

    def _seen_bounds(self, name: str) -> tuple[float, float, bool]:
        if name not in self._seen:
            self._seen[name] = _seen_range(name, [*self._tasks, *self._shipped])
        return self._seen[name]

    def best_configs(self, task: TaskRuns) -> list[Mapping[str, Any]]:
        """Return the best few configurations of a task."""
        order = np.argsort(-np.where(np.isfinite(task.values), task.values, -np.inf), kind="stable")
        return [task.configs[i] for i in order[:N_ELITES] if np.isfinite(task.values[i])]

    @cached_property
    def coordinates(self) -> Coordinates:
        """The informed space as arrays."""
        return Coordinates(self.informed_space, self._encoder, self._context)

    def rank(self, configs: Sequence[Mapping[str, Any]], mode: str = "best") -> list[int]:
        """Order configurations, best first.

        Args:
            configs: By canonical name; what they leave out is the task's context.
            mode: ``best`` or ``explore``.

        Returns:
            Indices into ``configs``.
        """
        return [int(i) for i in np.argsort(-self.landscape(mode).values(self._encode(configs)), kind="stable")]

    def landscape(self, mode: str) -> Acquisition:
        """Return what a search in this mode maximises, ``best`` or ``explore``."""
        # The best is looked for where runs were made; what a run would teach, everywhere.
        return Acquisition(self._believed, self._feasibility, mode, self._seen_bounds if mode == "best" else None)

    def judge(self, config: Mapping[str, Any]) -> Judgement:
        """Predict one configuration and compare it with the user's own."""
        points = [dict(config)] + ([self._current] if self._current else [])
        inputs = self._encode(points)
        predicted = self._posterior.predict(inputs, is_joint=True)
        finish = self._feasibility.finish_probability(inputs)
        mean, variance = predicted.mixture()
        spread = math.sqrt(max(float(variance[0]), 0.0) + self._posterior.noise_variance)
        half = self._calibration.half_width(len(self._outcomes)) * spread
        low, high = float(mean[0]) - half, float(mean[0]) + half
        unit, speak = self._speech()
        gain = own = None
        is_own = False
        if self._current:
            own = speak(float(mean[1]))
            difference = predicted.mean[:, 0] - predicted.mean[:, 1]
            covariance = predicted.covariance
            scale = np.sqrt(np.maximum(covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1], 1e-10))
            scale *= self._calibration.half_width(len(self._outcomes)) / NORMAL_HALF_WIDTH
            is_own = bool(np.allclose(inputs[0], inputs[1], atol=1e-6))
            better = 0.0 if is_own else float(predicted.weights @ norm.cdf(difference / scale))
            gain = 0.0 if is_own else float(finish[0] * (finish[1] * better + 1 - finish[1]))
        lower, upper = sorted((speak(low), speak(high)))  # a good score is a small number where the objective is minimised
        return Judgement(speak(float(mean[0])), (lower, upper), own, gain, float(finish[0]), unit, is_own)

    def _speech(self) -> tuple[Unit, Callable[[float], float]]:
        """Return the unit of predictions and the map from scores to it."""
        scores = self._posterior.own_scores
        if scores is None or self._own is None or len(np.unique(self._outcomes)) < MIN_OUTCOMES_FOR_UNITS:
            return Unit.RANK, _as_share
        order = np.argsort(scores, kind="stable")
        x: FloatArray = scores[order]
        y: FloatArray = self._outcomes[order]
        first, last, middle = float(x[0]), float(x[-1]), len(x) // 2
        # Outcomes crowd near the best, so each end is continued with the slope of its own half.
        below, above = _slope(x[: middle + 1], y[: middle + 1]), _slope(x[middle:], y[middle:])
        task = self._own
        bounds = natural_bounds(task.objective, [task.in_units(float(value)) for value in y])

        def in_units(score: float) -> float:
            outside = below * min(score - first, 0.0) + above * max(score - last, 0.0)
            return float(np.clip(task.in_units(float(np.interp(score, x, y)) + outside), *bounds))

        return Unit.OBJECTIVE, in_units

    def _encode(self, configs: Sequence[Mapping[str, Any]]) -> FloatArray:
        return self._encoder.encode([{**self._context, **config} for config in configs])

    def _condition(self, runs: OwnRuns) -> TaskPosterior:
        """Return what is believed of the task once these runs are seen."""
        if self._model is not None:
            return self._model.posterior(runs, self._description, self._n_extra, self._task_id)
        return AlonePosterior(runs, self._encoder.groups)

    def _with_pending(self, runs: OwnRuns, inputs: FloatArray) -> OwnRuns:
        """Add runs whose outcomes are what is expected of them (Ginsbourger, Le Riche & Carraro, 2010)."""
        believed = self._posterior.predict(inputs).mixture()[0]
        scores = self._posterior.own_scores
        if scores is not None and len(scores):
            order = np.argsort(scores, kind="stable")
            believed = np.interp(believed, scores[order], runs.outcomes[order])
        return OwnRuns(
            np.concatenate([runs.inputs, inputs]),
            np.concatenate([runs.outcomes, believed]),
            np.concatenate([runs.is_same_variant, np.ones(len(inputs), dtype=bool)]),
        )

    def _fit_feasibility(self) -> Feasibility:
        tasks = self._tasks
        if not any(task.is_failed.any() for task in tasks):
            return Feasibility(np.zeros((0, self._encoder.width)), np.zeros(0, dtype=bool), np.zeros(0))
        rng, found = np.random.default_rng(0), []
        for group, group_weight in ([task for task in tasks if task is not self._own], 1.0), ([self._own], OWN_WEIGHT):
            members = [task for task in group if task is not None]
            for task, share in zip(members, _drawn_shares(members), strict=True):
                kept = rng.random(len(task)) < share
                inputs = self._encoder.encode([config for config, is_kept in zip(task.configs, kept, strict=True) if is_kept])
                found.append((inputs, task.is_failed[kept], group_weight / share[kept]))
        inputs, is_failed, weights = (np.concatenate(part) for part in zip(*found, strict=True))
        return Feasibility(inputs, is_failed, weights)


def _drawn_shares(tasks: Sequence[TaskRuns]) -> list[FloatArray]:
    """Return for each run, shape ``(n,)`` a task, how likely it is looked at to learn where runs fail: certainly, unless there are many."""
    n_failed = sum(int(task.is_failed.sum()) for task in tasks)
    n_finished = sum(map(len, tasks)) - n_failed
    failed, finished = min(1.0, MAX_FAILED_RUNS / max(1, n_failed)), min(1.0, MAX_FINISHED_RUNS / max(1, n_finished))
    return [np.where(task.is_failed, failed, finished) for task in tasks]


def _as_share(score: float) -> float:
    """Return the share of configurations a score is better than."""
    return float(norm.cdf(score))


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
    is_log = least > 0 and (name == "learning_rate" or most / least > LOG_RATIO)
    low, high = (math.log(bound) if is_log else bound for bound in (least, most))
    # A range of one value still has neighbours: a factor of two on a log scale, half of the value on a linear one.
    margin = max(OVERHANG * (high - low), math.log(2) if is_log else 0.5 * abs(high))
    return low - margin, high + margin, is_log


def _kept_runs(own: TaskRuns | None) -> list[int]:
    """Indices of the own runs with an outcome, bounded so that the Cholesky stays small."""
    if own is None:
        return []
    keep = np.flatnonzero(own.has_outcome)
    if len(keep) > MAX_OWN_RUNS:
        best = keep[np.argsort(-own.filled[keep], kind="stable")[: MAX_OWN_RUNS // 2]]
        rest = np.setdiff1d(keep, best)
        keep = np.sort(np.concatenate([best, rest[-(MAX_OWN_RUNS - len(best)) :]]))
    return [int(i) for i in keep]


def _context(own: TaskRuns | None, current: Mapping[str, Any], description: TaskDescription | None) -> dict[str, Any]:
    """Return what every candidate has in common: the user's values, else what the task's runs mostly had."""
    context: dict[str, Any] = {}
    if own is not None:
        configs = list(own.configs)
        for name in {key for config in configs for key in config}:
            values = [config[name] for config in configs if name in config]
            common = Counter(map(repr, values)).most_common(1)[0][0]
            context[name] = next(value for value in values if repr(value) == common)
    if description is not None and description.model_family is not None:
        context["model_family"] = description.model_family
    return {**context, **current}


def _with_own_columns(
    known: Encoder, configs: Sequence[Mapping[str, Any]], space: Space, candidates: Sequence[Mapping[str, Any]], varying: set[str]
) -> Encoder:
    """Add columns for what only the task's own runs have tuned."""
    encoder = known.extended({name: dim for name, dim in space.items() if name in varying}, configs)
    if varying <= set(encoder.names):
        return encoder
    new = [column for column in fit_encoder([[*configs, *candidates]]).columns if column.name not in encoder.names]
    return replace(encoder, columns=(*encoder.columns, *(column for column in new if column.name in varying)))
