"""``MetaHParams``: the next run starts with what the runs before it taught."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.callback import MetaHPCallback, RecordingCallback
from lightning_metahp.fit_host import FitHost, resume_late
from lightning_metahp.guard import guarded, report
from lightning_metahp.objective import objective_before_training
from lightning_metahp.run_log import AppliedRecommendation
from lightning_metahp.settings import datamodule_of
from lightning_metahp.trainer_internals import find_resume, is_finder_checkpoint, methods_out_of_reach
from lightning_metahp.write_targets import take_back
from metahp_tuning.decision import UNUSABLE_HISTORY, TuningDecision, tune
from metahp_tuning.host import check_request
from store.errors import MetaHPError

if TYPE_CHECKING:
    from metamodel.data.task import TaskDescription
    from store import History


class MetaHParams(RecordingCallback):
    """Rewrite hyperparameters at the start of ``fit``, before loaders and optimizers exist, and record the run.

    Without ``space``, only learning rate, weight decay, dropout, momentum, warm-up and batch size may change, only where their
    value is the default of ``__init__``, and only to values seen in the history. Naming a hyperparameter in ``space`` permits to
    rewrite it whatever its value is, which then becomes the fallback; ``max_epochs``, ``max_steps``, ``accumulate_grad_batches`` and
    ``gradient_clip_val`` mean those of the Trainer. Dropout is written into the layers that it made. What has no effect any
    more at this point is left alone, with a message: layers built in ``__init__``, the batch size of loaders passed to ``fit``, what
    Lightning's own finders set. After the start every value is read back; one that is not in force gives a loud warning.

    The batch is decided together with the learning rate as a global one: samples per device follow from processes and accumulation,
    never above the data set's share, nor above what is known to run out of memory. A resumed run goes on with what it had; nothing is
    predicted for it. Under Optuna, Ray Tune or a W&B sweep a run is recorded and left alone.

    Beside a ``MetaHPCallback`` both share one run, and the arguments left out here are taken from there. ``METAHP=off`` does
    nothing at all, ``METAHP_PIN=<id>`` applies a stored recommendation again.

    Args:
        space: Raw or canonical name -> Optuna distribution or list of values.
        task: Name of the task, or a ``TaskDescription``; default: recognised by data, model and objective.
        objective: Metric to improve; default: what a checkpoint or early stopping monitors, else that of earlier runs.
        direction: ``min`` or ``max``; default: inferred.
        history: A ``History``, a path, or None for the default one.
        mode: ``best``, ``explore``, or ``dry-run``, which only says what it would do.
        keep: Names never to touch.
        max_startup_s: Time the start may take, in seconds, where a model has to be fitted first.

    Raises:
        SpaceError: If the space is malformed.
        InvalidArgumentError: If ``mode``, ``keep``, ``task`` or ``max_startup_s`` is not possible.
        ObjectiveError: If ``direction`` is neither ``min`` nor ``max``, or is left out for an objective whose name does not say it.

    Example:
        >>> space = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "batch_size": [16, 32, 64]}
        >>> trainer = Trainer(max_epochs=1, callbacks=[MetaHPCallback("val_acc"), MetaHParams(space)])
        >>> trainer.fit(model, datamodule=data)
    """

    def __init__(
        self,
        space: Mapping[str, Any] | None = None,
        *,
        task: str | TaskDescription | None = None,
        objective: str | None = None,
        direction: str | None = None,
        history: History | str | os.PathLike[str] | None = None,
        mode: str = "best",
        keep: Collection[str] | str = (),
        max_startup_s: float = 10.0,
    ) -> None:
        super().__init__(objective, direction, task, history)
        # What the run is for is known only once the callbacks beside this one are.
        self.request = check_request(space, keep=keep, mode=mode, max_startup_s=max_startup_s)
        self._own_log = self.run_log
        self._host: FitHost | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind the fit, which belongs to this process."""
        return {**vars(self), "_host": None}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Decide, print the decision and rewrite.

        Raises:
            UnknownHyperparameterError: If ``space`` or ``keep`` names something that neither module nor datamodule has.
            UnknownRecommendationError: If ``METAHP_PIN`` names no stored recommendation.
            HistoryPathError: If the given history cannot be used.
        """
        if stage == "fit":
            self._adopt(trainer)
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or not self._is_active:
            return
        self._host = None
        try:
            # A module that was fitted before starts from the user's own values again, not from those of that fit.
            take_back(pl_module, datamodule_of(trainer), trainer)
            self._tune(trainer, pl_module)
        except UNUSABLE_HISTORY as error:
            if self._own_log.history is not None:
                raise
            # A history passed to this callback is a mistake to be told before training; one of the callback beside it must not cost a run.
            report(self, "opening the history", error)
        except MetaHPError:
            raise
        except Exception as error:
            report(self, "rewriting the hyperparameters", error)

    @guarded
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Follow the checkpoint where ``setup`` could not read it; only values that change no shape are still in time."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if not self._is_active or is_finder_checkpoint(trainer):
            return
        if self._host is None or (self._host.is_resumed and not self._host.is_checkpoint_late):
            return
        self._follow(resume_late(self._host, str(trainer.ckpt_path), checkpoint))

    def _tune(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._records:
            self.run_log.prepare(trainer)  # the arguments it was lent may change what it looks for
        own, shared = self._own_log, self.run_log
        objective = (own.objective, own.direction) if own.objective is not None else (shared.objective, own.direction or shared.direction)
        request = replace(
            self.request,
            task=own.task if own.task is not None else shared.task,
            history=own.history if own.history is not None else shared.history,
        )
        self._host = FitHost(
            self,
            trainer,
            module,
            request,
            objective=objective_before_training(trainer, *objective),
            resume=find_resume(trainer),
            out_of_reach=methods_out_of_reach(trainer, module, self),
        )
        self.run_log.advice = AppliedRecommendation(tunable=request.tunable)
        self._follow(tune(self._host, request))

    def _follow(self, decision: TuningDecision) -> None:
        """Hand on what was decided to the row of the run."""
        self.run_log.advice = AppliedRecommendation(decision.followed_id, decision.changes, self.request.tunable, decision.pending)

    def _adopt(self, trainer: Trainer) -> None:
        """Share the run of a ``MetaHPCallback`` beside this one; each side lends the other the arguments it lacks."""
        beside = next((callback for callback in trainer.callbacks if isinstance(callback, MetaHPCallback)), None)  # type: ignore[attr-defined]
        self._records = beside is None
        if beside is None:
            self.run_log = self._own_log
            return
        self.run_log = beside.run_log
        own = self._own_log
        if self.run_log.objective is None and own.objective is not None:
            self.run_log.objective, self.run_log.direction = own.objective, own.direction
        if self.run_log.task is None:
            self.run_log.task = own.task
