"""The recorder of one run: what callbacks and users' loops talk to. Everything after its creation is an append to a queue."""

from __future__ import annotations

import difflib
import logging
import math
import os
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from store.errors import InvalidArgumentError, ObjectiveWarning
from store.metric_hints import listed, usable_metrics
from store.names import Direction
from store.outcome import classify_exception, describe_error
from store.recording import resources, tensors
from store.recording.run_state import RunState
from store.recording.writer import Writer
from store.statuses import RunStatus, Source
from store.user_warnings import warn_user

logger = logging.getLogger(__name__)

FINISH_TIMEOUT_S = 5.0
"""How long ``finish`` waits for a write that is going on in the background."""

_MAX_STEP = 2**62  # well inside SQLite's integers, so that counting on never leaves them


class RunRecorder:
    """Records one training run; made by ``History.start_run``. A context manager, thread-safe.

    The process that made it is the only one that writes: in a forked child every method does nothing. No storage error ever
    leaves it; see ``StorageWarning``. A run that is not finished when the program ends is stored as ``interrupted``.

    Attributes:
        id: The run's id.
        attempt: 0, or one more than that of the run, or of the attempt, it resumes.
        has_warned: Whether somebody has said already that the objective is not logged.
    """

    def __init__(self, state: RunState, writer: Writer) -> None:
        self.id = state.id
        self.attempt = state.attempt
        self.has_warned = False
        self._state = state
        self._writer = writer
        self._next_step = state.next_step
        self._pid = state.pid
        # the writer holds the state, never the recorder: a recorder without a reference can never be finished
        weakref.finalize(self, _abandon, state).atexit = False

    @property
    def task_id(self) -> str:
        """Id of the run's task, after merges."""
        return self._state.resolved_task_id

    @property
    def objective(self) -> str | None:
        """Name of the metric that decides, None if there is none."""
        return self._state.objective

    @property
    def direction(self) -> Direction | None:
        """Direction of the objective."""
        return self._state.direction

    @property
    def status(self) -> RunStatus:
        """How the run stands."""
        return self._state.status

    @property
    def is_finished(self) -> bool:
        """Whether ``finish`` was called."""
        return self._state.is_finished

    def log(
        self,
        metrics: Mapping[str, Any] | None = None,
        step: int | None = None,
        epoch: float | None = None,
        *,
        is_partial: bool = False,
        **metrics_kw: Any,
    ) -> None:
        """Log values. Costs an append; never waits for a device or a disk, never raises for a bad value.

        Args:
            metrics: Name -> number, bool, NumPy scalar, or tensor of one element, for names that are no Python names.
            step: Step they belong to; by default one more than the last. The same name and step logged again replace the value.
            epoch: Epoch, may be fractional.
            is_partial: Whether they are no outcome: of one batch, or of a model that was not trained yet. They are kept all the same.
            **metrics_kw: Further values by name.
        """
        if metrics is not None and not isinstance(metrics, Mapping):
            self._state.metrics.skip("metrics", TypeError(f"a mapping of names to numbers is needed, not {type(metrics).__name__}"))
            metrics = None
        if metrics_kw:
            metrics = {**(metrics or {}), **metrics_kw}
        if not metrics or os.getpid() != self._pid:
            return
        if self._state.is_finished:
            logger.debug("Values logged after the end of run %s are left out.", self.id)
            return
        self._append(metrics, step, epoch, is_partial)
        self._writer.warn_if_needed()

    def log_given(self, metrics: Mapping[str, Any], step: int, epoch: float | None = None, *, is_partial: bool = False) -> None:
        """Log values that nobody will change any more, for callbacks: as ``log``, but what is not at hand is kept without a copy.

        Args:
            metrics: Name -> value as for ``log``.
            step: Step they belong to.
            epoch: Epoch, finite.
            is_partial: As for ``log``.
        """
        state = self._state
        if not metrics or state.is_finished or os.getpid() != self._pid:
            return
        values = tensors.read_at_hand(metrics.values())
        stream = tensors.current_stream(values[:1])
        self._next_step = step + 1
        self._writer.append((state, tuple(metrics), is_partial, values, step, epoch, state.elapsed_s, stream))
        self._writer.warn_if_needed()

    def log_after_end(self, metrics: Mapping[str, Any], step: int | None = None, *, is_partial: bool = True) -> None:
        """Add values that became known after ``finish``, such as a test of the trained model; status and times stay as they are.

        Args:
            metrics: Name -> number, as for ``log``.
            step: Step they belong to.
            is_partial: Whether they are no outcome; an evaluation is one where training itself had none.
        """
        if not metrics or os.getpid() != self._pid:
            return
        self._append(metrics, step, None, is_partial)
        self._writer.touch(self._state)
        self._writer.flush(FINISH_TIMEOUT_S, is_last_try=True)
        self._writer.warn_if_needed()

    def _append(self, metrics: Mapping[str, Any], step: int | None, epoch: float | None, is_partial: bool) -> None:
        state = self._state
        elapsed_s = state.elapsed_s
        names: list[Any] = []
        values: list[Any] = []
        stream = None
        for name, value in metrics.items():
            if type(value) is not float:
                try:
                    value = tensors.hold(value)
                    if type(value) is not float:
                        value = value.clone()
                        stream = stream or tensors.current_stream((value,))
                except Exception as error:  # a value may be any foreign object, and logging must not end a training
                    state.metrics.skip(name, error)
                    continue
            names.append(name)
            values.append(value)
        if names:
            self._writer.append((state, tuple(names), is_partial, values, self._step(step), _epoch(epoch), elapsed_s, stream))

    def set_hparams(
        self,
        hparams: Mapping[str, Any],
        *,
        sources: Mapping[str, Source | str] | None = None,
        requested: Mapping[str, Any] | None = None,
    ) -> None:
        """Add or replace hyperparameters.

        Args:
            hparams: Raw name -> value in force.
            sources: Raw name -> who decided it; default ``user``, or what it was before.
            requested: Raw name -> what the user's code asked for, where that differs.

        Raises:
            InvalidArgumentError: If a source is unknown.
        """
        if os.getpid() != self._pid:
            return
        self._state.set_hparams(hparams, sources, requested)
        self._writer.touch(self._state)

    def observe(self, observed: Mapping[str, Any]) -> None:
        """Note values as they were read back after the start of training.

        Args:
            observed: Raw or canonical name -> value. A name without hyperparameter is recorded as a default.
        """
        if os.getpid() != self._pid:
            return
        self._state.observe(observed)
        self._writer.touch(self._state)

    def update(self, **fields: Any) -> None:
        """Set what became known after the start.

        Args:
            **fields: Any of objective, direction, task, model_class, model_family, n_parameters, variant, description,
                recommendation_id, epochs_reached, steps_reached, peak_memory_bytes, peak_gpu_memory_bytes, gpu_s.

        Raises:
            InvalidArgumentError: If there is no such field, or the value is of the wrong type.
            ObjectiveError: If the objective's direction is unknown.
        """
        if os.getpid() != self._pid:
            return
        self._state.update(fields)
        self._writer.touch(self._state)

    def finish(self, status: RunStatus | str | None = None, error: BaseException | str | None = None) -> None:
        """End the run and write everything; the first call wins.

        Args:
            status: How it ended. None: inferred from the error, else from the values logged last (``diverged`` or ``completed``).
            error: What ended it, if something did.

        Raises:
            InvalidArgumentError: If there is no such status.
        """
        if os.getpid() != self._pid or self._state.is_finished:
            return
        final = None if status is None else _checked_status(status)
        resources.sampler().finish(self._state)
        self._writer.drain()
        if final is None:
            final = _status_of(error) if error is not None else self._state.metrics.ending(self._state.objective)
        message = None if error is None else describe_error(error)
        if not self._state.close(final, message):
            return  # another thread was faster
        self._writer.touch(self._state)
        self._writer.flush(FINISH_TIMEOUT_S, is_last_try=True, is_final=True)
        self._writer.warn_if_needed()
        if error is None and str(final) in {"completed", "stopped"}:
            self._check_objective()

    def __enter__(self) -> Self:
        """Return the recorder."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the run, with the exception if there is one, which goes on."""
        self.finish(error=error)

    def __copy__(self) -> Self:
        """Return the recorder itself: a run has one."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the recorder itself: frameworks copy their callbacks, a run has one recorder."""
        return self

    def __repr__(self) -> str:
        """Return id and status."""
        return f"RunRecorder({self.id!r}, {self.status})"

    def _step(self, step: Any) -> int:
        """Return a whole number for the step, counting on from the last one where none, or none that is usable, was given."""
        number = self._next_step
        if step is not None:
            try:
                number = max(-_MAX_STEP, min(int(step), _MAX_STEP))
            except (TypeError, ValueError, OverflowError) as error:
                self._state.metrics.skip("step", error)
        self._next_step = number + 1
        return number

    def _check_objective(self) -> None:
        objective, logged = self.objective, self._state.metrics.last_values()
        if objective is None or logged.get(objective) is not None or self.has_warned:
            return
        if objective in logged:
            problem = f"{objective!r} was logged only where it is no outcome: for single batches, or before training. "
            advice = "Log it for a whole validation or epoch as well."
        else:
            names = usable_metrics(logged, objective)
            problem = f"{objective!r} never was; " + (
                f"the run logged: {listed(names)}. " if names else "the run logged nothing to judge it by. "
            )
            is_near = bool(names and difflib.get_close_matches(objective, names[:1], cutoff=0.5))
            advice = (
                f"Did you mean {names[0]!r}?"
                if is_near
                else "Pass one of these as objective, or log it."
                if names
                else "Log it, or name a metric that is logged."
            )
        warn_user(f"An objective must be logged for a run to be learned from, but {problem}{advice}", ObjectiveWarning)


def _abandon(state: RunState) -> None:
    """Note that a recorder is gone. Called by the garbage collector in any thread, so it takes no lock."""
    state.is_abandoned = True


def _status_of(error: BaseException | str) -> RunStatus:
    return classify_exception(RuntimeError(error) if isinstance(error, str) else error)


def _checked_status(status: RunStatus | str) -> RunStatus:
    allowed = [item for item in RunStatus if item not in {RunStatus.RUNNING, RunStatus.STALE}]
    if status not in allowed:
        raise InvalidArgumentError(f"A run ends as one of {', '.join(allowed)}, but got {status!r}. Pass one of these, or None.")
    return RunStatus(status)


def _epoch(epoch: Any) -> float | None:
    if epoch is None:
        return None
    try:
        number = float(epoch)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
