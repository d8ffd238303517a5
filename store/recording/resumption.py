"""A run that stopped and goes on: the same id, the next attempt."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from store.errors import InvalidArgumentError
from store.recording.run_state import RunState
from store.records import TaskLike
from store.sqlite.row_reader import find_run_id, read_runs
from store.statuses import RunStatus


@dataclass(frozen=True, slots=True)
class EarlierAttempt:
    """What the history knows of a run that goes on.

    Attributes:
        row: The run's row.
        task: The row of the task it belongs to by its own identity, None if that is unknown.
        hparams: Its rows of ``hparams``.
        next_step: One more than the last step logged.
    """

    row: dict[str, Any]
    task: dict[str, Any] | None
    hparams: list[dict[str, Any]]
    next_step: int

    def state(self, task: str | TaskLike | None, row: dict[str, Any], known_task: dict[str, Any] | None) -> RunState:
        """Return the run's state at the start of its next attempt.

        Args:
            task: The task as it is given now, None to keep that of the run.
            row: First values of columns of ``runs``.
            known_task: Row of the existing task that the given name stands for.
        """
        next_row = {**row, "attempt": (self.row["attempt"] or 0) + 1}
        state = RunState(self.row["id"], task, next_row, known_task if task is not None else self.task)
        state.resume(self.row, self.hparams, self.next_step)
        return state


def read_attempt(connection: sqlite3.Connection, run_id: str) -> EarlierAttempt:
    """Return what is known of a run that is to go on.

    Raises:
        UnknownRunError: If there is none, or more than one, of this id.
        InvalidArgumentError: If it is running still.
    """
    whole_id = find_run_id(connection, run_id)
    if read_runs(connection, run_id=whole_id, with_hparams=False)[0].status is RunStatus.RUNNING:
        raise InvalidArgumentError(
            f"A run that goes on must have stopped, but {whole_id} is still running. Wait until it is shown as stale, "
            "or start a run of its own with parent_run_id."
        )
    row = dict(connection.execute("SELECT * FROM runs WHERE id = ?", (whole_id,)).fetchone())
    task = connection.execute("SELECT * FROM tasks WHERE id = ?", (row["original_task_id"] or row["task_id"],)).fetchone()
    hparams = [dict(found) for found in connection.execute("SELECT * FROM hparams WHERE run_id = ? ORDER BY rowid", (whole_id,))]
    last = connection.execute("SELECT max(step) FROM metrics WHERE run_id = ?", (whole_id,)).fetchone()[0]
    return EarlierAttempt(row, None if task is None else dict(task), hparams, 0 if last is None else last + 1)
