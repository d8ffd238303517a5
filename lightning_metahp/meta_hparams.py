"""``MetaHParams``: the next run starts with what the runs before it taught."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.applying import Place, apply_changes, read_back, undo
from lightning_metahp.callback import MetaHPCallback
from lightning_metahp.deciding import MODES, Plan, Request, check_request, decide
from lightning_metahp.guard import guarded, report, say, warn
from lightning_metahp.host import is_finder_checkpoint, resume_path
from lightning_metahp.objective import objective_before_training
from lightning_metahp.recording import RecordingCallback
from lightning_metahp.run_log import Advice
from lightning_metahp.settings import datamodule_of
from metamodel.precedence import check_keep
from metamodel.space import parse_space
from store.errors import (
    HistoryPathError,
    HistoryTooNewError,
    InvalidArgumentError,
    MetaHPError,
    NotAHistoryError,
    NotAppliedWarning,
    UnknownRecommendationError,
)

if TYPE_CHECKING:
    from metamodel.task import TaskDescription
    from store import History

_UNUSABLE_HISTORY = (HistoryPathError, NotAHistoryError, HistoryTooNewError)


class MetaHParams(RecordingCallback):
    """Rewrite hyperparameters at the start of ``fit``, before loaders and optimizers exist, and record the run.

    Without ``space``, only learning rate, weight decay, dropout, momentum, warm-up and batch size may change, only where their
    value is the default of ``__init__``, and only to values seen in the history. Naming a hyperparameter in ``space`` permits to
    rewrite it whatever its value is, which then becomes the fallback. What has no effect any more at this point is left alone and
    said: values that only ``__init__`` reads, the batch size of loaders passed to ``fit``, and what Lightning's own finders set.
    A resumed run is never touched. After the start every value is read back; one that is not in force gives a loud warning.

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
        ObjectiveError: If ``direction`` is neither ``min`` nor ``max``.

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
            parse_space(space)
        self.space = None if space is None else dict(space)
        self.mode = mode
        self.keep = check_keep(keep)
        self.max_startup_s = float(max_startup_s)
        self._own_log = self.run_log
        self._plan = Plan()
        self._places: list[Place] = []
        self._resumes_from: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Decide, say it and rewrite.

        Raises:
            UnknownHyperparameterError: If ``space`` or ``keep`` names something that neither module nor datamodule has.
            UnknownRecommendationError: If ``METAHP_PIN`` names no stored recommendation.
            ObjectiveError: If the direction of the objective is unknown.
            HistoryPathError: If the given history cannot be used.
        """
        if stage != "fit":
            return
        self._adopt(trainer)
        super().setup(trainer, pl_module, stage)
        if not self._is_active:
            return
        # A second fit starts from the user's own values again, not from those of the first.
        undo(self._places)
        self._places, self._plan, self._resumes_from = [], Plan(), None
        try:
            self._rewrite(trainer, pl_module)
        except MetaHPError:
            raise
        except Exception as error:
            report(self, "rewriting the hyperparameters", error)

    @guarded
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the user's values back where a resumed run was not recognised as one in ``setup``."""
        if self._is_active and self._resumes_from is None and not is_finder_checkpoint(trainer):
            undo(self._places)
            self._places, self._plan = [], Plan()
            self.run_log.advice = Advice(tunable=tuple(self.space or ()))
            self._resumes_from = str(trainer.ckpt_path)

    @guarded
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that a resumed run is left alone."""
        if self._is_active and self._resumes_from is not None and trainer.is_global_zero:
            followed = self.run_log.resumed_from.get("recommendation_id")
            say(
                f"metahp: nothing changed; the run resumes from {self._resumes_from}, and a resumed run keeps its values"
                + (f" (it followed recommendation {followed})" if followed else "")
            )

    @guarded
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the run and compare what is in force with what was recommended."""
        if not self._is_active:
            return
        self.run_log.start(trainer, pl_module)
        if self._records:
            self._state = self.run_log.state()
        if not self._plan.changes or not trainer.is_global_zero:
            return
        log = self.run_log
        for item in read_back(self._plan.changes, trainer, pl_module):
            raw = item.change.raw_name
            if log.recorder is not None and item.observed is not None:
                log.recorder.observe({raw: item.observed})
                if item.is_ignored:
                    log.recorder.set_hparams({raw: item.observed}, sources={raw: "user"})
            if not item.is_applied:
                warn(item.describe(), NotAppliedWarning)

    def _rewrite(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._records:
            self.run_log.prepare(trainer, module)  # the arguments it was lent may change what it looks for
        request = self._request(trainer, module)
        check_request(request)
        self.run_log.advice = Advice(tunable=tuple(self.space or ()))
        self._resumes_from = resume_path(trainer)
        if self._resumes_from is not None:
            return
        plan = self._agree(request)
        self._places = apply_changes(plan.changes, module, datamodule_of(trainer))
        self._plan = plan
        self.run_log.advice = Advice(plan.recommendation_id, plan.changes, tuple(self.space or ()))
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

    def _request(self, trainer: Trainer, module: LightningModule) -> Request:
        own, shared = self._own_log, self.run_log
        objective = (own.objective, own.direction) if own.objective is not None else (shared.objective, own.direction or shared.direction)
        return Request(
            trainer=trainer,
            module=module,
            space=self.space,
            task=own.task if own.task is not None else shared.task,
            objective=objective_before_training(trainer, module, *objective),
            mode=self.mode,
            keep=self.keep,
            max_startup_s=self.max_startup_s,
        )

    def _agree(self, request: Request) -> Plan:
        """Decide on rank zero; every rank gets the same answer, the user's mistakes included."""
        trainer = request.trainer
        answer: Plan | MetaHPError = Plan()
        if trainer.is_global_zero:
            try:
                answer = self._decide(request)
            except MetaHPError as error:
                answer = error
        if trainer.world_size > 1:
            answer = trainer.strategy.broadcast(answer, src=0)
        if isinstance(answer, MetaHPError):
            raise answer
        return answer

    def _decide(self, request: Request) -> Plan:
        from store import open_history

        given = self._own_log.history if self._own_log.history is not None else self.run_log.history
        opened: History | None = None
        try:
            opened = open_history(given)
            return decide(request, opened)
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
            if opened is not None and opened is not given:
                opened.close()
        return Plan()
