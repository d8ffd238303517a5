"""Our own recommender as a method: the public ``recommend`` on a real history, and no path that exists only for comparisons."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compare_baselines.environment import environment
from compare_baselines.methods.base import CONTEXT, Method, NewTask, Past, Proposal, SearchProblem, Trial
from compare_baselines.methods.simple import Random
from metahp_report.comparison.records import RecordedPrediction
from metamodel import TaskDescription, recommend, refit
from metamodel.kinds import DEFAULT as OURS
from metamodel.recommendation import Decision
from store import Curve, FinishedRun, History, NotEnoughHistoryError
from store.errors import InvalidArgumentError
from store.names import Direction
from store.records import RunStatus
from store.switches import STARTER

if TYPE_CHECKING:
    from metamodel.recommendation import Recommendation


class MetaHP(Method):
    """Our meta-model, of any kind.

    In a pool: ``refit`` once on the past runs, then ``recommend(candidates=...)`` before each evaluation, which is recorded as a run. Each
    new task gets a copy of the history that holds the past runs and, as they come, its own: never those of another tested task. The
    automatic refit is off (``max_fit_s=0``), so that all tasks of a fold are asked of the same model.

    In a space: ``recommend`` on the history of the search. Where it abstains because it knows nothing, the user's own values are trained
    first, as the product does; after that random ones.
    """

    uses_past = True

    def __init__(self, kind: str = OURS) -> None:
        self.kind = self.name = kind

    def learn(self, past: Past) -> None:
        """Write the past runs into a history and fit the meta-model to it."""
        self._folder = tempfile.TemporaryDirectory(prefix="metahp-replay-")
        self._objective = past.objective
        self._seed = past.seed
        self._base = Path(self._folder.name) / "past.db"
        self._history: History | None = None
        with History(self._base) as history:
            history.add_finished_runs(_runs(past), {task.name: dict(task.description) for task in past.tasks})
            with suppress(NotEnoughHistoryError):  # of too little there is nothing to learn, and `recommend` knows
                refit(history, "cpu", model=self.kind, seed=past.seed)
            self._models = history.models_path

    def start(self, task: NewTask) -> None:
        """Copy the history."""
        super().start(task)
        self._drop()
        path = Path(self._folder.name) / "present.db"
        shutil.copyfile(self._base, path)
        self._history = History(path)
        if self._models.exists():
            shutil.copytree(self._models, self._history.models_path)
        self._rng = np.random.default_rng(task.seed)
        known = TaskDescription.from_dict(task.description)
        self._task = TaskDescription(name=task.name, objective=self._objective, direction=task.direction, features=known.features)
        self._n_written = 0

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Record what was evaluated last, ask for the best of the rest."""
        assert self._history is not None
        for index, value in zip(tried[self._n_written :], values[self._n_written :], strict=True):
            self._record(index, value)
        self._n_written = len(tried)
        free = [int(i) for i in self.task.is_free(tried).nonzero()[0]]
        candidates = [self.task.configs[i] for i in free]
        # What is known of a user's run as well: how long it is going to train.
        current = {**self.known(), **({"num_epochs": self.task.epochs} if self.task.epochs else {})} or None
        asked: dict[str, Any] = {"candidates": candidates, "current": current, "model": self.kind, "max_fit_s": 0, "seed": self._seed}
        found = recommend(self._history, self._task, mode="explore", **asked)
        if not found[0].config:  # it abstains without a choice: nobody knows anything
            return int(self._rng.choice(free))
        return free[candidates.index(found[0].config)]

    def known(self) -> dict[str, Any]:
        """Return what all runs of a task have in common beside what is tuned; of a recorded table this is mostly unknown."""
        return {}

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return what a user would run: the best there is known of first, then configurations from which most would be learned."""
        task, size = problem.task, problem.size
        # Whatever the user's switch: what a method learns from is what was printed.
        with environment({STARTER.name: "1" if problem.uses_starter else "0"}):
            found = recommend(
                problem.past,
                task.describe(size),
                space=space_in_force(problem),
                mode="explore" if trials else "best",
                current={**task.in_force(task.defaults, size), **task.fixed(size)},
                model=self.kind,
                device="cpu",
                seed=problem.seed,
            )[0]
        has_model = found.evidence.model_id is not None
        # The product leaves the user's values as they are where it abstains; exploring is asked for, so there its choice is trained.
        if found.config and (trials or (has_model and found.decision is Decision.APPLY)):
            return Proposal(task.as_in_grid(found.config, size), _recorded(found), found.reason)
        if not trials:
            return Proposal(dict(task.defaults), None, f"kept the defaults: {found.reason}")
        drawn = Random().propose(problem, trials)
        return None if drawn is None else Proposal(drawn.config, None, f"at random: {found.reason}")

    def close(self) -> None:
        """Delete the histories."""
        self._drop()
        self._folder.cleanup()

    def _record(self, index: int, value: float) -> None:
        assert self._history is not None
        direction = self.task.direction
        hparams = {**self.known(), **self.task.configs[index]}
        with self._history.start_run(
            task=self._task, hparams=hparams, objective=self._objective, direction=direction, framework="table"
        ) as run:
            run.log({self._objective: _in_units(value, direction)}, step=int(self.task.epochs or 0), epoch=self.task.epochs)
            if self.task.epochs is not None:
                run.update(epochs_reached=self.task.epochs)

    def _drop(self) -> None:
        """Close and delete the copy of the last task."""
        if self._history is None:
            return
        path, models = self._history.path, self._history.models_path
        self._history.close()
        self._history = None
        shutil.rmtree(models, ignore_errors=True)
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()


class StarterMethod(MetaHP):
    """The public ``recommend`` on an empty history, which has nothing but the starter history to go by, and then the task's own runs."""

    needs_pool = True

    def __init__(self) -> None:
        super().__init__()
        self.name = "starter"

    def learn(self, past: Past) -> None:
        """Make an empty history.

        Raises:
            InvalidArgumentError: If there is a past, or the starter history is switched off.
        """
        super().learn(replace(past, tasks=()))
        if past.tasks or not STARTER.is_on:
            reason = f"there are {len(past.tasks)} past tasks" if STARTER.is_on else "METAHP_STARTER switches it off"
            raise InvalidArgumentError(f"The method 'starter' needs the starter history and no other, but {reason}. Use replay --starter.")

    def start(self, task: NewTask) -> None:
        """Describe the task by what is known of its runs."""
        super().start(task)
        self._task = replace(self._task, model_family=self.known().get("model_family"), is_pretrained=False)

    def known(self) -> dict[str, Any]:
        """Return what all runs of the table had in common."""
        return dict(self.task.description.get(CONTEXT, {}))


def space_in_force(problem: SearchProblem) -> dict[str, Any]:
    """Return the space as a history knows it: canonical names, and the epochs that are really trained."""
    task = problem.task
    found: dict[str, Any] = {}
    for name, distribution in task.space().items():
        if name == "epochs":
            found["num_epochs"] = [task.trained_epochs(epochs, problem.size) for epochs in task.grid["epochs"]]
        else:
            choices = getattr(distribution, "choices", None)
            found[name] = distribution if choices is None else list(choices)
    return found


def _recorded(found: Recommendation) -> RecordedPrediction | None:
    low, high = found.interval
    if not all(map(math.isfinite, (found.prediction, low, high))):
        return None
    return RecordedPrediction(found.prediction, low, high, str(found.unit), found.gain_probability)


def _runs(past: Past) -> Iterator[FinishedRun]:
    """Return the past runs with their final objective, and what came before it where that is known."""
    for number, task in enumerate(past.tasks):
        for i, (config, outcome, epochs) in enumerate(zip(task.configs, task.outcomes, task.epochs, strict=True)):
            steps, values = task.curves[i] if task.curves else ((int(epochs or 0),), (float(outcome),))
            curves = {past.objective: Curve(steps, [_in_units(value, task.direction) for value in values])}
            status = RunStatus(task.endings[i]) if task.endings else None
            hparams, run_id = {task.spelling.get(name, name): value for name, value in config.items()}, f"past-{number:04d}-{i:06d}"
            yield FinishedRun(run_id, task.name, hparams, past.objective, task.direction, curves, status, epochs_reached=epochs)


def _in_units(outcome: float, direction: str) -> float:
    """Return an oriented outcome as it was logged."""
    return -outcome if direction == Direction.MIN and not math.isnan(outcome) else outcome
