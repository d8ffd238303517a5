"""One training run as it is recorded: opened at the start of training, fed by the hooks, closed however it ends."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from lightning_metahp.fresh_metrics import FreshMetrics
from lightning_metahp.guard import report, warn
from lightning_metahp.host import logged_in_this_loop
from lightning_metahp.objective import Objective, no_objective_message, objective_before_training, objective_from_logged
from lightning_metahp.settings import Reading, loaders_in, read_in_force
from lightning_metahp.task_readout import describe_task
from metamodel.describe import model_class_name, model_family, model_variant, parameter_count
from metamodel.precedence import Change
from metamodel.task import TaskDescription
from store.errors import ObjectiveWarning
from store.outcome import is_divergence
from store.records import RunStatus, Source

if TYPE_CHECKING:
    from store import History, RunRecorder


@dataclass(frozen=True)
class Advice:
    """What ``MetaHParams`` did before the start, for the row of the run.

    Attributes:
        recommendation_id: Recommendation to link, None where none was followed.
        changes: What was rewritten.
        tunable: Names of the user's space; they tell no tasks apart.
    """

    recommendation_id: str | None = None
    changes: tuple[Change, ...] = ()
    tunable: tuple[str, ...] = ()


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
        found: The objective, None as long as it is not known.
        advice: What was done before the start.
        reading: What was in force at the start.
        last_loss: Loss of the last step, as the Trainer returned it.
        resumed_from: State of the run that the checkpoint came from, empty for a fresh run.
    """

    recorder: RunRecorder | None
    found: Objective | None
    advice: Advice
    reading: Reading
    last_loss: Any
    _opened: History | None
    _description: TaskDescription
    _metrics: FreshMetrics
    _last_values: dict[str, Any]
    _validated: set[str]
    _is_settled: bool
    _position: tuple[int, int]
    _last_step: int
    _started: float

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
        self.resumed_from: Mapping[str, Any] = {}
        self._forget_run()

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process: an open run and a connection."""
        kept = {name: getattr(self, name) for name in ("objective", "direction", "task", "run_id", "resumed_from")}
        return {**kept, "history": getattr(self.history, "path", self.history)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the settings, without a run."""
        vars(self).update(state)
        self._forget_run()

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Get ready for a fit: find the objective as far as it is known.

        Raises:
            ObjectiveError: If the user's objective has no direction that anybody could know.
        """
        self._forget_run()
        self.found = objective_before_training(trainer, module, self.objective, self.direction)

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the run. A second call does nothing."""
        if self.recorder is not None or not trainer.is_global_zero:
            return
        from store import History, open_history

        self.reading = reading = self._attempt("reading the hyperparameters", read_in_force, trainer, module, otherwise=Reading())
        self._follow(reading)
        self._description = self._attempt(
            "the description of the task",
            describe_task,
            trainer,
            module,
            trainer.train_dataloader,
            task=self.task,
            objective=self.found,
            tunable=self.advice.tunable,
            otherwise=TaskDescription(name=self.task if isinstance(self.task, str) else None, model_class=model_class_name(module)),
        )
        history = open_history(self.history)
        self._opened = None if isinstance(self.history, History) else history
        objective = None if self.found is None else self.found.name
        self.recorder = history.start_run(
            task=self._description,
            hparams=reading.values,
            objective=objective,
            direction=None if self.found is None else self.found.direction,
            sources=reading.sources,
            requested={change.raw_name: change.old for change in self.advice.changes if change.raw_name in reading.values},
            framework="lightning",
            model_class=model_class_name(module),
            model_family=model_family(module),
            n_parameters=parameter_count(module),
            variant=self._attempt("reading the model's source", model_variant, module, otherwise=None),
            description=self._description.to_dict(),
            recommendation_id=self.advice.recommendation_id or self.resumed_from.get("recommendation_id"),
            parent_run_id=self.resumed_from.get("run_id"),
        )
        self.recorder.observe(reading.observed)
        self.run_id = self.recorder.id
        self._started = time.monotonic()
        self._metrics.take(trainer)  # what a former fit of this trainer left behind
        if self.found is not None and self.found.doubt is not None:
            warn(self.found.doubt, ObjectiveWarning)

    def state(self) -> dict[str, Any]:
        """Return what a run that resumes this one must know, as plain text; empty where no run is open."""
        if self.recorder is None:
            return {}
        return {
            "run_id": self.run_id,
            "recommendation_id": self.advice.recommendation_id or self.resumed_from.get("recommendation_id"),
            "rewritten": [change.raw_name for change in self.advice.changes] or list(self.resumed_from.get("rewritten", ())),
        }

    def step(self, trainer: Trainer, outputs: Any, batch_idx: int) -> None:
        """Take note of a training step; log its metrics as often as the Trainer logs."""
        if self.recorder is None:
            return
        self.last_loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self._position = (trainer.current_epoch, batch_idx + 1)
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and step and step % every == 0 and step != self._last_step:
            self._last_step = step
            # A value of one batch is no outcome, even where a training metric is the objective.
            values = self._metrics.take(trainer, wanted=self._objective_name)
            self._write(trainer, values, is_partial=self._objective_name in values)

    def epoch(self, trainer: Trainer) -> None:
        """Log what the last training epoch came to."""
        if self.recorder is None or self._position[1] == 0:
            return
        values = self._metrics.take(trainer, wanted=self._objective_name)
        name = self._objective_name
        if name is not None and name not in self._validated and name in trainer.callback_metrics:
            values[name] = trainer.callback_metrics[name]  # perhaps seen with the last step already, but there it was no outcome
        if not _validates(trainer):
            self._settle_objective(trainer, dict.fromkeys(values))
        self._write(trainer, values, is_partial=False)

    def validation(self, trainer: Trainer) -> None:
        """Log what a validation came to, once."""
        if self.recorder is None or trainer.sanity_checking:
            return
        logged = logged_in_this_loop(trainer)
        values = self._metrics.take(trainer, only=logged, wanted=self._objective_name)
        self._validated |= set(values)
        self._settle_objective(trainer, {name: (logged or {}).get(name) for name in values})
        self._write(trainer, values, is_partial=_is_partial_validation(trainer))

    def finish(self, trainer: Trainer, error: BaseException | None = None) -> None:
        """Close the run and everything we opened for it."""
        recorder, opened = self.recorder, self._opened
        try:
            if recorder is not None:
                if self._objective_name is None and error is None:
                    self._settle_objective(trainer, self._last_values)
                self._reach(trainer)
                recorder.finish(None if error is not None else self._status(trainer), error)
        finally:
            self._forget_run()
            if opened is not None:
                opened.close()

    @property
    def _objective_name(self) -> str | None:
        return None if self.found is None else self.found.name

    def _attempt(self, doing: str, function: Callable[..., Any], *args: Any, otherwise: Any, **kwargs: Any) -> Any:
        """Call a reading of ours; where it fails, the run is recorded without it."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            report(self, doing, error)
            return otherwise

    def _follow(self, reading: Reading) -> None:
        """Mark what was rewritten, and what a resumed run brought with it."""
        for change in self.advice.changes:
            if change.raw_name in reading.sources:
                reading.sources[change.raw_name] = change.source
        if self.resumed_from:
            for name in self.resumed_from.get("rewritten", ()):
                if name in reading.sources:
                    reading.sources[name] = Source.RESUME

    def _write(self, trainer: Trainer, values: Mapping[str, Any], *, is_partial: bool) -> None:
        if self.recorder is None or not values:
            return
        self._last_values.update(values)
        self.recorder.log(values, step=trainer.global_step, epoch=self._epochs(trainer), is_partial=is_partial)

    def _settle_objective(self, trainer: Trainer, logged: Mapping[str, Any]) -> None:
        """Find the objective among what was logged, or say once that there is none."""
        if self.recorder is None or self.found is not None or self._is_settled or not logged:
            return
        self._is_settled = True
        self.found = objective_from_logged(logged, self.direction)
        if self.found is None:
            warn(no_objective_message(logged), ObjectiveWarning)
            return
        self._description = self._description.with_objective(self.found.name, self.found.direction.value)
        self.recorder.update(
            objective=self.found.name,
            direction=self.found.direction,
            task=self._description,
            description=self._description.to_dict(),
        )

    def _epochs(self, trainer: Trainer) -> float:
        """Return the epochs trained so far, fractional inside one where its length is known."""
        epoch, n_batches = self._position
        total = trainer.num_training_batches
        return epoch + (min(n_batches / total, 1.0) if total and math.isfinite(total) else 0.0)

    def _reach(self, trainer: Trainer) -> None:
        if self.recorder is None:
            return
        reached: dict[str, Any] = {"epochs_reached": self._epochs(trainer), "steps_reached": trainer.global_step}
        if not math.isfinite(trainer.num_training_batches):
            reached["epochs_reached"] = float(trainer.current_epoch)
        if trainer.strategy.root_device.type != "cpu":
            reached["gpu_s"] = (time.monotonic() - self._started) * trainer.world_size
        self.recorder.update(**reached)

    def _status(self, trainer: Trainer) -> RunStatus | None:
        """Return how a run ended that no exception ended; None leaves it to the recorder."""
        last = {name: float(value) for name, value in self._last_values.items()}
        if isinstance(self.last_loss, torch.Tensor) and self.last_loss.numel() == 1:
            last["loss of the last step"] = float(self.last_loss)
        stoppers = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
        reasons = {str(getattr(getattr(callback, "stopping_reason", None), "name", "")) for callback in stoppers}
        if is_divergence(last, self._objective_name) or reasons & {"NON_FINITE_METRIC", "DIVERGENCE_THRESHOLD"}:
            return RunStatus.DIVERGED
        is_complete = trainer.max_epochs not in (None, -1) and trainer.current_epoch >= (trainer.max_epochs or 0)
        is_complete |= trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        return RunStatus.STOPPED if trainer.should_stop and not is_complete else None

    def _forget_run(self) -> None:
        self.recorder = None
        self.found = None
        self.advice = Advice()
        self.reading = Reading()
        self.last_loss = None
        self._opened = None
        self._description = TaskDescription()
        self._metrics = FreshMetrics()
        self._last_values = {}
        self._validated = set()
        self._is_settled = False
        self._position = (0, 0)
        self._last_step = -1
        self._started = 0.0


def _validates(trainer: Trainer) -> bool:
    return trainer.limit_val_batches != 0 and any(trainer.num_val_batches or [])


def _is_partial_validation(trainer: Trainer) -> bool:
    """Say whether a limit cut the validation short."""
    limit = trainer.limit_val_batches
    if (isinstance(limit, float) and limit == 1.0) or limit is None:
        return False
    for used, loader in zip(trainer.num_val_batches, loaders_in(trainer.val_dataloaders), strict=False):
        try:
            if used < len(loader):
                return True
        except TypeError:  # a stream: only a limit can have ended it
            return True
    return False
