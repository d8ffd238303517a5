"""An Optuna sampler that has read the history: its first trial is advised by other tasks, and its trials become runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from metamodel.evidence_floor import thin_evidence
from metamodel.precedence import same_value
from metamodel.recommender import recommend
from metamodel.task import TaskDescription
from store.errors import InvalidArgumentError, UnknownTaskError
from store.names import Direction, canonical_name
from store.records import RunStatus

if TYPE_CHECKING:
    from store import History

FRAMEWORK = "optuna"
_N_NEWEST = 16
"""Newest runs among which a trial's own is looked for: as many as could have started beside it."""
OBJECTIVE = "value"
"""Name under which a trial's value is recorded where the task has no objective of its own yet."""


class MetaHPSampler(BaseSampler):
    """Suggest what the meta-model would try next.

    The first suggestions rest on the other tasks of the history, later ones on the study's own trials as well, which are written into
    the history as runs of the task. Where the evidence is too thin to speak (see ``recommend``) it samples at random. Failed trials,
    and trials that return NaN, are recorded as diverged and steer later suggestions away. One objective only.

    Args:
        history: A history, its path, or None for the default one.
        task: Name or description of the task; default: the name of the study.
        objective: Name of what the study's objective returns; default: that of the task's earlier runs, else ``value``.
        seed: Seed of the random part and of the search.
        max_fit_s: Time for an automatic fit of the meta-model in seconds.

    Example:
        >>> study = optuna.create_study(sampler=MetaHPSampler(task="my-task"), direction="maximize")  # doctest: +SKIP
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
        self._seed = 0 if seed is None else seed
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
        found = self._suggest(study, search_space, {}) if search_space else {}
        return {name: found[name] if name in found else self._draw(study, trial, name, dist) for name, dist in search_space.items()}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Suggest one parameter, given those the trial already has."""
        _check_single(study)
        found = {} if param_distribution.single() else self._suggest(study, {param_name: param_distribution}, trial.params)
        return found[param_name] if param_name in found else self._draw(study, trial, param_name, param_distribution)

    def _draw(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._random.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Write the trial into the history as a run."""
        from store import open_history

        if not trial.params:
            return
        history = open_history(self._history)
        try:
            if _is_recorded(history, trial):
                return
            run = history.start_run(
                task=self._task_of(study),
                hparams=trial.params,
                objective=self._objective_of(history, study),
                direction=str(_direction(study)),
                framework=FRAMEWORK,
            )
            for step, value in sorted(trial.intermediate_values.items()):
                run.log({run.objective or OBJECTIVE: value}, step=step)
            value = values[0] if values else math.nan
            if state is TrialState.COMPLETE or not trial.intermediate_values:
                run.log({run.objective or OBJECTIVE: value}, step=max(trial.intermediate_values, default=-1) + 1)
            status = {TrialState.PRUNED: RunStatus.STOPPED, TrialState.FAIL: RunStatus.DIVERGED}.get(state)
            run.finish(status if status is not RunStatus.STOPPED or trial.intermediate_values else RunStatus.DIVERGED)
        finally:
            if history is not self._history:
                history.close()

    def _suggest(self, study: Study, space: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the meta-model; empty where the evidence is too thin to do better than chance."""
        n_done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        (advice,) = recommend(
            self._history,
            task=self._task_of(study),
            space=space,
            mode="explore",
            current=fixed or None,
            max_fit_s=self._max_fit_s,
            seed=int(np.random.default_rng([self._seed, n_done]).integers(2**31)),
        )
        if thin_evidence(advice.evidence) is not None:
            return {}
        return {name: value for name, value in advice.config.items() if canonical_name(name) not in advice.evidence.untuned}

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
            return OBJECTIVE
        is_same = record.objective is not None and record.direction == str(_direction(study))
        return str(record.objective) if is_same else OBJECTIVE


def _is_recorded(history: History, trial: FrozenTrial) -> bool:
    """Say whether a callback has recorded this trial's training already, e.g. inside a Trainer's hyperparameter search."""
    if trial.datetime_start is None:
        return False
    since = trial.datetime_start.astimezone(UTC)
    wanted = {canonical_name(name): value for name, value in trial.params.items()}
    for run in history.runs(newest_first=True, limit=_N_NEWEST):
        is_later = bool(run.started_utc) and datetime.fromisoformat(run.started_utc) >= since
        if is_later and run.framework != FRAMEWORK and all(same_value(run.hparams.get(name), value) for name, value in wanted.items()):
            return True
    return False


def _check_single(study: Study) -> None:
    if len(study.directions) > 1:
        raise InvalidArgumentError(
            f"MetaHPSampler needs a study with one objective, but got one with {len(study.directions)}. Use another sampler for it."
        )


def _direction(study: Study) -> Direction:
    return Direction.MAX if study.direction is StudyDirection.MAXIMIZE else Direction.MIN
