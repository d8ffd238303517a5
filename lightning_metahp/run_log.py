"""One training run as it is recorded: opened at the start of training, fed by the hooks, closed however it ends."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.fresh_metrics import FreshMetrics
from lightning_metahp.guard import report, say
from lightning_metahp.objective import objective_before_training
from lightning_metahp.objective_watch import ObjectiveWatch
from lightning_metahp.run_length import PassCounter
from lightning_metahp.settings import EffectiveHParams, read_in_force
from lightning_metahp.task_readout import describe_task, forget_look
from lightning_metahp.trainer_internals import ends_epoch, is_kind, logged_in_this_loop, names_in_training, overrides
from lightning_metahp.validation import comparable, limit_in_force, validates
from metahp_tuning.class_source import model_variant
from metahp_tuning.precedence import Change
from metahp_tuning.resumption import start_or_continue
from metahp_tuning.task_description import model_class_name, model_family, parameter_count
from metamodel.data.task import TaskDescription
from store.errors import NotAppliedWarning, ObjectiveWarning
from store.hyperparameters import GLOBAL_BATCH_SIZE, REGISTRY, names_in_optimizer_state
from store.metric_hints import ended_without_outcome, usable_metrics
from store.names import canonical_name
from store.statuses import RunStatus, Source
from store.user_warnings import warn_user
from store.values import same_value

if TYPE_CHECKING:
    from metahp_tuning.lazy_history import PendingRecommendation
    from metahp_tuning.resumption import StoredRun
    from store import History, RunRecorder


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AppliedRecommendation:
    """What ``MetaHParams`` did before the start, for the row of the run.

    Attributes:
        recommendation_id: Recommendation to link, None where none was followed.
        changes: What was rewritten.
        tunable: Names of the user's space; they tell no tasks apart.
        pending: The recommendation, where there was no history yet to save it in.
    """

    recommendation_id: str | None = None
    changes: tuple[Change, ...] = ()
    tunable: tuple[str, ...] = ()
    pending: PendingRecommendation | None = None


@dataclass(frozen=True, slots=True)
class _TrainedRun:
    """The run that was just trained, for a validation of the same module that follows."""

    recorder: RunRecorder
    module: weakref.ref[LightningModule]
    watch: ObjectiveWatch
    description: TaskDescription
    has_outcome: bool


class RunLog:
    """Records the fits of one callback, one run after the other.

    Only rank zero writes. Every method may be called at any time: where no run is open it does nothing.

    Args:
        objective: The user's choice, None to look for one.
        direction: ``min`` or ``max``, None to find it.
        task: The user's task, None to recognise it.
        history: A history, its path, or None for the default one.

    Attributes:
        recorder: The open run, None outside training.
        watch: The objective, and whether it is logged.
        advice: What was done before the start.
        reading: What was in force at the start.
        last_loss: Loss of the last step, as the Trainer returned it.
        resumed_from: The run that the checkpoint came from, None for a fresh run.
    """

    recorder: RunRecorder | None
    watch: ObjectiveWatch
    advice: AppliedRecommendation
    reading: EffectiveHParams
    last_loss: Any
    _opened: History | None
    _description: TaskDescription
    _metrics: FreshMetrics
    _last_values: dict[str, Any]
    _validated: set[str]
    _has_validated: bool
    _has_outcome: bool
    _length: PassCounter
    _position: tuple[int, int]
    _last_step: int
    _started: float
    _world_size: int

    def __init__(
        self,
        objective: str | None,
        direction: str | None,
        task: str | TaskDescription | None,
        history: History | str | os.PathLike[str] | None,
    ) -> None:
        self.objective = objective
        self.direction = direction
        self.task = task
        self.history = history
        self.run_id: str | None = None
        self.resumed_from: StoredRun | None = None
        self._trained: _TrainedRun | None = None
        self._forget_run()

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process: an open run and a connection."""
        kept = {name: getattr(self, name) for name in ("objective", "direction", "task", "run_id", "resumed_from")}
        return {**kept, "history": getattr(self.history, "path", self.history)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the settings, without a run."""
        vars(self).update(state, _trained=None)
        self._forget_run()

    def prepare(self, trainer: Trainer) -> None:
        """Get ready for a fit: find the objective as far as it is known."""
        self._forget_run()
        self._trained = None
        self.watch = ObjectiveWatch(objective_before_training(trainer, self.objective, self.direction), self.direction)

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the run. A second call does nothing."""
        if self.recorder is not None or not trainer.is_global_zero:
            return
        from store import History, open_history

        loaded = {} if self.resumed_from is None else self.resumed_from.hparams
        reading = self._attempt("reading the hyperparameters", read_in_force, trainer, module, loaded, otherwise=EffectiveHParams())
        self.reading = reading
        self._follow(reading)
        self._description = self._attempt(
            "the description of the task",
            describe_task,
            trainer,
            module,
            trainer.train_dataloader,
            task=self.task,
            objective=self.watch.found,
            tunable=self.advice.tunable,
            is_second_look=True,
            otherwise=TaskDescription(name=self.task if isinstance(self.task, str) else None, model_class=model_class_name(module)),
        )
        self._measure(trainer)
        history = open_history(self.history, for_recording=True)
        self._opened = None if isinstance(self.history, History) else history
        if self.advice.pending is not None:
            self._attempt("saving the recommendation", self.advice.pending.save, history, otherwise=None)
        self.recorder = self._open(history, module, reading)
        self.recorder.observe(reading.observed)
        self.run_id = self.recorder.id
        self._world_size = trainer.world_size
        self._started = time.monotonic()
        self._metrics.take(trainer)  # what a former fit of this trainer left behind
        self._length.start(trainer)
        if self.watch.found is not None and self.watch.found.doubt is not None:
            warn_user(self.watch.found.doubt, ObjectiveWarning)

    def _open(self, history: History, module: LightningModule, reading: EffectiveHParams) -> RunRecorder:
        """Start the row, or go on with that of the run which was interrupted."""
        raw_names = {canonical_name(raw): raw for raw in reversed(reading.values)}
        asked = {raw_names.get(change.name, change.raw_name): change.old for change in self.advice.changes}
        fields: dict[str, Any] = {
            "task": self._description,
            "hparams": reading.values,
            "objective": self.watch.name,
            "direction": None if self.watch.found is None else self.watch.found.direction,
            "sources": reading.sources,
            "requested": {raw: old for raw, old in {**reading.requested, **asked}.items() if raw in reading.values},
            "framework": "lightning",
            "model_class": model_class_name(module),
            "model_family": model_family(module),
            "n_parameters": parameter_count(module),
            "variant": self._attempt("reading the model's source", model_variant, module, otherwise=None),
            "description": self._description.to_dict(),
            "recommendation_id": self._followed_id,
        }
        return start_or_continue(history, self.resumed_from, **fields)

    @property
    def _followed_id(self) -> str | None:
        earlier = self.resumed_from
        return self.advice.recommendation_id or (None if earlier is None else earlier.recommendation_id)

    def verify(self, trainer: Trainer, module: LightningModule) -> None:
        """Compare what is in force with what was written, and warn where they differ."""
        if self.recorder is None or not self.advice.changes:
            return
        from lightning_metahp.observed_values import read_back  # runs in which nothing was rewritten do without

        raw_names = {canonical_name(raw): raw for raw in reversed(self.reading.values)}
        for item in read_back(self.advice.changes, trainer, module):
            raw = raw_names.get(item.change.name, item.change.raw_name)
            if item.observed is not None:
                self.recorder.observe({raw: item.observed})
                if not item.is_applied:
                    self.recorder.set_hparams({raw: item.observed}, sources={raw: "user"})
            if not item.is_applied:
                warn_user(item.describe(), NotAppliedWarning)

    def state(self) -> dict[str, Any]:
        """Return what a run that resumes this one must know, as plain text; empty where no run is open."""
        if self.recorder is None:
            return {}
        changes, rewrites = self.advice.changes, {} if self.resumed_from is None else self.resumed_from.rewrites
        return {
            "run_id": self.run_id,
            "global_batch_size": self.reading.values.get(GLOBAL_BATCH_SIZE),
            "world_size": self._world_size,
            "recommendation_id": self._followed_id,
            # What was first asked for stays what it was, however often a run is resumed.
            "values": {**{raw: item.applied for raw, item in rewrites.items()}, **{item.raw_name: item.new for item in changes}},
            "requested": {**{item.raw_name: item.old for item in changes}, **{raw: item.requested for raw, item in rewrites.items()}},
        }

    def step(self, trainer: Trainer, outputs: Any, batch_idx: int) -> None:
        """Take note of a training step; log its metrics as often as the Trainer logs."""
        recorder = self.recorder
        if recorder is None:
            return
        is_mapping = type(outputs) is dict or isinstance(outputs, Mapping)  # the first is what the Trainer gives, and costs nothing
        self.last_loss = outputs.get("loss") if is_mapping else outputs
        self._position = (trainer.current_epoch, batch_idx + 1)
        self._length.n_batches += 1
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and step and step % every == 0 and step != self._last_step:
            self._last_step = step
            values = self._metrics.take_step(trainer, self.watch.name)
            self._last_values.update(values)
            # A value of one batch is no outcome, even where a training metric is the objective.
            recorder.log_given(values, step, self._length.passes, is_partial=True)

    def epoch(self, trainer: Trainer) -> None:
        """Log what the last training epoch came to."""
        if self.recorder is None or self._position[1] == 0:
            return
        self._length.end_epoch(trainer, self._position[1])
        values = self._metrics.take(trainer)
        # What a step has logged was seen with it, but there it was no outcome.
        of_training = {name: value for name, value in trainer.callback_metrics.items() if name not in self._validated}
        if self.watch.found is None:
            values = {**of_training, **values}
            if not validates(trainer) or (self._has_validated and not usable_metrics(self._validated)):
                self._settle(trainer, dict.fromkeys(of_training))
        if self.watch.name in self._validated:
            values.pop(str(self.watch.name), None)  # training and validation log one name: the validation's value stands
        else:
            self._has_outcome |= self.watch.put_value(values, of_training)
        self._write(trainer, values)
        if not self._has_outcome and (self._has_validated or not validates(trainer)):
            when = f"by the first {'validation' if self._has_validated else 'epoch'}"
            self._warn_once({**trainer.logged_metrics, **trainer.callback_metrics}, when)

    def validation(self, trainer: Trainer) -> None:
        """Log what a validation came to, once."""
        if self.recorder is None or trainer.sanity_checking:
            self._validate_trained(trainer)
            return
        logged = logged_in_this_loop(trainer)
        values = self._metrics.take(trainer, only=logged)
        self._has_validated = True
        self._validated |= set(values if logged is None else logged)
        self._settle(trainer, {name: (logged or {}).get(name) for name in values})
        self._has_outcome |= self.watch.put_value(values, values)
        self._write(trainer, values)
        is_late = ends_epoch(trainer) and overrides(trainer.lightning_module, "on_train_epoch_end")  # which may log it
        if not self._has_outcome and not is_late:
            known = {**dict.fromkeys(names_in_training(trainer)), **trainer.logged_metrics, **trainer.callback_metrics}
            if not self.watch.is_among(known) and (self.watch.found is not None or usable_metrics(self._validated)):
                self._warn_once(known if self.watch.found is not None else values, "by the first validation")

    def finish(self, trainer: Trainer, error: BaseException | None = None) -> None:
        """Close the run and everything we opened for it."""
        recorder, opened = self.recorder, self._opened
        try:
            if recorder is not None:
                if self.watch.has_warned and not self._has_outcome and error is None:
                    say(ended_without_outcome(self.watch.name, "trainer.validate()"))
                if self.watch.found is None and error is None and not usable_metrics(self._validated):
                    self._settle(trainer, dict.fromkeys(self._last_values))
                    if self.watch.found is None and self._position[1]:
                        self._warn_once(self._last_values, "")
                self._reach(trainer)
                recorder.finish(None if error is not None else self._status(trainer), error)
                if error is None:
                    module = weakref.ref(trainer.lightning_module)
                    self._trained = _TrainedRun(recorder, module, self.watch, self._description, self._has_outcome)
        finally:
            forget_look(trainer)
            self._forget_run()
            if opened is not None:
                opened.close()

    def _attempt(self, doing: str, function: Callable[..., Any], *args: Any, otherwise: Any, **kwargs: Any) -> Any:
        """Call a reading of ours; where it fails, the run is recorded without it."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            report(self, doing, error)
            return otherwise

    def _follow(self, reading: EffectiveHParams) -> None:
        """Mark what was rewritten, and what a resumed run brought with it."""
        sources = {change.name: change.source for change in self.advice.changes}
        for change in self.advice.changes:
            if not reading.has(change.name):  # e.g. an argument of a model that keeps no hparams
                reading.add(change.raw_name, change.new, change.source)
        if self.resumed_from is not None:
            sources = dict.fromkeys([*map(canonical_name, self.resumed_from.rewrites), *sources], Source.RESUME)
        for row in REGISTRY:
            for derived in row.readings if row.name in sources else ():
                sources.setdefault(derived, sources[row.name])
        for raw in reading.values:
            reading.sources[raw] = sources.get(canonical_name(raw), reading.sources[raw])
            observed = reading.observed.get(canonical_name(raw))
            is_state = canonical_name(raw) in names_in_optimizer_state()
            is_loaded = self.resumed_from is not None and is_state and isinstance(reading.values[raw], int | float)
            if is_loaded and observed is not None and not same_value(observed, reading.values[raw]):
                # The optimizer's state came with the checkpoint, and trains on whatever the script says.
                reading.requested[raw], reading.values[raw], reading.sources[raw] = reading.values[raw], observed, Source.RESUME

    def _write(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        if self.recorder is None or not values:
            return
        self._last_values.update(values)
        self.recorder.log(values, step=trainer.global_step, epoch=self._length.passes)

    def _settle(self, trainer: Trainer, logged: Mapping[str, Any]) -> None:
        """Find the objective among what was logged, if it is not known yet, and make it that of the run."""
        if self.recorder is None or not self.watch.settle(logged) or self.watch.found is None:
            return
        self._description = self._description.with_objective(self.watch.found.name, self.watch.found.direction.value)
        self._measure(trainer)
        description = self._description.to_dict()
        found = {"objective": self.watch.found.name, "direction": self.watch.found.direction}
        self.recorder.update(**found, task=self._description, description=description)

    def _measure(self, trainer: Trainer) -> None:
        """Note in the description how the objective is measured."""
        limit = self._attempt("reading the limit of the validation", limit_in_force, trainer, otherwise=None)
        self._description = comparable(self._description, limit, self.watch.found)

    def _warn_once(self, logged: Mapping[str, Any], when: str) -> None:
        self.watch.warn_once(logged, when)
        if self.recorder is not None:
            self.recorder.has_warned = True

    def _validate_trained(self, trainer: Trainer) -> None:
        """Make ``trainer.validate`` after the fit the outcome of a run whose training had none."""
        trained = self._trained
        is_validation = getattr(trainer.state.fn, "value", None) == "validate"
        if trained is None or trained.has_outcome or not is_validation or trained.module() is not trainer.lightning_module:
            return
        logged = logged_in_this_loop(trainer)
        values = FreshMetrics().take(trainer, only=logged)
        trained.watch.settle({name: (logged or {}).get(name) for name in values})
        found = trained.watch.found
        if not trained.watch.put_value(values, values) or found is None:
            return
        limit = self._attempt("reading the limit of the validation", limit_in_force, trainer, otherwise=None)
        description = comparable(trained.description.with_objective(found.name, found.direction.value), limit, found)
        known = {"objective": found.name, "direction": found.direction}
        trained.recorder.update(**known, task=description, description=description.to_dict())
        trained.recorder.log_after_end(values, trainer.global_step, is_partial=False)
        self._trained = replace(trained, has_outcome=True)

    def _reach(self, trainer: Trainer) -> None:
        if self.recorder is None:
            return
        reached: dict[str, Any] = {"epochs_reached": self._length.passes, "steps_reached": trainer.global_step}
        if trainer.strategy.root_device.type != "cpu":
            reached["gpu_s"] = (time.monotonic() - self._started) * trainer.world_size
        self.recorder.update(**reached)

    def _status(self, trainer: Trainer) -> RunStatus | None:
        """Return how a run ended that no exception ended; None leaves it to the recorder."""
        last = {name: float(value) for name, value in self._last_values.items()}
        if isinstance(self.last_loss, torch.Tensor) and self.last_loss.numel() == 1:
            last["loss of the last step"] = float(self.last_loss)
        stoppers = [callback for callback in trainer.callbacks if is_kind(callback, "EarlyStopping")]  # type: ignore[attr-defined]
        reasons = {str(getattr(getattr(callback, "stopping_reason", None), "name", "")) for callback in stoppers}
        from store.outcome import is_divergence  # nothing that only the end of a run needs makes its start longer

        if is_divergence(last, self.watch.name) or reasons & {"NON_FINITE_METRIC", "DIVERGENCE_THRESHOLD"}:
            return RunStatus.DIVERGED
        is_complete = trainer.max_epochs not in (None, -1) and trainer.current_epoch >= (trainer.max_epochs or 0)
        is_complete |= trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        return RunStatus.STOPPED if trainer.should_stop and not is_complete else None

    def _forget_run(self) -> None:
        self.recorder = None
        self.watch = ObjectiveWatch()
        self.advice = AppliedRecommendation()
        self.reading = EffectiveHParams()
        self.last_loss = None
        self._opened = None
        self._description = TaskDescription()
        self._metrics = FreshMetrics()
        self._last_values = {}
        self._validated = set()
        self._has_validated = False
        self._has_outcome = False
        self._length = PassCounter()
        self._position = (0, 0)
        self._last_step = -1
        self._started = 0.0
        self._world_size = 1
