"""Our own recommender as a method: the public ``recommend`` on a real history, and no path that exists only for replay."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from compare_baselines.replay.methods import Method, NewTask, Past
from metamodel import TaskDescription, recommend, refit
from store import Curve, FinishedRun, History
from store.names import Direction


class MetaHP(Method):
    """``refit`` once on the past runs, then ``recommend(candidates=...)`` before each evaluation, which is recorded as a run.

    Each new task gets a copy of the history that holds the past runs and, as they come, its own: never those of another tested task. The
    automatic refit is off (``max_fit_s=0``), so that all tasks of a fold are asked of the same model.
    """

    name = "metahp"

    def learn(self, past: Past) -> None:
        """Write the past runs into a history and fit the meta-model to it."""
        self._folder = tempfile.TemporaryDirectory(prefix="metahp-replay-")
        self._objective = past.objective
        self._seed = past.seed
        self._base = Path(self._folder.name) / "past.db"
        self._history: History | None = None
        with History(self._base) as history:
            history.add_finished_runs(_runs(past), {task.name: dict(task.description) for task in past.tasks})
            refit(history, "cpu", seed=past.seed)
            self._models = history.models_path

    def start(self, task: NewTask) -> None:
        """Copy the history."""
        super().start(task)
        self._drop()
        path = Path(self._folder.name) / "present.db"
        shutil.copyfile(self._base, path)
        self._history = History(path)
        shutil.copytree(self._models, self._history.models_path)
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
        found = recommend(self._history, task=self._task, candidates=candidates, k=1, max_fit_s=0, seed=self._seed)
        return free[candidates.index(found[0].config)]

    def close(self) -> None:
        """Delete the histories."""
        self._drop()
        self._folder.cleanup()

    def _record(self, index: int, value: float) -> None:
        assert self._history is not None
        direction = self.task.direction
        with self._history.start_run(
            task=self._task, hparams=self.task.configs[index], objective=self._objective, direction=direction, framework="table"
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
    """Return the past runs with their final objective as the only value."""
    for number, task in enumerate(past.tasks):
        for i, (config, outcome, epochs) in enumerate(zip(task.configs, task.outcomes, task.epochs, strict=True)):
            curve = Curve([int(epochs or 0)], [_in_units(float(outcome), task.direction)])
            curves, run_id = {past.objective: curve}, f"past-{number:04d}-{i:06d}"
            yield FinishedRun(run_id, task.name, dict(config), past.objective, task.direction, curves, epochs_reached=epochs)


def _in_units(outcome: float, direction: str) -> float:
    """Return an oriented outcome as it was logged."""
    return -outcome if direction == Direction.MIN and not math.isnan(outcome) else outcome
