"""``MetaHPCallback``: one line logs every run. Each hook hands on to the run log, and none lets an error of ours out."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metahp.fixed_settings import mark_built
from lightning_metahp.guard import guarded, report
from lightning_metahp.objective import check_objective
from lightning_metahp.run_log import RunLog
from lightning_metahp.trainer_internals import call_all_hooks, is_finder_checkpoint, skip_idle_hooks, why_no_run
from metahp_tuning.host import check_task
from store.switches import is_off

if TYPE_CHECKING:
    from metamodel.data.task import TaskDescription
    from store import History


def _callback_of_other_name() -> Any:
    """Return ``pytorch_lightning.Callback``; releases before 2.6 take no callback with a state that is not one.

    There it is imported where it is installed, since users may well import it after us. Newer releases do not ask.
    """
    is_old = tuple(int(part) for part in lightning.__version__.split(".")[:2]) < (2, 6)
    if is_old and find_spec("pytorch_lightning") is not None:
        import_module("pytorch_lightning")
    return getattr(sys.modules.get("pytorch_lightning"), "Callback", object)


_OtherCallback: Any = _callback_of_other_name()


class RecordingCallback(Callback, _OtherCallback):  # type: ignore[misc]
    """Records a fit: the row is made when training starts, so that sanity checks, probes and mere validation leave none.

    Args:
        objective: The user's choice, None to look for one.
        direction: ``min`` or ``max``, None to find it.
        task: The user's task, None to recognise it.
        history: A history, its path, or None for the default one.

    Raises:
        ObjectiveError: If ``direction`` is no direction, or is left out for an objective whose name does not say it.
        InvalidArgumentError: If ``task`` is neither a name nor a description.
    """

    def __init__(
        self,
        objective: str | None,
        direction: str | None,
        task: str | TaskDescription | None,
        history: History | str | os.PathLike[str] | None,
    ) -> None:
        super().__init__()
        self.run_log = RunLog(objective, check_objective(objective, direction), check_task(task), history)
        self._records = True
        self._is_active = False
        self._state: dict[str, Any] = {}

    @property
    def run_id(self) -> str | None:
        """Id of the run being recorded, or of the last one; None before the first."""
        return self.run_log.run_id

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Get ready for a fit."""
        if stage != "fit":
            mark_built(pl_module)
            return
        self._state = {}
        self._is_active = not is_off() and why_no_run(trainer) is None
        if not self._is_active:
            mark_built(pl_module)
            return
        if not self._records:
            return
        self.run_log.resumed_from = None
        advice = self.run_log.advice
        try:
            self.run_log.prepare(trainer)
        except Exception as error:
            report(self, "the search for an objective", error)
        self.run_log.advice = advice  # MetaHParams may have been first

    @guarded
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note which run is being resumed."""
        if self._is_active and self._records and not is_finder_checkpoint(trainer):
            from lightning_metahp.checkpoint_state import stored_run_in  # few runs resume another

            stored = stored_run_in(str(trainer.ckpt_path), checkpoint)
            self.run_log.resumed_from = stored if stored.run_id is not None else None

    @guarded
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the framework's own loggers for what is in force; they are called right after this hook."""
        if self._is_active and self._records:
            mark_built(pl_module)
            if trainer.loggers:
                from lightning_metahp.loggers import settle_loggers

                settle_loggers(trainer, pl_module, self.run_log.advice)

    @guarded
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the run, and compare what is in force with what was written."""
        skip_idle_hooks(self)
        if self._is_active and self._records:
            self.run_log.start(trainer, pl_module)
            self._state = self.run_log.state()
            self.run_log.verify(trainer, pl_module)

    @guarded
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log metrics of the step, as often as the Trainer logs."""
        if self._records:
            self.run_log.step(trainer, outputs, batch_idx)

    @guarded
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch before: only now all its hooks have logged what they had to."""
        if self._records:
            self.run_log.epoch(trainer)

    @guarded
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log a validation."""
        if self._records:
            self.run_log.validation(trainer)

    @guarded
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last epoch."""
        call_all_hooks(self)
        if self._records:
            self.run_log.epoch(trainer)

    @guarded
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the run with what ended it; the Trainer calls no ``teardown`` after an exception."""
        call_all_hooks(self)
        if self._records:
            self.run_log.finish(trainer, exception)

    @guarded
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the run."""
        if stage == "fit" and self._records:
            self.run_log.finish(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know of this one; empty before the start, so that a finder's probes carry nothing."""
        return dict(self._state)


class MetaHPCallback(RecordingCallback):
    """Log every ``fit`` of a Trainer into the history.

    Logged are all hyperparameters in force with who set them (of module, datamodule, trainer, optimizer, schedule and loader),
    every metric, what was trained, the cost and the outcome: completed, stopped, interrupted, failed, diverged or out of memory.
    Sanity checks, ``fast_dev_run``, tuner probes and mere validation are not logged. Only rank zero writes. No error of ours can
    stop a training: it is warned about once. ``METAHP=off`` switches everything off.

    Step metrics are taken every ``log_every_n_steps`` steps and at the end of each epoch, validation metrics once per validation,
    all at the Trainer's ``global_step``. Metrics keep their names; the objective stands under its base name as well: ``val_loss`` of
    ``val_loss_epoch``, and of ``val_loss/dataloader_idx_0`` where there are several validation loaders. A limit of the validation is noted,
    and runs of two limits are compared only in order. How long a run was is counted in full passes over the training data.

    Args:
        objective: Metric a run is judged by; default: what ``ModelCheckpoint`` or ``EarlyStopping`` monitors, else the one
            torchmetrics object logged in validation that knows its direction, else the one well-known name.
        direction: ``min`` or ``max``; default: found in the same places.
        task: Name of the task, or a ``TaskDescription``; default: recognised by data, model and objective.
        history: A ``History``, a path, or None for the default one.

    Raises:
        ObjectiveError: If ``direction`` is neither ``min`` nor ``max``.
        InvalidArgumentError: If ``task`` is neither a name nor a description.

    Example:
        >>> trainer = Trainer(max_epochs=1, callbacks=[MetaHPCallback("val_acc", history="history.db")])
        >>> trainer.fit(model, datamodule=data)
        >>> [str(run.status) for run in History("history.db").runs()]
        ['completed']
    """

    def __init__(
        self,
        objective: str | None = None,
        direction: str | None = None,
        *,
        task: str | TaskDescription | None = None,
        history: History | str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(objective, direction, task, history)
