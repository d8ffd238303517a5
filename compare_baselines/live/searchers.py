"""The methods of a live comparison: what to train next, from what was trained so far.

A method is asked anew before each evaluation and given everything it has evaluated; it keeps nothing in between. So a search that was
interrupted goes on exactly as it would have gone on, from what the history says.
"""

from __future__ import annotations

import difflib
import math
import os
import time
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compare_baselines.live.tasks.base import LiveTask
from metahp_report.comparison_records import Prediction
from store.errors import InvalidArgumentError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from metamodel.recommendation import Recommendation

STARTER = "METAHP_STARTER"
MAX_STARTUP = 5
"""Random configurations with which TPE and the Gaussian process start, as in replay; a third of the budget where that is less."""


@dataclass(frozen=True)
class Tried:
    """A configuration that was evaluated, and its validation value in the task's units; None where it failed."""

    config: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True)
class Problem:
    """What a method knows of its search.

    Attributes:
        task: The task.
        size: ``tiny``, ``small`` or ``full``.
        seed: Seed of the search.
        budget: Evaluations in all.
        past: History with the runs of other tasks and, of this one, those of this search alone; None for methods that use none.
        asks_starter: Whether the starter history may speak.
    """

    task: LiveTask
    size: str
    seed: int
    budget: int
    past: Path | None = None
    asks_starter: bool = False

    def seed_of(self, method: str, index: int) -> int:
        """Return the seed of one decision."""
        return zlib.crc32(f"{self.task.name} {method} {self.seed} {index}".encode())


@dataclass(frozen=True)
class Proposal:
    """What to train next, with what was expected of it and a remark."""

    config: dict[str, Any]
    prediction: Prediction | None = None
    note: str = ""


class Searcher(ABC):
    """A method. Seeds alone make it random."""

    name: ClassVar[str]
    uses_past: ClassVar[bool] = False

    @abstractmethod
    def propose(self, problem: Problem, tried: Sequence[Tried]) -> Proposal | None:
        """Return what to train next, or None if there is nothing left."""


class Default(Searcher):
    """What the libraries do where nobody says otherwise: one evaluation."""

    name = "default"

    def propose(self, problem: Problem, tried: Sequence[Tried]) -> Proposal | None:
        """Return the defaults once."""
        return None if tried else Proposal(dict(problem.task.defaults))


class Grid(Searcher):
    """Every cell of the grid in random order, none twice, as Optuna's GridSampler does; ranges have three levels."""

    name = "grid"

    def propose(self, problem: Problem, tried: Sequence[Tried]) -> Proposal | None:
        """Return the next cell; None when the grid is used up."""
        levels = problem.task.levels()
        cells = list(product(*levels.values()))
        order = np.random.default_rng(problem.seed_of(self.name, 0)).permutation(len(cells))
        if len(tried) >= len(cells):
            return None
        return Proposal(dict(zip(levels, cells[order[len(tried)]], strict=True)))


class Random(Searcher):
    """Independent draws from the space; one of a small grid may come twice, as it does in practice."""

    name = "random"

    def propose(self, problem: Problem, tried: Sequence[Tried]) -> Proposal | None:
        """Return a draw."""
        from optuna.samplers import RandomSampler

        return Proposal(ask(problem, (), RandomSampler(seed=problem.seed_of(self.name, len(tried)))))


class TPE(Searcher):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, by Optuna."""

    name = "tpe"

    def propose(self, problem: Problem, tried: Sequence[Tried]) -> Proposal | None:
        """Return what the sampler suggests."""
        from optuna.samplers import TPESampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "experimental" at every call
            sampler = TPESampler(multivariate=True, n_startup_trials=n_startup(problem), seed=problem.seed_of(self.name, len(tried)))
        return Proposal(ask(problem, tried, sampler))


class GP(Searcher):
    """Gaussian process with log expected improvement, by Optuna."""

    name = "gp"

    def propose(self, problem: Problem, tried: Sequence[Tried]) -> Proposal | None:
        """Return what the sampler suggests."""
        from optuna.samplers import GPSampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            sampler = GPSampler(n_startup_trials=n_startup(problem), seed=problem.seed_of(self.name, len(tried)))
        return Proposal(ask(problem, tried, sampler))


class MetaHP(Searcher):
    """Our own recommender: the public ``recommend`` on a real history, conditioned on every run of this search.

    Where it says that it knows nothing, the user's own values are trained first, as the product does; after that random ones.
    """

    name = "metahp"
    uses_past = True
    model: ClassVar[str] = "metahp"
    """Kind of meta-model that answers."""

    def propose(self, problem: Problem, tried: Sequence[Tried]) -> Proposal | None:
        """Ask for what a run would teach most."""
        from metamodel import recommend

        task, size = problem.task, problem.size
        optimizer = {} if task.optimizer is None else {"optimizer": task.optimizer}
        with starter(problem.asks_starter):
            found = recommend(
                problem.past,
                task.describe(size),
                space=space_in_force(task, size),
                mode="explore",
                current={**task.in_force(task.defaults, size), **optimizer},
                model=self.model,
                device="cpu",
                seed=problem.seed,
            )[0]
        if found.config and not (not tried and is_thin(found)):
            return Proposal(task.as_in_grid(found.config, size), _prediction(found), found.reason)
        if not tried:
            return Proposal(dict(task.defaults), None, f"kept the defaults: {found.reason}")
        drawn = Random().propose(problem, tried)
        return None if drawn is None else Proposal(drawn.config, None, f"at random: {found.reason}")


class Direct(MetaHP):
    """A network that regresses the best hyperparameters of a task."""

    name = "direct"
    model = "direct"


class MAML(MetaHP):
    """A surrogate network whose initialisation is meta-learned (Finn et al. 2017)."""

    name = "maml"
    model = "maml"


class Reptile(MetaHP):
    """The same with the first-order rule of Nichol et al. (2018)."""

    name = "reptile"
    model = "reptile"


METHODS: dict[str, type[Searcher]] = {each.name: each for each in (Default, Grid, Random, TPE, GP, MetaHP, Direct, MAML, Reptile)}
"""Name -> class."""


def find_searcher(name: str) -> Searcher:
    """Return a method by its name.

    Raises:
        InvalidArgumentError: If there is no such method.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name, list(METHODS), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? Possible" if close else "possible"
        raise InvalidArgumentError(f"A method must be known, but got {name!r}; {hint} are {', '.join(METHODS)}.")
    return METHODS[name]()


@contextmanager
def starter(is_asked: bool) -> Iterator[None]:
    """Let the starter history speak or not, whatever the user's switch says: what a method learns from is what was printed."""
    before = os.environ.get(STARTER)
    os.environ[STARTER] = "1" if is_asked else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[STARTER]
        else:
            os.environ[STARTER] = before


def timed_proposal(searcher: Searcher, problem: Problem, tried: Sequence[Tried]) -> tuple[Proposal | None, dict[str, float]]:
    """Ask a method, and return its answer with the seconds and the CPU seconds it took: a method is charged for thinking, too."""
    started, cpu_started = time.perf_counter(), time.process_time()
    proposal = searcher.propose(problem, tried)
    return proposal, {"decision_s": time.perf_counter() - started, "decision_cpu_s": time.process_time() - cpu_started}


def n_startup(problem: Problem) -> int:
    """Return with how many random configurations a sampler starts: one that never gets beyond them would be random search."""
    return max(1, min(MAX_STARTUP, problem.budget // 3))


def ask(problem: Problem, tried: Sequence[Tried], sampler: BaseSampler) -> dict[str, Any]:
    """Return what a sampler of Optuna suggests after some evaluations; a failed one is told as the worst seen."""
    import optuna
    from optuna.trial import TrialState, create_trial

    space = problem.task.space()
    is_max = problem.task.direction == "max"
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # degenerate fits say so at every call
            study = optuna.create_study(direction="maximize" if is_max else "minimize", sampler=sampler)
            known = [item.value for item in tried if item.value is not None]
            worst = (min(known) if is_max else max(known)) if known else None
            for item in tried:
                value = worst if item.value is None else item.value
                if value is None:
                    study.add_trial(create_trial(params=dict(item.config), distributions=space, state=TrialState.FAIL))
                else:
                    study.add_trial(create_trial(params=dict(item.config), distributions=space, value=value))
            return dict(study.ask(space).params)
    finally:
        optuna.logging.set_verbosity(before)


def space_in_force(task: LiveTask, size: str) -> dict[str, Any]:
    """Return the space as a history knows it: canonical names, and the epochs that are really trained."""
    found: dict[str, Any] = {}
    for name, distribution in task.space().items():
        if name == "epochs":
            found["num_epochs"] = [task.trained_epochs(epochs, size) for epochs in task.grid["epochs"]]
        else:
            choices = getattr(distribution, "choices", None)
            found[name] = distribution if choices is None else list(choices)
    return found


def is_thin(found: Recommendation) -> bool:
    """Say whether a recommendation rests on nothing that was learned: no model spoke."""
    return found.evidence.model_id is None


def _prediction(found: Recommendation) -> Prediction | None:
    low, high = found.interval
    if not all(map(math.isfinite, (found.prediction, low, high))):
        return None
    return Prediction(found.prediction, low, high, str(found.unit))
