"""``MetaHPCallback`` for ``transformers.Trainer``: one line logs the run."""

from __future__ import annotations

import functools
import logging
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_callbacks.arguments import Hyperparameters, read_arguments
from hf_callbacks.deciding import is_off
from hf_callbacks.describe_trainer import check_task, describe_task, describe_variant, read_model_config
from hf_callbacks.ending import DivergenceWatch, ExceptionHook, gpu_seconds, last_caught_exception, peak_gpu_memory
from hf_callbacks.in_force import InForce, not_applied, put_in_force, read_back
from hf_callbacks.objective import Objective, find_objective_or_none
from hf_callbacks.provenance import Target, provenance_of
from store.errors import MetaHPWarning, NotAppliedWarning, ObjectiveWarning
from store.names import resolve_direction
from store.records import RunStatus

if TYPE_CHECKING:
    import os

    from metamodel.task import TaskDescription
    from store import History, RunRecorder

logger = logging.getLogger(__name__)

_NOT_METRICS = frozenset({"epoch", "step"})


def _guarded(hook: Callable[..., None]) -> Callable[..., None]:
    """Keep our errors out of the user's training: caught at the callback's edge, warned about once with the cause."""

    @functools.wraps(hook)
    def guarded(self: MetaHPCallback, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        try:
            hook(self, args, state, control, **kwargs)
        except Exception as error:
            self._complain(hook.__name__, error)

    return guarded


class MetaHPCallback(TrainerCallback):
    """Log every ``train()`` of a Trainer into the history.

    Logged are all training arguments with who set them, the model's configuration, the optimizer and schedule really in force,
    every metric, what was trained, the cost and the outcome. A run row per ``train()``; only world process zero writes. Nothing
    here can stop a training: errors of ours are warned about once.

    The Trainer has no event for an exception. One that ends the program is recorded by way of ``sys.excepthook``; one that the
    program catches, by the next ``train()`` with the same callback, else as an interruption; a killed process by its silent
    heartbeat. With ``with MetaHPCallback() as callback: ...`` around ``train()`` every exception is recorded at once.

    Args:
        objective: Metric of the evaluation that a run is judged by, with or without ``eval_``; default:
            ``metric_for_best_model`` with ``greater_is_better``, else the evaluation loss.
        direction: ``min`` or ``max``; default: inferred.
        task: Name of the task, or a ``TaskDescription``; default: recognised by data, model and objective.
        history: A ``History``, a path, or None for the default one.

    Raises:
        ObjectiveError: If ``direction`` is neither ``min`` nor ``max``.
        InvalidArgumentError: If ``task`` is neither a name nor a description.
    """

    def __init__(
        self,
        objective: str | None = None,
        direction: str | None = None,
        *,
        task: str | TaskDescription | None = None,
        history: History | str | os.PathLike[str] | None = None,
    ) -> None:
        if direction is not None:
            resolve_direction(objective or "loss", direction)
        self.objective = objective
        self.direction = direction
        self.task = check_task(task)
        self.history = history
        self._has_own_optimizer = False
        self._has_complained = False
        self._clear()

    @property
    def run_id(self) -> str | None:
        """Id of the run being logged, or of the last one; None before the first."""
        return self._run_id

    def __enter__(self) -> Self:
        """Record an exception of the block as the end of the run; the exception passes."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close a run that an exception, or nothing, has left open."""
        if self._recorder is not None:
            self._close(error=error, status=None if error is not None else RunStatus.INTERRUPTED)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process: an open run, and a connection to the history."""
        state = {**vars(self), "history": getattr(self.history, "path", self.history)}
        return {name: value for name, value in state.items() if name not in _fresh_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the settings, without a run."""
        vars(self).update(state)
        self._clear()

    @_guarded
    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note whether the user passed an optimizer: later the Trainer's own one cannot be told from it."""
        self._has_own_optimizer = kwargs.get("optimizer") is not None

    @_guarded
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Open the run, or continue it where ``auto_find_batch_size`` starts the same training again with a smaller batch."""
        if is_off() or not state.is_world_process_zero:
            return
        found = read_back(
            args,
            state,
            optimizer=kwargs.get("optimizer"),
            scheduler=kwargs.get("lr_scheduler"),
            loader=kwargs.get("train_dataloader"),
            has_own_optimizer=self._has_own_optimizer,
        )
        model = kwargs.get("model")
        hyperparameters = put_in_force(found, args, read_model_config(model, read_arguments(args)))
        if self._recorder is not None and self._is_retry(args, state):
            self._recorder.set_hparams(hyperparameters.values, sources=hyperparameters.sources, requested=hyperparameters.requested)
            self._watch = DivergenceWatch(self._recorder.objective)
        else:
            if self._recorder is not None:
                self._close_abandoned()
            self._open(args, state, model, kwargs.get("train_dataloader"), hyperparameters)
        self._loaded = state.train_batch_size
        if self._recorder is not None:
            self._recorder.observe(found.observed)
        self._check_applied(args, found)

    @_guarded
    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log what the Trainer logs: losses, gradient norm, learning rate, evaluations, and the cost at the end."""
        logs = kwargs.get("logs")
        if self._recorder is not None and logs:
            self._log(logs, state)
            self._logged = (state.global_step, frozenset(logs))

    @_guarded
    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log an evaluation, as far as ``on_log`` has not just done so."""
        metrics = kwargs.get("metrics")
        if self._recorder is None or not metrics:
            return
        step, known = self._logged
        new = {name: value for name, value in metrics.items() if step != state.global_step or name not in known}
        if new:
            self._log(new, state)

    @_guarded
    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the run."""
        if self._recorder is None:
            return
        status = None
        if self._watch.is_diverged(kwargs.get("model")):
            status = RunStatus.DIVERGED
        elif state.global_step < state.max_steps:
            status = RunStatus.STOPPED  # early stopping, or a search that pruned its trial
        self._reach(args, state)
        self._close(status=status)

    def _clear(self) -> None:
        vars(self).update(_fresh_state())

    def _open(
        self, args: TrainingArguments, state: TrainerState, model: nn.Module | None, loader: Any, hyperparameters: Hyperparameters
    ) -> None:
        from store import History, open_history

        target = self._target(args)
        objective = find_objective_or_none(args, target.objective, target.direction)
        description = describe_task(args, model=model, train_dataset=_dataset_of(loader), task=target.task, objective=objective)
        history = open_history(self.history)
        self._opened = None if isinstance(self.history, History) else history
        # A hyperparameter search decides its trials' values; no recommendation of ours is being followed.
        recommended = None if state.is_hyper_param_search else provenance_of(args).recommendation_id
        self._recorder = history.start_run(
            task=description,
            hparams=hyperparameters.values,
            objective=objective.name,
            direction=objective.direction,
            sources=hyperparameters.sources,
            requested=hyperparameters.requested,
            framework="transformers",
            model_class=description.model_class,
            model_family=description.model_family,
            n_parameters=description.n_parameters,
            variant=None if model is None else describe_variant(model),
            description=description.to_dict(),
            recommendation_id=recommended,
        )
        self._run_id = self._recorder.id
        self._started = time.monotonic()
        self._watch = DivergenceWatch(objective.name)
        self._before = last_caught_exception()
        self._hook = ExceptionHook(self, lambda callback, error: callback._close(error=error))
        self._warn_objective(objective)

    def _target(self, args: TrainingArguments) -> Target:
        """Return what this run is for: the callback's own word first, else what ``autoconfig`` was told."""
        told = provenance_of(args).target
        task = self.task if self.task is not None else told.task
        if self.objective is not None:
            return Target(task, self.objective, self.direction)
        return Target(task, told.objective, self.direction or told.direction)

    def _is_retry(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Say whether this beginning belongs to the open run: the host retries with a smaller batch inside one ``train()``."""
        smaller = self._loaded is not None and state.train_batch_size is not None and state.train_batch_size < self._loaded
        return bool(args.auto_find_batch_size and smaller)

    def _log(self, values: dict[str, Any], state: TrainerState) -> None:
        if self._recorder is None:
            return
        self._watch.see(values)
        metrics = {name: value for name, value in values.items() if name not in _NOT_METRICS}
        # eval_on_start looks at a model that was not trained yet: stored, but no outcome of these hyperparameters.
        self._recorder.log(metrics, step=state.global_step, epoch=state.epoch, is_partial=state.global_step == 0)

    def _reach(self, args: TrainingArguments, state: TrainerState) -> None:
        if self._recorder is None:
            return
        reached: dict[str, Any] = {"epochs_reached": state.epoch, "steps_reached": state.global_step}
        gpu_s, memory = gpu_seconds(args, time.monotonic() - self._started), peak_gpu_memory()
        reached |= {} if gpu_s is None else {"gpu_s": gpu_s}
        reached |= {} if memory is None else {"peak_gpu_memory_bytes": memory}
        self._recorder.update(**reached)

    def _close_abandoned(self) -> None:
        """Close a run whose ``train()`` ended without an event: an exception that the program caught."""
        error = last_caught_exception()
        if error is None or error is self._before:
            self._close(status=RunStatus.FAILED, error="train() ended without its end event, and the next one began")
        else:
            self._close(error=error)

    def _close(self, *, status: RunStatus | None = None, error: BaseException | str | None = None) -> None:
        recorder, hook, opened, run_id = self._recorder, self._hook, self._opened, self._run_id
        self._clear()
        self._run_id = run_id
        if hook is not None:
            hook.remove()
        try:
            if recorder is not None:
                recorder.finish(status, error)
        finally:
            if opened is not None:
                opened.close()

    def _check_applied(self, args: TrainingArguments, found: InForce) -> None:
        for sentence in not_applied(args, provenance_of(args), found):
            _warn(sentence, NotAppliedWarning)

    def _warn_objective(self, objective: Objective) -> None:
        if objective.problem is not None:
            _warn(objective.problem, ObjectiveWarning)

    def _complain(self, where: str, error: Exception) -> None:
        logger.debug("metahp failed in %s:", where, exc_info=error)
        if not self._has_complained:
            self._has_complained = True
            _warn(
                f"metahp could not log in {where}: {type(error).__name__}: {error}. Training goes on; this run's record is incomplete.",
                MetaHPWarning,
            )


def _fresh_state() -> dict[str, Any]:
    """What a callback knows between two runs."""
    recorder: RunRecorder | None = None
    opened: History | None = None
    hook: ExceptionHook | None = None
    loaded: int | None = None
    before: BaseException | None = None
    run_id: str | None = None
    return {
        "_recorder": recorder,
        "_opened": opened,
        "_hook": hook,
        "_loaded": loaded,
        "_before": before,
        "_run_id": run_id,
        "_started": 0.0,
        "_watch": DivergenceWatch(),
        "_logged": (-1, frozenset[str]()),
    }


def _dataset_of(loader: Any) -> object:
    """Return the data set behind a loader, unwrapped from the shard Accelerate makes of a stream."""
    dataset = getattr(loader, "dataset", None)
    return getattr(dataset, "dataset", dataset) if type(dataset).__name__ == "IterableDatasetShard" else dataset


def _warn(sentence: str, category: type[Warning]) -> None:
    """Warn; where warnings are errors, log instead: nothing of ours may end a training."""
    try:
        warnings.warn(sentence, category, stacklevel=4)
    except Warning:
        logger.warning("%s", sentence)
