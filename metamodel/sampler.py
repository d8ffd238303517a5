"""An Optuna sampler that uses the history: its first trial is chosen from other tasks, and its trials become runs."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from metamodel.data.opened_history import opened_history
from metamodel.data.task import TaskDescription
from metamodel.evidence_floor import thin_evidence
from metamodel.fitting import active_kind
from metamodel.kinds import class_of
from metamodel.recommendation import Evidence
from metamodel.recommender import recommend
from metamodel.space.dimensions import parse_space
from store.errors import InvalidArgumentError, UnknownTaskError
from store.names import Direction, canonical_name
from store.statuses import RunStatus
from store.values import same_value

if TYPE_CHECKING:
    from store import History

OPTUNA_FRAMEWORK = "optuna"
_N_NEWEST = 16
"""Newest runs among which a trial's own is looked for: as many as could have started at the same time."""
N_STARTUP = 8
"""Trials that fill the space before a process is asked which has nothing but them to go by."""
DEFAULT_OBJECTIVE = "value"
"""Name under which a trial's value is recorded where the task has no objective of its own yet."""


class MetaHPSampler(BaseSampler):
    """Suggest what the meta-model would try next.

    The first suggestions rest on the other tasks of the history, be it one, later ones on the study's own trials as well, which are written
    into the history as runs of the task. In the first ``N_STARTUP`` trials without any other task to learn from, it fills the space evenly.
    Trials that run meanwhile in other workers count as if they ended as expected, so that each worker looks elsewhere. Failed trials, and
    trials that return NaN, are recorded as diverged and steer later suggestions away. One objective only.

    Args:
        history: A history, its path, or None for the default one.
        task: Name or description of the task; default: the name of the study.
        objective: Name of what the study's objective returns; default: that of the task's earlier runs, else ``value``.
        seed: Seed of the first trials and of the search; None: a different one each time.
        max_fit_s: Time for an automatic fit of the meta-model in seconds.

    Example:
        >>> study = optuna.create_study(sampler=MetaHPSampler(task="my-task"), direction="maximize")
        >>> study.optimize(lambda trial: -(trial.suggest_float("x", -1.0, 1.0) ** 2), n_trials=2)
        >>> len(study.trials)
        2
    """

    def __init__(
        self,
        history: History | str | os.PathLike[str] | None = None,
        task: str | TaskDescription | None = None,
        *,
        objective: str | None = None,
        seed: int | None = None,
        max_fit_s: float = 10.0,
    ) -> None:
        self._history, self._task, self._objective, self._max_fit_s = history, task, objective, max_fit_s
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._random = RandomSampler(seed=seed)
        self._intersection = IntersectionSearchSpace()

    def reseed_rng(self) -> None:
        """Give the random part another seed; Optuna calls this in parallel workers."""
        self._random.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that every finished trial had; the others are suggested one by one."""
        space = self._intersection.calculate(study)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Suggest all shared parameters at once."""
        _check_single(study)
        if not search_space:
            return {}
        found = self._suggest(study, trial, search_space, {})
        if len(found) == len(search_space):
            return found
        return {**self._fill(trial, search_space), **found}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Suggest one parameter, given those the trial already has."""
        _check_single(study)
        if not param_distribution.single():
            found = self._suggest(study, trial, {param_name: param_distribution}, trial.params)
            if param_name in found:
                return found[param_name]
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _fill(self, trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
        """Return the trial's own point of a sequence that fills the space evenly; workers share the sequence, not the points."""
        parsed = parse_space(space)
        sequence = qmc.Sobol(len(parsed), rng=np.random.default_rng([self._seed, len(parsed)])).fast_forward(trial.number)
        with warnings.catch_warnings():  # of a number of points that is no power of two
            warnings.simplefilter("ignore", UserWarning)
            units = sequence.random(1)[0]
        return {dim.raw_name: dim.from_unit(float(unit)) for dim, unit in zip(parsed.values(), units, strict=True)}

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Write the trial into the history as a run."""
        if not trial.params:
            return
        with opened_history(self._history) as history:
            if _is_recorded(history, trial):
                return
            run = history.start_run(
                task=self._task_of(study),
                hparams=trial.params,
                objective=self._objective_of(history, study),
                direction=str(_direction(study)),
                framework=OPTUNA_FRAMEWORK,
            )
            for step, value in sorted(trial.intermediate_values.items()):
                run.log({run.objective or DEFAULT_OBJECTIVE: value}, step=step)
            value = values[0] if values else math.nan
            if state is TrialState.COMPLETE or not trial.intermediate_values:
                run.log({run.objective or DEFAULT_OBJECTIVE: value}, step=max(trial.intermediate_values, default=-1) + 1)
            status = {TrialState.PRUNED: RunStatus.STOPPED, TrialState.FAIL: RunStatus.DIVERGED}.get(state)
            run.finish(status if status is not RunStatus.STOPPED or trial.intermediate_values else RunStatus.DIVERGED)

    def _suggest(self, study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the meta-model; empty where the evidence is too thin to do better than chance."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        n_done = sum(other.state is TrialState.COMPLETE for other in trials)
        with opened_history(self._history) as history:
            (advice,) = recommend(
                history,
                task=_known_or_new(history, self._task_of(study)),
                space=space,
                mode="explore",
                current=fixed or None,
                pending=[other.params for other in trials if _is_under_way(other, trial, space)],
                max_fit_s=self._max_fit_s,
                min_tasks=1,
                seed=int(np.random.default_rng([self._seed, n_done]).integers(2**31)),
            )
        evidence = advice.evidence
        has_others = evidence.n_tasks + evidence.n_starter_tasks > 0
        is_known = has_others or evidence.n_runs + evidence.n_related >= N_STARTUP
        if not (is_known and thin_evidence(evidence) is None) and not self._is_guided(evidence):
            return {}
        return {name: value for name, value in advice.config.items() if canonical_name(name) not in evidence.untuned}

    def _is_guided(self, evidence: Evidence) -> bool:
        """Say whether the model may know one other task only: too little to change a user's run, but better than evenly spread trials."""
        if evidence.model_id is None:
            return False
        with opened_history(self._history) as history:
            return bool(class_of(active_kind(history)).min_tasks == 1)

    def _task_of(self, study: Study) -> str | TaskDescription:
        return self._task if self._task is not None else study.study_name

    def _objective_of(self, history: History, study: Study) -> str:
        if self._objective is not None:
            return self._objective
        task = self._task_of(study)
        if isinstance(task, TaskDescription) and task.objective is not None:
            return task.objective
        try:
            record = history.task(task if isinstance(task, str) else str(task.name))
        except UnknownTaskError:
            return DEFAULT_OBJECTIVE
        is_same = record.objective is not None and record.direction == str(_direction(study))
        return str(record.objective) if is_same else DEFAULT_OBJECTIVE


def _known_or_new(history: History, task: str | TaskDescription) -> str | TaskDescription:
    """Return a task's name as it is where the history knows it, else the description of a task that is meant to be new."""
    try:
        return history.task(task).id if isinstance(task, str) else task
    except UnknownTaskError:
        return TaskDescription(name=str(task))


def _is_recorded(history: History, trial: FrozenTrial) -> bool:
    """Say whether a callback has recorded this trial's training already, e.g. inside a Trainer's hyperparameter search."""
    if trial.datetime_start is None:
        return False
    since = trial.datetime_start.astimezone(UTC)
    wanted = {canonical_name(name): value for name, value in trial.params.items()}
    for run in history.runs(newest_first=True, limit=_N_NEWEST):
        is_later = bool(run.started_utc) and datetime.fromisoformat(run.started_utc) >= since
        if (
            is_later
            and run.framework != OPTUNA_FRAMEWORK
            and all(same_value(run.hparams.get(name), value) for name, value in wanted.items())
        ):
            return True
    return False


def _is_under_way(other: FrozenTrial, trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> bool:
    """Say whether another trial is running with parameters of this space."""
    return other.state is TrialState.RUNNING and other.number != trial.number and all(name in other.params for name in space)


def _check_single(study: Study) -> None:
    if len(study.directions) > 1:
        raise InvalidArgumentError(
            f"MetaHPSampler needs a study with one objective, but got one with {len(study.directions)}. Use another sampler for it."
        )


def _direction(study: Study) -> Direction:
    return Direction.MAX if study.direction is StudyDirection.MAXIMIZE else Direction.MIN
