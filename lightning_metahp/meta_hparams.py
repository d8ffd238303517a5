"""``MetaHParams``: the next run starts with what the runs before it taught."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.applying import Place, apply_changes, fingerprint, take_back, undo
from lightning_metahp.callback import MetaHPCallback, RecordingCallback
from lightning_metahp.deciding import MODES, Plan, Reach, Request, Unsaved, check_request, decide
from lightning_metahp.guard import guarded, report, say, warn
from lightning_metahp.host import Resume, find_resume, is_finder_checkpoint, methods_out_of_reach
from lightning_metahp.objective import objective_before_training
from lightning_metahp.ranks import agree, all_equal
from lightning_metahp.run_log import Advice
from lightning_metahp.settings import datamodule_of
from lightning_metahp.sweeps import running_sweep
from metahp_tuning.precedence import check_keep
from store.errors import (
    HistoryPathError,
    HistoryTooNewError,
    InvalidArgumentError,
    MetaHPError,
    NotAHistoryError,
    UnknownRecommendationError,
)

if TYPE_CHECKING:
    from lightning_metahp.resuming import Earlier
    from metamodel.data.task import TaskDescription
    from store import History

_UNUSABLE_HISTORY = (HistoryPathError, NotAHistoryError, HistoryTooNewError)


class MetaHParams(RecordingCallback):
    """Rewrite hyperparameters at the start of ``fit``, before loaders and optimizers exist, and record the run.

    Without ``space``, only learning rate, weight decay, dropout, momentum, warm-up and batch size may change, only where their
    value is the default of ``__init__``, and only to values seen in the history. Naming a hyperparameter in ``space`` permits to
    rewrite it whatever its value is, which then becomes the fallback; ``max_epochs``, ``max_steps``, ``accumulate_grad_batches`` and
    ``gradient_clip_val`` mean those of the Trainer. Dropout is written into the layers that have the old rate. What has no effect any
    more at this point is left alone and said: layers built in ``__init__``, the batch size of loaders passed to ``fit``, what
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
        >>> space = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "batch_size": [16, 32, 64]}  # doctest: +SKIP
        >>> trainer = Trainer(callbacks=[MetaHPCallback("val_acc"), MetaHParams(space)])  # doctest: +SKIP
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
        if mode not in MODES:
            raise InvalidArgumentError(f"mode must be one of {', '.join(MODES)}, but got {mode!r}. Pass one of these.")
        if isinstance(max_startup_s, bool) or not isinstance(max_startup_s, int | float) or not max_startup_s > 0:
            raise InvalidArgumentError(
                f"max_startup_s must be a positive number of seconds, but got {max_startup_s!r}. Pass for example 10."
            )
        if space is not None:
            from metamodel.space.dimensions import parse_space

            parse_space(space)
        self.space = None if space is None else dict(space)
        self.mode = mode
        self.keep = check_keep(keep)
        self.max_startup_s = float(max_startup_s)
        self._own_log = self.run_log
        self._places: list[Place] = []
        self._earlier: Earlier | None = None
        self._unsaved: Unsaved | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind the places written, which belong to the model of this process."""
        return {**vars(self), "_places": [], "_earlier": None, "_unsaved": None}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Decide, say it and rewrite.

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
        self._places, self._earlier, self._unsaved = [], None, None
        try:
            # A module that was fitted before starts from the user's own values again, not from those of that fit.
            take_back(pl_module, datamodule_of(trainer), trainer)
            self._rewrite(trainer, pl_module)
        except MetaHPError:
            raise
        except Exception as error:
            report(self, "rewriting the hyperparameters", error)

    @guarded
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Follow the checkpoint where ``setup`` could not read it; only values that change no shape are still in time."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if not self._is_active or is_finder_checkpoint(trainer) or (self._earlier is not None and self._earlier.is_complete):
            return
        from lightning_metahp.resuming import Earlier, from_checkpoint, plan_resumed  # few runs resume another

        undo(self._places)
        loaded = from_checkpoint(str(trainer.ckpt_path), checkpoint)
        self._earlier = Earlier(loaded.path, loaded.state, loaded.hparams, is_complete=False)
        plan = plan_resumed(self._request(trainer, pl_module, Resume(loaded.path)), self._earlier)
        self._write(trainer, pl_module, plan)

    def _rewrite(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._records:
            self.run_log.prepare(trainer)  # the arguments it was lent may change what it looks for
        resume = find_resume(trainer)
        request = self._request(trainer, module, resume)
        check_request(request)
        self.run_log.advice = Advice(tunable=tuple(self.space or ()))
        sweep = running_sweep(trainer)
        if sweep is not None and resume.path is None:
            if trainer.is_global_zero:
                say(f"metahp: nothing changed; {sweep} chooses the hyperparameters of this run, which is recorded")
            return
        if resume.path is not None:
            from lightning_metahp.resuming import Earlier, plan_resumed, read_checkpoint

            self._earlier = agree(trainer, lambda: read_checkpoint(resume))
            if not self._earlier.is_complete:
                return  # on_load_checkpoint comes next, with the checkpoint in its hands
            plan = agree(trainer, lambda: plan_resumed(request, self._earlier or Earlier(str(resume.path))))
        else:
            plan = agree(trainer, lambda: self._decide(request))
        self._write(trainer, module, plan)

    def _write(self, trainer: Trainer, module: LightningModule, plan: Plan) -> None:
        """Write the same values on every rank, or on none."""
        failure: Exception | None = None
        try:
            self._places = apply_changes(plan.changes, module, datamodule_of(trainer), trainer)
        except Exception as error:
            failure = error
        if not all_equal(trainer, "failed" if failure is not None else fingerprint(self._places)):
            undo(self._places)
            self._places, plan = [], Plan()
            if failure is None:
                warn("metahp: nothing changed; the processes of this run did not come to the same values. Is their code the same?")
        if failure is not None:
            raise failure
        self.run_log.advice = Advice(plan.recommendation_id, plan.changes, tuple(self.space or ()), self._unsaved)
        if trainer.is_global_zero and plan.message:
            say(plan.message)

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

    def _request(self, trainer: Trainer, module: LightningModule, resume: Resume) -> Request:
        own, shared = self._own_log, self.run_log
        objective = (own.objective, own.direction) if own.objective is not None else (shared.objective, own.direction or shared.direction)
        return Request(
            trainer=trainer,
            module=module,
            space=self.space,
            task=own.task if own.task is not None else shared.task,
            objective=objective_before_training(trainer, *objective),
            mode=self.mode,
            keep=self.keep,
            max_startup_s=self.max_startup_s,
            out_of_reach=methods_out_of_reach(trainer, module, self),
            is_resume_known=resume.is_known,
        )

    def _decide(self, request: Request) -> Plan:
        given = self._own_log.history if self._own_log.history is not None else self.run_log.history
        reach: Reach | None = None
        try:
            reach = Reach(given)
            plan = decide(request, reach)
            self._unsaved = reach.unsaved
            return plan
        except UnknownRecommendationError:
            raise
        except _UNUSABLE_HISTORY as error:
            if self._own_log.history is not None:
                raise
            # Said to this callback it is a mistake to hear of before training; anywhere else it must not cost a run.
            report(self, "opening the history", error)
        except Exception as error:
            report(self, "the recommendation", error)
        finally:
            if reach is not None:
                reach.close()
        return Plan()
