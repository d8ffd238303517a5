"""``apply``: the same advice for a Trainer that already exists, before ``train()``."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback

from hf_callbacks.configuring import frozen_fields
from hf_callbacks.deciding import Plan, Request, agree, check_request, is_off, say
from hf_callbacks.objective import find_objective
from hf_callbacks.provenance import provenance_of, rewrites_of, write_provenance
from store.errors import InvalidArgumentError

if TYPE_CHECKING:
    from metamodel.recommendation import Recommendation
    from metamodel.task import TaskDescription
    from store import History

logger = logging.getLogger(__name__)

_OPTIMIZER_NAMES = ("learning_rate", "weight_decay", "optimizer", "adam_beta1", "adam_beta2", "adam_epsilon")
_CONSUMED = (
    *("bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode"),
    *("label_smoothing_factor", "neftune_noise_alpha", "use_cache", "parallelism_config"),
)


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

    Everything is as in ``autoconfig``, for ready-made arguments. What is left out is taken from a ``MetaHPCallback`` of the
    Trainer. Values the Trainer has already used up (precision, an optimizer you passed) are left alone and named.

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
        The recommendation, whether it was acted on or abstained; None where there was none (``METAHP=off``, nothing left to
        rewrite, or an error of ours, which is warned about).

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
    objective, direction = (objective or getattr(beside, "objective", None), direction or getattr(beside, "direction", None))
    earlier = provenance_of(trainer.args)
    request = check_request(
        Request(
            args=trainer.args,
            # What a recommendation wrote before is no longer the default, so it counts as chosen: one voice per run.
            explicit=earlier.explicit,
            model=trainer.model,
            train_dataset=trainer.train_dataset,
            eval_dataset=trainer.eval_dataset,
            task=task if task is not None else getattr(beside, "task", None),
            space=space,
            objective=find_objective(trainer.args, objective, direction),
            history=history if history is not None else getattr(beside, "history", None),
            keep=keep,
            mode=mode,
            frozen=_frozen(trainer),
        )
    )
    plan = agree(request)
    if mode == "dry-run" or _write(trainer, plan):
        say(trainer.args, plan.message)
    return plan.recommendation


def set_train_batch_size(trainer: Trainer) -> None:
    """Make a built Trainer load the batch size its arguments say.

    The Trainer copies it when it is built and has no public way to read the arguments again; this is what its own hyperparameter
    search does. The one private attribute this package touches.
    """
    if not hasattr(trainer, "_train_batch_size"):
        raise AttributeError("this version of transformers keeps the Trainer's batch size elsewhere")
    trainer._train_batch_size = trainer.args.train_batch_size


def _write(trainer: Trainer, plan: Plan) -> bool:
    """Write the plan into the Trainer's arguments; say whether that went well."""
    if plan.recommendation is None:
        return True
    old = {change.raw_name: getattr(trainer.args, change.raw_name) for change in plan.changes}
    earlier = provenance_of(trainer.args)
    try:
        for change in plan.changes:
            setattr(trainer.args, change.raw_name, change.new)
        set_train_batch_size(trainer)
        rewrites = {**earlier.rewrites, **rewrites_of(plan.changes)}
        write_provenance(trainer.args, replace(earlier, recommendation_id=plan.recommendation.id, rewrites=rewrites))
    except Exception as error:  # advice must never stop a training
        for name, value in old.items():
            setattr(trainer.args, name, value)
        logger.warning("metahp: nothing changed after all; the Trainer refused: %s: %s", type(error).__name__, error)
        return False
    return True


def _frozen(trainer: Trainer) -> dict[str, str]:
    frozen = {**frozen_fields(trainer.args), **dict.fromkeys(_CONSUMED, "the Trainer used it when it was built")}
    # With model_init every train() makes a fresh optimizer from the arguments; without it an optimizer that exists stays.
    if trainer.optimizer is not None and trainer.model_init is None:
        frozen |= dict.fromkeys(_OPTIMIZER_NAMES, "the Trainer already has an optimizer")
    elif trainer.optimizer_cls_and_kwargs is not None:
        frozen |= dict.fromkeys(_OPTIMIZER_NAMES, "you passed optimizer_cls_and_kwargs")
    return frozen


def _callback_beside(trainer: Trainer) -> TrainerCallback | None:
    from hf_callbacks.callback import MetaHPCallback

    return next((item for item in trainer.callback_handler.callbacks if isinstance(item, MetaHPCallback)), None)
