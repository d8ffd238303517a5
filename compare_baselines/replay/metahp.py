"""Our own recommender as a method: the public ``recommend`` on a real history, and no path that exists only for replay."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compare_baselines.replay.methods import Method, NewTask, Past
from metamodel import TaskDescription, recommend, refit
from store import Curve, FinishedRun, History, NotEnoughHistoryError
from store.names import Direction
from store.records import RunStatus


class MetaHP(Method):
    """``refit`` once on the past runs, then ``recommend(candidates=...)`` before each evaluation, which is recorded as a run.

    Each new task gets a copy of the history that holds the past runs and, as they come, its own: never those of another tested task. The
    automatic refit is off (``max_fit_s=0``), so that all tasks of a fold are asked of the same model.
    """

    name = "metahp"
    kind: ClassVar[str] = "metahp"

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
        # What a run of the user's would say of itself: how long it is going to train.
        current = {**self.known(), **({"num_epochs": self.task.epochs} if self.task.epochs else {})} or None
        asked: dict[str, Any] = {"candidates": candidates, "current": current, "model": self.kind, "max_fit_s": 0, "seed": self._seed}
        found = recommend(self._history, self._task, mode="explore", **asked)
        if not found[0].config:  # it abstains without a choice: nobody knows anything
            return int(self._rng.choice(free))
        return free[candidates.index(found[0].config)]

    def known(self) -> dict[str, Any]:
        """Return what all runs of a task have in common beside what is tuned; a recorded table mostly does not say it."""
        return {}

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
