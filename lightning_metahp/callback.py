"""``MetaHPCallback``: one line logs every run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lightning_metahp.recording import RecordingCallback

if TYPE_CHECKING:
    from metamodel.task import TaskDescription
    from store import History


class MetaHPCallback(RecordingCallback):
    """Log every ``fit`` of a Trainer into the history.

    Logged are all hyperparameters in force with who set them (of module, datamodule, trainer, optimizer, schedule and loader),
    every metric, what was trained, the cost and the outcome: completed, stopped, interrupted, failed, diverged or out of memory.
    Sanity checks, ``fast_dev_run``, tuner probes and mere validation are not logged. Only rank zero writes. No error of ours can
    stop a training: it is warned about once. ``METAHP=off`` switches everything off.

    Step metrics are taken every ``log_every_n_steps`` steps and at the end of each epoch, validation metrics once per validation,
    all at the Trainer's ``global_step``. The objective counts under full validation only.

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
        >>> trainer = Trainer(callbacks=[MetaHPCallback("val_acc")])  # doctest: +SKIP
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
