"""Optuna's samplers as methods: TPE, a Gaussian process with log expected improvement, CMA-ES.

They propose points of the whole space, and a replay has only recorded ones: each proposal is snapped to the nearest configuration that is
not evaluated yet. That is a handicap. TPE and the Gaussian process learn from the configuration that was really evaluated; CMA-ES only
from the outcome of its own proposal, so for it the snapping is noise in the input as well.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compare_baselines.methods.base import Method, NewTask, Proposal, SearchProblem, Trial, filled
from compare_baselines.methods.spaces import as_label, distributions_of
from metahp_report.importance import quiet_optuna
from metamodel.space.dimensions import Dimension, Space, is_number
from metamodel.space.encoding import column_order

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

N_RANDOM_FIRST = 5
"""Random configurations first, as in the reference; in a space a third of the budget where that is less."""


class OptunaMethod(Method):
    """A sampler of Optuna on a study in memory: one a task in a pool, one a decision in a space."""

    @abstractmethod
    def make_sampler(self, seed: int, n_random: int) -> BaseSampler:
        """Return the sampler, which begins with random configurations."""

    def start(self, task: NewTask) -> None:
        """Create the study."""
        super().start(task)
        # Optuna sorts by name.
        self._distributions = {column_order(name): value for name, value in distributions_of(task.space).items()}
        with quiet_optuna():
            self._study = _study(self.make_sampler(task.seed, N_RANDOM_FIRST))
        self._n_added = 0

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Add the last outcome, ask for a point, snap it."""
        from optuna.trial import TrialState, create_trial

        outcomes = filled(values)
        for index, value in zip(tried[self._n_added :], outcomes[self._n_added :], strict=True):
            params = {column_order(name): value for name, value in inside(self.task.configs[index], self.task.space).items()}
            self._study.add_trial(create_trial(params=params, distributions=self._distributions, value=float(value)))
        self._n_added = len(tried)
        with quiet_optuna():
            trial = self._study.ask(self._distributions)
            # The proposal itself is never evaluated: what is comes in as a trial of its own.
            self._study.tell(trial, state=TrialState.FAIL)
        return self.task.snap({name: trial.params[column_order(name)] for name in self.task.space}, tried)

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return what the sampler suggests."""
        with quiet_optuna():
            sampler = self.make_sampler(problem.seed_of(self.name, len(trials)), n_random_first(problem))
        return Proposal(ask_sampler(problem, trials, sampler))


class TPE(OptunaMethod):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate."""

    name = "tpe"

    def make_sampler(self, seed: int, n_random: int) -> BaseSampler:
        """Return the sampler."""
        from optuna.samplers import TPESampler

        return TPESampler(multivariate=True, n_startup_trials=n_random, seed=seed)


class GP(OptunaMethod):
    """Gaussian process with log expected improvement."""

    name = "gp"
    is_slow = True

    def make_sampler(self, seed: int, n_random: int) -> BaseSampler:
        """Return the sampler."""
        from optuna.samplers import GPSampler

        return GPSampler(n_startup_trials=n_random, seed=seed)


class CMAES(Method):
    """Covariance matrix adaptation. Labels, which it does not know, are drawn at random by Optuna."""

    name = "cmaes"
    needs_pool = True

    def start(self, task: NewTask) -> None:
        """Create the study."""
        from optuna.samplers import CmaEsSampler

        super().start(task)
        self._distributions = {column_order(name): value for name, value in distributions_of(task.space).items()}
        with quiet_optuna():
            self._study = _study(CmaEsSampler(seed=task.seed, n_startup_trials=1, warn_independent_sampling=False))
        self._trial: Any = None

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Pass on the outcome of the last proposal, ask for the next one, snap it."""
        with quiet_optuna():
            if self._trial is not None:
                self._study.tell(self._trial, float(filled(values)[-1]))
            self._trial = self._study.ask(self._distributions)
        return self.task.snap({name: self._trial.params[column_order(name)] for name in self.task.space}, tried)


def inside(config: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Return a configuration as a sampler can take it: within the bounds, the middle for what it does not have."""
    return {name: _inside(dim, config.get(name)) for name, dim in space.items()}


def _inside(dim: Dimension, value: Any) -> Any:
    if not dim.is_numeric:
        choices = dim.choices or ()
        return next((choice for choice in choices if as_label(choice) == as_label(value)), choices[0])
    if not is_number(value):
        middle = math.sqrt(dim.low * dim.high) if dim.is_log else (dim.low + dim.high) / 2
        return round(middle) if dim.is_int else middle
    number = min(max(float(value), dim.low), dim.high)
    return round(number) if dim.is_int else number


def n_random_first(problem: SearchProblem) -> int:
    """Return with how many random configurations a sampler begins: one that never gets beyond them would be random search."""
    return max(1, min(N_RANDOM_FIRST, problem.budget // 3))


def ask_sampler(problem: SearchProblem, trials: Sequence[Trial], sampler: BaseSampler) -> dict[str, Any]:
    """Return what a sampler suggests after some evaluations; a failed one counts as the worst seen."""
    from optuna.trial import TrialState, create_trial

    space = problem.task.space()
    is_max = problem.task.direction == "max"
    known = [trial.value for trial in trials if trial.value is not None]
    worst = (min(known) if is_max else max(known)) if known else None
    with quiet_optuna():
        study = _study(sampler, is_max=is_max)
        for trial in trials:
            value = worst if trial.value is None else trial.value
            state = TrialState.FAIL if value is None else TrialState.COMPLETE
            study.add_trial(create_trial(params=dict(trial.config), distributions=space, value=value, state=state))
        return dict(study.ask(space).params)


def _study(sampler: BaseSampler, *, is_max: bool = True) -> Study:
    import optuna

    return optuna.create_study(direction="maximize" if is_max else "minimize", sampler=sampler)
