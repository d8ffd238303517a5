"""The history: one SQLite file with every run, and the door to it."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from store.errors import HistoryClosedError, InvalidArgumentError, MetaHPError, StorageWarning, UnknownRunError
from store.history_reader import HistoryReader
from store.ids import new_id, task_id_of, utc_now
from store.names import resolve_direction
from store.paths import resolve_path
from store.recording.recorder import RunRecorder
from store.recording.resumption import EarlierAttempt, read_attempt
from store.recording.run_state import RunState, script_identity
from store.recording.writer import flush_own, writer_for
from store.records import Source, TaskLike
from store.sqlite.bulk import FinishedRun, write_finished_runs
from store.sqlite.connection import HistoryConnection, set_busy_timeout, transaction
from store.sqlite.operations import resolve_merged
from store.upkeep import curation
from store.upkeep.merge import COUNTED, merge_history, source_file
from store.user_warnings import warn_user
from store.values import encode_value, storable_text

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

_LOOK_UP_TIMEOUT_S = 0.5  # the start of a training does not wait long for a locked history


class History(HistoryReader):
    """Every run, its hyperparameters, metrics, cost and outcome, in one SQLite file. A context manager.

    Example:
        >>> with History("history.db") as history, history.start_run(task="t", hparams={"lr": 0.1}, objective="val_acc") as run:
        ...     run.log(val_acc=0.9)
    """

    def start_run(
        self,
        *,
        task: str | TaskLike | None = None,
        hparams: Mapping[str, Any] | None = None,
        objective: str | None = None,
        direction: str | None = None,
        sources: Mapping[str, Source | str] | None = None,
        requested: Mapping[str, Any] | None = None,
        framework: str = "python",
        model_class: str | None = None,
        model_family: str | None = None,
        n_parameters: int | None = None,
        variant: str | None = None,
        description: Mapping[str, Any] | None = None,
        recommendation_id: str | None = None,
        parent_run_id: str | None = None,
        resume: str | None = None,
    ) -> RunRecorder:
        """Start recording a run, or go on with one. Its row is in the history, or in the spool, when this returns.

        Args:
            task: Name of an existing or a new task, or a description; None: the script's name with the objective.
            hparams: Raw name -> value. What ``metahp_tuning.suggest`` returned (a ``TunedConfiguration``) brings its recommendation,
                sources, requested values, and what it knows of task, objective and model along.
            objective: Metric that decides.
            direction: ``min`` or ``max``; needed only where the objective's name does not imply it.
            sources: Raw name -> who decided the value; default ``user``.
            requested: Raw name -> what the user's code asked for, where that differs.
            framework: ``lightning``, ``transformers`` or ``python``.
            model_class: Class name of the model.
            model_family: ``mlp cnn rnn transformer other``.
            n_parameters: Number of the model's parameters.
            variant: Text that changes with the model's source.
            description: Further facts of the run, JSON-compatible.
            recommendation_id: The recommendation it follows.
            parent_run_id: The run it resumes as a run of its own.
            resume: Id of a run that stopped and goes on here: it keeps its id, outcome and hyperparameters, unless they are given
                anew, and what is logged becomes its next attempt.

        Raises:
            ObjectiveError: If the objective's direction is unknown.
            InvalidArgumentError: If a source is unknown, the task is no name or description, ``hparams`` no mapping, or the run to
                resume is still running.
            UnknownRunError: If there is no run to resume.
            HistoryClosedError: If the history is closed.
        """
        _check_start(task, hparams)
        tuned = _tuned_parts(hparams)
        sources = tuned.get("sources") if sources is None else sources
        requested = tuned.get("requested") if requested is None else requested
        recommendation_id = tuned.get("recommendation_id") if recommendation_id is None else recommendation_id
        fields = tuned.get("run_fields", {})
        task = fields.get("task") if task is None else task
        if objective in (None, fields.get("objective")):
            objective, direction = fields.get("objective"), direction or fields.get("direction")
        row: dict[str, Any] = {"framework": framework, "objective": None, "direction": None}
        if objective is not None:
            row |= {"objective": storable_text(objective), "direction": str(resolve_direction(objective, direction))}
        earlier = None if resume is None else self._earlier(resume)
        # where the history cannot be read just now, a run of its own that names the other one loses nothing
        row |= {"parent_run_id": parent_run_id or (resume if earlier is None else None), "attempt": 0}
        known_task = self._look_up(task, row)
        state = RunState(new_id(), task, row, known_task) if earlier is None else earlier.state(task, row, known_task)
        state.resolved_task_id = self._after_merges(state.resolved_task_id)
        state.set_hparams(hparams or {}, sources, requested)
        given = {"model_class": model_class, "model_family": model_family, "n_parameters": n_parameters, "variant": variant}
        known = {**given, "description": description, "recommendation_id": recommendation_id}
        known = {name: fields.get(name) if value is None else value for name, value in known.items()}
        state.update({name: value for name, value in known.items() if value is not None})
        self._save_tuned(tuned)
        writer = writer_for(self._path)
        recorder = RunRecorder(state, writer)
        writer.register(state)
        writer.flush(is_last_try=True)
        writer.warn_if_needed()
        return recorder

    def _save_tuned(self, tuned: Mapping[str, Any]) -> None:
        """Have a tuned configuration save its recommendation; a run is recorded whatever comes of it."""
        try:
            tuned.get("save_into", lambda _: None)(self)
        except Exception as error:  # the edge: foreign code, or a history that cannot be written now
            message = f"The recommendation that this run follows could not be saved into {self._path}: {error}. The run is recorded."
            logger.debug(message, exc_info=error)
            warn_user(message, StorageWarning)

    def merge_tasks(self, into: str, *others: str) -> None:
        """Make several tasks one; later runs with the others' identities join it as well.

        Args:
            into: The task that stays: name or id.
            *others: Those that become part of it.

        Raises:
            UnknownTaskError: If one of them does not exist.
        """
        with self._writing() as connection:
            curation.merge_tasks(connection, into, others)

    def rename_task(self, task: str, name: str) -> str:
        """Give a task that was recognised by itself another name; its runs, also later ones, stay in it.

        Args:
            task: Its name or id.
            name: The new name, which no other task has.

        Returns:
            The task's id.

        Raises:
            UnknownTaskError: If there is no such task.
            InvalidArgumentError: If the name is not possible, or the task was named by you in your code.
        """
        with self._writing() as connection:
            return curation.rename_task(connection, task, name)

    def split_task(self, run_ids: Iterable[str], name: str) -> str:
        """Move runs into a task of its own; each run remembers where it came from (``original_task_id``).

        Args:
            run_ids: Ids of the runs.
            name: Name of the new, or of an existing, task.

        Returns:
            The task's id.

        Raises:
            UnknownRunError: If one of the runs does not exist.
            InvalidArgumentError: If no runs are given.
        """
        with self._writing() as connection:
            return curation.split_task(connection, list(run_ids), name)

    def merge(self, other: str | os.PathLike[str] | History) -> dict[str, int]:
        """Take over what another history has; doing it twice changes nothing.

        Of a run that both know, the further advanced state stays. Meta-models stay with the history they were learned from.

        Args:
            other: The other history, of this or an older schema, which is only read.

        Returns:
            Table -> number of rows that came in; ``runs_updated`` are those of ``runs`` that were known before.

        Raises:
            HistoryPathError: If there is no such file.
            NotAHistoryError: If it is something else.
            HistoryTooNewError: If a newer version wrote it.
        """
        path = other.path if isinstance(other, History) else resolve_path(other)
        flush_own(path)
        with source_file(path) as source, self._writing() as connection:
            if os.path.samefile(path, self.path):
                return dict.fromkeys(COUNTED, 0)
            return merge_history(connection, source)

    def add_finished_runs(self, runs: Iterable[FinishedRun], descriptions: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, int]:
        """Take in runs that ended elsewhere, in one transaction; those whose id is known are left as they are.

        Args:
            runs: The runs, consumed one at a time; nothing is written if one of them is malformed.
            descriptions: Task name -> what is known of the task, as ``TaskDescription.to_dict`` gives it.

        Returns:
            Table -> number of rows that came in.

        Raises:
            InvalidArgumentError: If a run has no value of its objective.
            StorageError: If the history cannot be written.
        """
        with self._writing() as connection, transaction(connection):
            return write_finished_runs(connection, runs, descriptions or {})

    def save_recommendation(self, recommendation: Mapping[str, Any], *, current: Mapping[str, Any], changes: list[dict[str, Any]]) -> None:
        """Store a recommendation, replacing one of the same id.

        Args:
            recommendation: With at least ``id``; ``task_id`` and ``decision`` become columns of their own.
            current: The user's own configuration at that moment.
            changes: What was really rewritten.

        Raises:
            StorageError: If the history cannot be written.
        """
        decision = recommendation.get("decision")
        row = (
            recommendation["id"],
            utc_now(),
            recommendation.get("task_id"),
            None if decision is None else str(decision),
            encode_value(dict(recommendation)),
            encode_value(dict(current)),
            encode_value(list(changes)),
        )
        with self._writing() as connection, transaction(connection):
            connection.execute(
                "INSERT OR REPLACE INTO recommendations "
                "(id, created_utc, task_id, decision, recommendation_json, current_json, changes_json) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def save_model(self, row: Mapping[str, Any]) -> None:
        """Note a meta-model that was learned from this history, replacing one of the same id.

        Args:
            row: ``id``, ``kind``, ``file``, ``n_runs``, ``n_tasks`` and either ``info`` (a mapping) or
                ``info_json`` (a mapping or JSON text).

        Raises:
            StorageError: If the history cannot be written.
        """
        info = row.get("info_json", row.get("info"))
        values = {name: row.get(name) for name in ("id", "created_utc", "kind", "n_runs", "n_tasks")}
        values |= {"file": None if row.get("file") is None else str(row["file"])}
        values["created_utc"] = values["created_utc"] or utc_now()
        values["info_json"] = info if isinstance(info, str) else encode_value(dict(info or {}))
        with self._writing() as connection, transaction(connection):
            connection.execute(
                "INSERT OR REPLACE INTO models (id, created_utc, kind, file, n_runs, n_tasks, info_json) "
                "VALUES (:id, :created_utc, :kind, :file, :n_runs, :n_tasks, :info_json)",
                values,
            )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        flush_own(self._path)
        with self._using() as connection:
            yield connection

    def _look_up(self, task: str | TaskLike | None, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return the row of the existing task that a name or id stands for; note the attempt of a resumed run."""
        if task is not None and not isinstance(task, str) and row["parent_run_id"] is None:
            return None
        # An earlier version's task of this script goes on, in whatever folder the script lies.
        wanted = storable_text(task) if isinstance(task, str) else task_id_of(script_identity(row["objective"], row["direction"]))

        def find(connection: HistoryConnection) -> dict[str, Any] | None:
            if row["parent_run_id"] is not None:
                parent = connection.execute("SELECT attempt FROM runs WHERE id = ?", (row["parent_run_id"],)).fetchone()
                row["attempt"] = 1 + ((parent["attempt"] or 0) if parent else 0)
            if task is not None and not isinstance(task, str):
                return None
            found = connection.execute(
                "SELECT * FROM tasks WHERE id = ?1 OR (name = ?1 AND NOT is_named) ORDER BY id = ?1 DESC LIMIT 1",
                (wanted,),
            ).fetchone()
            return None if found is None else dict(found)

        return self._asked(find, otherwise=None)

    def _earlier(self, run_id: str) -> EarlierAttempt | None:
        flush_own(self._path)
        return self._asked(lambda connection: read_attempt(connection, run_id), otherwise=None)

    def _after_merges(self, task_id: str) -> str:
        return self._asked(lambda connection: resolve_merged(connection, task_id), otherwise=task_id)

    def _asked(self, question: Callable[[HistoryConnection], _Answer], *, otherwise: _Answer) -> _Answer:
        """Read while a run starts: a history that cannot be read just now does not stop it, the spool keeps the run."""
        try:
            with self._using() as connection:
                set_busy_timeout(connection, _LOOK_UP_TIMEOUT_S)
                try:
                    return question(connection)
                finally:
                    set_busy_timeout(connection)
        except (HistoryClosedError, UnknownRunError, InvalidArgumentError):
            raise
        except MetaHPError as error:
            logger.debug("The history could not be read at the start of a run: %s", error)
            return otherwise


def _check_start(task: object, hparams: object) -> None:
    if task is not None and not isinstance(task, str) and not hasattr(task, "identity"):
        raise InvalidArgumentError(f"A task must be a name, a TaskDescription or None, but got {task!r:.80}. Pass task='my-task'.")
    if hparams is not None and not isinstance(hparams, Mapping):
        hint = "Pass vars(...) of it." if hasattr(hparams, "__dict__") else "Pass hparams={'lr': 0.1}."
        raise InvalidArgumentError(f"hparams must be a mapping of names to values, but got {type(hparams).__name__}. {hint}")


def _tuned_parts(hparams: object) -> dict[str, Any]:
    """Return what a ``TunedConfiguration`` has beside its values; a key of that name is a hyperparameter, whatever else it looks like."""
    kinds = {"recommendation_id": str, "requested": Mapping, "sources": Mapping, "run_fields": Mapping, "save_into": Callable}
    names = [name for name in kinds if not isinstance(hparams, Mapping) or name not in hparams]
    found = {name: getattr(hparams, name, None) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, kinds[name])}  # type: ignore[arg-type]


def open_history(history: History | str | os.PathLike[str] | None, *, for_recording: bool = False) -> History:
    """Return the history given, or open the one at a path; None opens the default one.

    Args:
        history: A history, its path, or None for the default one.
        for_recording: Whether a file that cannot be opened just now is no error; see ``History``.

    Raises:
        HistoryPathError: If the path cannot hold a history.
        NotAHistoryError: If the file is something else.
        HistoryTooNewError: If a newer version wrote it.
    """
    return history if isinstance(history, History) else History(history, for_recording=for_recording)
