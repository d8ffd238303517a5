"""Optuna's samplers as methods: TPE, a Gaussian process with log expected improvement, CMA-ES.

They propose points of the whole space, and a replay has only recorded ones: each proposal is snapped to the nearest configuration that is
not evaluated yet. That is a handicap. TPE and the Gaussian process are told the configuration that was really evaluated; CMA-ES can only
be told the outcome of its own proposal, so for it the snapping is noise in the input as well.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compare_baselines.replay.methods import Method, NewTask, filled
from compare_baselines.replay.spaces import distributions_of
from metamodel.space.dimensions import Dimension, Space, is_number

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

N_STARTUP = 5
"""Random configurations first, as in the reference."""


class OptunaMethod(Method):
    """A sampler of Optuna on a study in memory, one a task."""

    def make_sampler(self, seed: int) -> BaseSampler:
        """Return the sampler."""
        raise NotImplementedError

    def start(self, task: NewTask) -> None:
        """Create the study."""
        super().start(task)
        self._distributions = distributions_of(task.space)
        self._study = _quiet_study(self.make_sampler(task.seed))
        self._n_told = 0

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Tell the last outcome, ask for a point, snap it."""
        from optuna.trial import TrialState, create_trial

        outcomes = filled(values)
        for index, value in zip(tried[self._n_told :], outcomes[self._n_told :], strict=True):
            params = inside(self.task.configs[index], self.task.space)
            self._study.add_trial(create_trial(params=params, distributions=self._distributions, value=float(value)))
        self._n_told = len(tried)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental features and degenerate fits say so at every call
            trial = self._study.ask(self._distributions)
            # The proposal itself is never evaluated: what is comes in as a trial of its own.
            self._study.tell(trial, state=TrialState.FAIL)
        return self.task.snap(trial.params, tried)


class TPE(OptunaMethod):
    """Tree-structured Parzen estimator, multivariate."""

    name = "tpe"

    def make_sampler(self, seed: int) -> BaseSampler:
        """Return the sampler."""
        from optuna.samplers import TPESampler

        return TPESampler(multivariate=True, n_startup_trials=N_STARTUP, seed=seed)


class GP(OptunaMethod):
    """Gaussian process with log expected improvement."""

    name = "gp"
    is_slow = True

    def make_sampler(self, seed: int) -> BaseSampler:
        """Return the sampler."""
        from optuna.samplers import GPSampler

        return GPSampler(n_startup_trials=N_STARTUP, seed=seed)


class CMAES(Method):
    """Covariance matrix adaptation. Labels, which it does not know, are drawn at random by Optuna."""

    name = "cmaes"

    def start(self, task: NewTask) -> None:
        """Create the study."""
        from optuna.samplers import CmaEsSampler

        super().start(task)
        self._distributions = distributions_of(task.space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study = _quiet_study(CmaEsSampler(seed=task.seed, n_startup_trials=1, warn_independent_sampling=False))
        self._trial: Any = None

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Tell the outcome of the last proposal, ask for the next one, snap it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._trial is not None:
                self._study.tell(self._trial, float(filled(values)[-1]))
            self._trial = self._study.ask(self._distributions)
        return self.task.snap(self._trial.params, tried)


def inside(config: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Return a configuration as a sampler can be told it: within the bounds, the middle for what it does not have."""
    return {name: _inside(dim, config.get(name)) for name, dim in space.items()}


def _inside(dim: Dimension, value: Any) -> Any:
    if not dim.is_numeric:
        choices = dim.choices or ()
        return value if value in choices else choices[0]
    if not is_number(value):
        middle = math.sqrt(dim.low * dim.high) if dim.is_log else (dim.low + dim.high) / 2
        return round(middle) if dim.is_int else middle
    number = min(max(float(value), dim.low), dim.high)
    return round(number) if dim.is_int else number


def _quiet_study(sampler: BaseSampler) -> Study:
    """Return a study in memory, without a line on stderr for each."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(direction="maximize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(before)
