"""``MetaHPCallback`` for ``transformers.Trainer``: one line logs the run."""

from __future__ import annotations

import functools
import logging
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from hf_callbacks.arguments import RecordedHParams, read_arguments
from hf_callbacks.checkpoint_note import note_of_run, stored_run_at, stored_run_of
from hf_callbacks.divergence_watch import DivergenceWatch
from hf_callbacks.evaluation_watch import AfterTraining, EvaluationWatch, names_of_sets
from hf_callbacks.in_force import InForce, not_applied, optimizer_maker, put_in_force, read_back
from hf_callbacks.loss_settings import LOSS, loss_of
from hf_callbacks.objective import as_evaluated, check_objective, find_objective_or_none, of_first_set
from hf_callbacks.provenance import Provenance, Target, provenance_of, write_provenance
from hf_callbacks.run_length import counts_passes, trained_passes
from hf_callbacks.setfit_arguments import named_as_setfit, pass_note_on, recorded_of_setfit
from hf_callbacks.setfit_watch import setfit_objective, watch_setfit
from hf_callbacks.train_watch import TrainWatcher, calling_trainer, watch
from hf_callbacks.trainer_description import describe_task, read_model_config
from hf_callbacks.trainer_host import TrainerHost
from hf_callbacks.trainer_inputs import note_inputs, note_prepared, task_inputs
from hf_callbacks.typed_arguments import note_typed_arguments
from metahp_tuning.host import check_request, check_task
from metahp_tuning.lazy_history import PendingRecommendation
from metahp_tuning.model_description import describe_model, describe_variant
from metahp_tuning.resumption import StoredRun, start_or_continue
from store.errors import MetaHPWarning, NotAppliedWarning, ObjectiveWarning
from store.metric_hints import ended_without_outcome
from store.recording.exception_hook import ExceptionHook, last_caught_exception
from store.statuses import RunStatus, Source
from store.switches import is_off
from store.user_warnings import warn_user

if TYPE_CHECKING:
    import os

    from metamodel.data.task import TaskDescription
    from store import History, RunRecorder

logger = logging.getLogger(__name__)

note_inputs()
note_typed_arguments()


def _guarded(hook: Callable[..., None]) -> Callable[..., None]:
    """Keep our errors out of the user's training: caught at the callback's edge, warned about once with the cause."""

    @functools.wraps(hook)
    def guarded(self: MetaHPCallback, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        try:
            if "st_args" in kwargs:  # SetFit shows its own arguments and model, and those of its first phase beside
                args, kwargs = kwargs["st_args"], {**kwargs, "model": kwargs.get("st_model"), "setfit_args": args}
            hook(self, args, state, control, **kwargs)
        except Exception as error:
            self._complain(hook.__name__, error)

    return guarded


class MetaHPCallback(TrainWatcher, TrainerCallback, ExportableState):
    """Log every ``train()`` of a Trainer into the history.

    Logged are all training arguments with who set them, the model's configuration, the optimizer and schedule really in force,
    every metric, what was trained, the cost and the outcome. A run row per ``train()``; only world process zero writes. Nothing
    here can stop a training: errors of ours are warned about once.

    The Trainer has no event for an exception, so the callback watches ``train()`` itself: whatever leaves it ends the run with its
    cause, also where the program catches it, and one before the loop begins is a run as well. In the first ``train()`` of a Trainer
    that got the callback by ``add_callback`` only steps, batches and evaluations are watched: an exception from elsewhere is recorded by
    ``sys.excepthook`` where it ends the program, and one that the program catches by the next ``train()`` or a
    ``with MetaHPCallback() as callback:`` around it. A killed process is recognised by its missing heartbeat.

    What ``evaluate()`` and ``predict()`` find after training is added to the run; it is its outcome only where training had none. Of
    several evaluation sets the first one's metric is the objective.

    Args:
        objective: Metric of the evaluation that a run is judged by, with or without ``eval_``; default:
            ``metric_for_best_model`` with ``greater_is_better``, else the evaluation loss.
        direction: ``min`` or ``max``; default: inferred.
        task: Name of the task, or a ``TaskDescription``; default: recognised by data, model and objective.
        history: A ``History``, a path, or None for the default one.

    Raises:
        ObjectiveError: If ``direction`` is neither ``min`` nor ``max``, or missing for an objective whose name does not imply it.
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
        note_inputs()  # nothing was noted while METAHP=off
        check_objective(objective, direction)
        self.objective = objective
        self.direction = direction
        self.task = check_task(task)
        self.history = history
        self.resumed_from: dict[str, Any] = {}
        self._has_own_optimizer = False
        self._has_complained = False
        self._has_phases = False
        self._after: AfterTraining | None = None
        self._beginning: tuple[Any] | None = None
        self._clear()

    @property
    def run_id(self) -> str | None:
        """Id of the run being logged, or of the last one; None before the first."""
        return self._run_id

    @property
    def recorder(self) -> RunRecorder | None:
        """The open run, for what a program wants to add to it; None outside training, and on other processes than the first."""
        return self._recorder

    def __enter__(self) -> Self:
        """Record an exception of the block as the end of the run; the exception passes."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close a run that an exception, or nothing, has left open."""
        if self._recorder is not None:
            self._close(error=error, status=None if error is not None else RunStatus.INTERRUPTED)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process: an open run, and a connection to the history."""
        state = {**vars(self), "history": getattr(self.history, "path", self.history), "_after": None}
        return {name: value for name, value in state.items() if name not in _fresh_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the settings, without a run."""
        vars(self).update(state)
        self._clear()

    def state(self) -> dict[str, Any]:
        """Return what a Trainer keeps of this callback in its checkpoints: settings, and which run the checkpoint belongs to."""
        history = getattr(self.history, "path", self.history)
        task = {"task": self.task} if isinstance(self.task, str) else {}
        arguments = {"objective": self.objective, "direction": self.direction, "history": None if history is None else str(history)}
        return {"args": {**arguments, **task}, "attributes": {"resumed_from": dict(self.resumed_from)}}

    def before_train(self, trainer: Trainer, resume_from_checkpoint: Any, trial: Any) -> None:
        """Give a training that resumes the values of its run back, before the Trainer makes loader, optimizer and schedule."""
        if is_off():
            return
        try:
            if self._recorder is not None:
                self._close_abandoned()
            if trial is None:  # a search writes a trial's values only later, so until its loop begins nobody knows them
                self._beginning = (resume_from_checkpoint,)
                if resume_from_checkpoint:
                    TrainerHost(trainer, check_request()).resume(resume_from_checkpoint)
        except Exception as error:
            self._complain("before train()", error)

    def train_failed(self, trainer: Trainer, error: BaseException) -> None:
        """Close the run with the exception that leaves ``train()``; one that comes before the loop gets a run of its own."""
        beginning, self._beginning = self._beginning, None
        try:
            if self._recorder is not None:
                self._record_length(trainer.args, trainer.state)
            elif beginning is not None and trainer.is_world_process_zero():
                self._open_unbegun(trainer, *beginning)
            if self._recorder is not None:
                self._close(error=error)
        except Exception as problem:  # the user's own exception matters more than ours
            logger.debug("The run's end could not be recorded: %s", problem)

    @_guarded
    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note whether the user passed an optimizer: later the Trainer's own one cannot be distinguished from it. Watch the Trainer."""
        self._has_own_optimizer = kwargs.get("optimizer") is not None
        trainer = None if is_off() else _watch_caller()
        if trainer is not None:
            note_prepared(trainer)
            watch_setfit()

    @_guarded
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Open the run, or continue it where ``auto_find_batch_size`` starts the same training again with a smaller batch."""
        self._beginning = None
        states = state.stateful_callbacks
        stored = stored_run_of(states) if state.global_step > 0 and isinstance(states, dict) else None
        if isinstance(states, dict):
            # A checkpoint written without us has no entry; the Trainer would fail on that when it saves the next one.
            states.setdefault(type(self).__name__, self.state())
        if is_off():
            return
        # auto_find_batch_size begins anew after exceptions, so that there only what leaves train() is an end.
        trainer = _watch_caller(is_training=not args.auto_find_batch_size)
        setfit_args = kwargs.get("setfit_args")
        if setfit_args is not None:
            watch_setfit()
            pass_note_on(setfit_args, args)
        model = kwargs.get("model")
        found = read_back(
            args,
            state,
            optimizer=kwargs.get("optimizer"),
            scheduler=kwargs.get("lr_scheduler"),
            loader=kwargs.get("train_dataloader"),
            optimizer_maker=optimizer_maker(trainer, self._has_own_optimizer),
            model=model,
        )
        hyperparameters = put_in_force(found, args, read_model_config(model, read_arguments(args)), state)
        loss = None if trainer is None or setfit_args is not None else loss_of(trainer)
        if loss is not None:
            hyperparameters.put(LOSS, loss, Source.USER)
        observed = found.observed
        if setfit_args is not None:
            hyperparameters, observed = recorded_of_setfit(setfit_args, hyperparameters), named_as_setfit(observed)
        self.resumed_from = note_of_run(args, self._run_id)
        if not state.is_world_process_zero:
            return
        self._after = None
        if self._recorder is not None and self._is_retry(args, state):
            self._recorder.set_hparams(hyperparameters.values, sources=hyperparameters.sources, requested=hyperparameters.requested)
            self._watch = DivergenceWatch(self._recorder.objective)
        else:
            if self._recorder is not None:
                self._close_abandoned()
            self._open(args, state, model, trainer, hyperparameters, stored, loader=kwargs.get("train_dataloader"))
            if self._evaluations.objective.problem is not None:
                warn_user(self._evaluations.objective.problem, ObjectiveWarning)
        self._passes = functools.partial(trained_passes, is_counted=counts_passes(kwargs.get("train_dataloader")))
        self._loaded = state.train_batch_size
        if self._recorder is not None:
            self._recorder.observe(observed)
            self.resumed_from = note_of_run(args, self._recorder.id)
        for sentence in not_applied(args, provenance_of(args), found):
            warn_user(sentence, NotAppliedWarning)

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
        metrics, (step, known) = kwargs.get("metrics") or {}, self._logged
        if self._recorder is None:
            self._log_after_end(state, metrics)
            return
        new = {name: value for name, value in metrics.items() if step != state.global_step or name not in known}
        if new:
            self._log(new, state)
        if not self._evaluations.objective.is_late:
            self._evaluations.warn_once(metrics)
        self._recorder.has_warned |= self._evaluations.has_warned

    @_guarded
    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **kwargs: Any
    ) -> None:
        """Log what a prediction after training found."""
        self._log_after_end(state, metrics)

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
        self._record_length(args, state)
        if self._has_phases:
            self._ended_as = status
        else:
            self._end(state, status)

    def phases_begin(self) -> None:
        """Keep the run of the first phase open until the last one is over."""
        self._has_phases = True

    def phases_end(self, trainer: Trainer, error: BaseException | None) -> None:
        """Close the run with what became of its phases."""
        self._has_phases = False
        try:
            if self._recorder is not None and error is None:
                self._end(trainer.state, self._ended_as)
            elif self._recorder is not None:
                self._close(error=error)
        except Exception as problem:
            self._complain("the end of the training", problem)

    def evaluated(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Add what was evaluated outside of the Trainer to the run that it has trained."""
        try:
            self._log_after_end(trainer.state, metrics)
        except Exception as problem:
            self._complain("an evaluation", problem)

    def _end(self, state: TrainerState, status: RunStatus | None) -> None:
        recorder, evaluations, has_outcome = self._recorder, self._evaluations, self._has_outcome
        self._close(status=status)
        if recorder is not None:
            if evaluations.has_warned and not has_outcome:
                print(ended_without_outcome(evaluations.objective.name, "trainer.evaluate()"), file=sys.stderr, flush=True)
            self._after = AfterTraining(recorder, weakref.ref(state), evaluations, has_outcome)

    def _clear(self) -> None:
        vars(self).update(_fresh_state())

    def _open(
        self,
        args: TrainingArguments,
        state: TrainerState,
        model: nn.Module | None,
        trainer: Trainer | None,
        hyperparameters: RecordedHParams,
        stored: StoredRun | None,
        *,
        loader: object = None,
        may_continue: bool = True,
    ) -> None:
        from store import History, open_history

        target = self._target(args)
        objective = setfit_objective(target) or find_objective_or_none(args, target.objective, target.direction)
        objective = objective if target.objective else as_evaluated(objective, trainer)
        sets = names_of_sets(getattr(trainer, "eval_dataset", None))
        objective = of_first_set(objective, sets)
        given, train_dataset, eval_dataset = task_inputs(trainer, args, loader)
        description = describe_task(
            given,
            model=model,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            task=target.task,
            objective=objective,
            trainer=trainer,
        )
        history = open_history(self.history, for_recording=True)
        self._opened = None if isinstance(self.history, History) else history
        # A hyperparameter search decides its trials' values; no recommendation of ours is being followed.
        provenance = Provenance() if state.is_hyper_param_search else provenance_of(args)
        self._save_pending(history, args, provenance)
        self._recorder = start_or_continue(
            history,
            None if state.is_hyper_param_search else stored,
            may_continue=may_continue,
            task=description,
            hparams=hyperparameters.values,
            objective=None if objective.is_late else objective.name,
            direction=None if objective.is_late else objective.direction,
            sources=hyperparameters.sources,
            requested=hyperparameters.requested,
            framework="transformers",
            model_class=description.model_class,
            model_family=description.model_family,
            n_parameters=description.n_parameters,
            variant=None if model is None else describe_variant(model),
            description={**description.to_dict(), **describe_model(model)},
            recommendation_id=provenance.recommendation_id,
        )
        self._run_id = self._recorder.id
        self._evaluations = EvaluationWatch(objective, sets)
        self._has_outcome = False
        self._started = time.monotonic()
        self._watch = DivergenceWatch(objective.name)
        self._before = last_caught_exception()
        self._hook = ExceptionHook(self, lambda callback, error: callback._close(error=error))

    def _save_pending(self, history: History, args: TrainingArguments, provenance: Provenance) -> None:
        """Save what was recommended before there was a history."""
        for pending in provenance.pending:
            try:
                PendingRecommendation.from_dict(pending).save(history)
            except Exception as error:  # the run matters more
                self._complain("saving the recommendation", error)
        if provenance.pending:  # saved once: a second train() has nothing to add
            write_provenance(args, replace(provenance, pending=()))

    def _open_unbegun(self, trainer: Trainer, resume_from_checkpoint: Any) -> None:
        """Open the run of a training that fails before its loop: nothing is in force yet, so the row holds what was asked for.

        A run that was to be resumed stays as it was, and is named as the parent.
        """
        args, model, state = trainer.args, trainer.model, TrainerState()
        hyperparameters = put_in_force(InForce(), args, read_model_config(model, read_arguments(args)), state)
        stored = stored_run_at(resume_from_checkpoint, args.output_dir)
        self._open(args, state, model, trainer, hyperparameters, stored, may_continue=False)

    def _target(self, args: TrainingArguments) -> Target:
        """Return what this run is for: by the callback's own arguments first, else by those of ``autoconfig``."""
        asked = provenance_of(args).target
        task = self.task if self.task is not None else asked.task
        if self.objective is not None:
            return Target(task, self.objective, self.direction)
        return Target(task, asked.objective, self.direction or asked.direction)

    def _is_retry(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Say whether this beginning belongs to the open run: the host retries with a smaller batch inside one ``train()``."""
        smaller = self._loaded is not None and state.train_batch_size is not None and state.train_batch_size < self._loaded
        return bool(args.auto_find_batch_size and smaller)

    def _log(self, values: dict[str, Any], state: TrainerState) -> None:
        if self._recorder is None:
            return
        self._watch.see(values)
        metrics = self._evaluations.with_objective(values)
        # eval_on_start looks at a model that was not trained yet: stored, but no outcome of these hyperparameters.
        is_outcome = state.global_step > 0
        self._has_outcome |= is_outcome and self._recorder.objective in metrics
        self._recorder.log(metrics, step=state.global_step, epoch=self._passes(state), is_partial=not is_outcome)

    def _log_after_end(self, state: TrainerState, metrics: Mapping[str, Any] | None) -> None:
        """Add what was found after training to the run, if this is the Trainer that trained it."""
        if self._after is not None and metrics:
            self._after.log(state, metrics)

    def _record_length(self, args: TrainingArguments, state: TrainerState) -> None:
        if self._recorder is None:
            return
        self._recorder.update(epochs_reached=self._passes(state), steps_reached=state.global_step)
        if args.device.type == "cuda":
            n_gpus = max(1, args.n_gpu) * max(1, args.world_size)
            self._recorder.update(gpu_s=(time.monotonic() - self._started) * n_gpus)

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

    def _complain(self, where: str, error: Exception) -> None:
        logger.debug("metahp failed in %s:", where, exc_info=error)
        if not self._has_complained:
            self._has_complained = True
            warn_user(
                f"metahp could not log in {where}: {type(error).__name__}: {str(error).rstrip('.')}. "
                "Training goes on; this run's record is incomplete.",
                MetaHPWarning,
            )


def _watch_caller(*, is_training: bool = False) -> Trainer | None:
    """Watch the Trainer whose event is being handled, and return it."""
    trainer = calling_trainer()
    if trainer is not None:
        watch(trainer, is_training=is_training)
    return trainer


def _fresh_state() -> dict[str, Any]:
    """What a callback knows between two runs."""
    nothing = dict.fromkeys(("_recorder", "_opened", "_hook", "_loaded", "_before", "_run_id", "_beginning", "_ended_as"))
    watch, logged = DivergenceWatch(), (-1, frozenset[str]())
    nothing |= {"_evaluations": EvaluationWatch(), "_passes": functools.partial(trained_passes, is_counted=True)}
    return {**nothing, "_has_outcome": False, "_started": 0.0, "_watch": watch, "_logged": logged}
