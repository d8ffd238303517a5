"""``apply``: the same decision for a Trainer that already exists, before ``train()``."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback

from hf_callbacks.train_watch import watch
from hf_callbacks.trainer_host import TrainerHost
from metahp_tuning.decision import tune
from metahp_tuning.host import check_request
from store.errors import InvalidArgumentError
from store.switches import is_off

if TYPE_CHECKING:
    from metamodel.data.task import TaskDescription
    from metamodel.recommendation import Recommendation
    from store import History


def apply(
    trainer: Trainer,
    *,
    task: str | TaskDescription | None = None,
    space: Mapping[str, Any] | None = None,
    objective: str | None = None,
    direction: str | None = None,
    history: History | str | os.PathLike[str] | None = None,
    keep: Collection[str] | str = (),
    mode: str = "best",
) -> Recommendation | None:
    """Rewrite the arguments of a built Trainer in place, between its construction and ``train()``.

    Everything is as in ``autoconfig``, for ready-made arguments, and the model's own values can be rewritten as well: dropout by name of
    its configuration, and the number of layers where the Trainer has a ``model_init`` and starts from scratch. What is left out is taken
    from a ``MetaHPCallback`` of the Trainer. Values the Trainer has already used up (precision, an optimizer you passed) are left
    unchanged and named.

    Args:
        trainer: The Trainer.
        task: Name of the task, or a ``TaskDescription``.
        space: Raw or canonical name -> Optuna distribution or list of values.
        objective: Metric of the evaluation.
        direction: ``min`` or ``max``.
        history: A ``History``, a path, or None for the default one.
        keep: Names never to touch.
        mode: ``best``, ``explore`` or ``dry-run``.

    Returns:
        The recommendation, whether it was acted on or abstained; None where there was none (``METAHP=off``, no tunable
        hyperparameter, or an error of ours, which is warned about).

    Raises:
        InvalidArgumentError: If ``trainer`` is no Trainer, or ``mode``, ``task`` or ``keep`` is of the wrong kind.
        MetaHPError: As ``autoconfig``.
    """
    if not isinstance(trainer, Trainer):
        raise InvalidArgumentError(
            f"apply needs a built transformers.Trainer, but got {type(trainer).__name__}. "
            "Before there is one, use autoconfig on its arguments."
        )
    if is_off():
        return None
    beside = _callback_beside(trainer)
    given = {"task": task, "objective": objective, "direction": direction, "history": history}
    found: dict[str, Any] = {name: getattr(beside, name, None) if value is None else value for name, value in given.items()}
    watch(trainer)
    request = check_request(**found, space=space, keep=keep, mode=mode)
    return tune(TrainerHost(trainer, request), request).recommendation


def _callback_beside(trainer: Trainer) -> TrainerCallback | None:
    from hf_callbacks.callback import MetaHPCallback

    return next((item for item in trainer.callback_handler.callbacks if isinstance(item, MetaHPCallback)), None)
