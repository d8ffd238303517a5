"""``apply``: the same advice for a Trainer that already exists, before ``train()``."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback

from hf_callbacks.arguments import rewritten
from hf_callbacks.deciding import Plan, Request, agree, check_request, from_process_zero, say
from hf_callbacks.fixed_fields import fixed_fields
from hf_callbacks.model_values import base_model, fixed_model_values, model_settings, set_model_values
from hf_callbacks.objective import find_objective
from hf_callbacks.provenance import provenance_of, rewrites_of, write_provenance
from hf_callbacks.resuming import find_resumption
from hf_callbacks.watching import watch
from metahp_tuning.task_description import pretrained_name
from store.errors import InvalidArgumentError
from store.switches import is_off

if TYPE_CHECKING:
    from metamodel.data.task import TaskDescription
    from metamodel.recommendation import Recommendation
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

    Everything is as in ``autoconfig``, for ready-made arguments, and the model's own values come within reach: dropout by name of its
    configuration, and the number of layers where the Trainer has a ``model_init`` and starts from scratch. What is left out is taken
    from a ``MetaHPCallback`` of the Trainer. Values the Trainer has already used up (precision, an optimizer you passed) are left
    alone and named.

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
    watch(trainer)
    earlier = provenance_of(trainer.args)
    settings = model_settings(trainer.model)
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
            of_model=settings,
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


def write_resumption(trainer: Trainer, resume_from_checkpoint: Any) -> None:
    """Give a Trainer that is about to resume the values its run began with, and say so. Does nothing for a fresh training.

    Args:
        trainer: The Trainer, before ``train()`` has done anything.
        resume_from_checkpoint: As ``train`` was given it.
    """
    if not resume_from_checkpoint:
        return
    plan = from_process_zero(trainer.args, lambda: find_resumption(trainer.args, resume_from_checkpoint))
    if plan is None:
        return
    for name, value in plan.values.items():
        setattr(trainer.args, name, _as_field(getattr(trainer.args, name), value))
    if plan.values:
        set_train_batch_size(trainer)
    known = {name: value for name, value in plan.model_values.items() if hasattr(getattr(trainer.model, "config", None), name)}
    set_model_values(trainer, known)
    if plan.provenance.rewrites or provenance_of(trainer.args).rewrites:
        write_provenance(trainer.args, plan.provenance)
    say(trainer.args, plan.message)


def _write(trainer: Trainer, plan: Plan) -> bool:
    """Write the plan into the Trainer's arguments and model; say whether that went well."""
    if plan.recommendation is None:
        return True
    args, earlier = trainer.args, provenance_of(trainer.args)
    of_args = {change.raw_name: change.new for change in plan.changes if hasattr(args, change.raw_name)}
    of_model = {change.raw_name: change.new for change in plan.changes if change.raw_name not in of_args}
    old = {name: getattr(args, name) for name in of_args}
    base = base_model(trainer.model)
    old_model = {name: getattr(base.config, name) for name in of_model} if base is not None else {}
    try:
        if of_args:
            rewritten(args, of_args)  # the host's own checks, on a copy: what contradicts itself never reaches the Trainer
        for name, value in of_args.items():
            setattr(args, name, _as_field(old[name], value))
        set_train_batch_size(trainer)
        set_model_values(trainer, of_model)
        rewrites = {**earlier.rewrites, **rewrites_of(plan.changes)}
        write_provenance(args, replace(earlier, recommendation_id=plan.recommendation.id, rewrites=rewrites))
    except Exception as error:  # advice must never stop a training
        for name, value in old.items():
            setattr(args, name, value)
        set_train_batch_size(trainer)
        if trainer.model_init is None:
            set_model_values(trainer, old_model)
        logger.warning("metahp: nothing changed after all; the Trainer refused: %s: %s", type(error).__name__, error)
        return False
    return True


def _as_field(old: Any, value: Any) -> Any:
    """Give a plain value the type of the field: the host compares some fields with its enums."""
    return type(old)(value) if isinstance(old, Enum) else value


def _frozen(trainer: Trainer) -> dict[str, str]:
    frozen = {**fixed_fields(trainer.args, is_built=True), **dict.fromkeys(_CONSUMED, "the Trainer used it when it was built")}
    if trainer.model is not None:
        frozen |= fixed_model_values(trainer.model, trainer.model_init, pretrained_name(trainer.model))
    # With model_init every train() makes a fresh optimizer from the arguments; without it an optimizer that exists stays.
    if trainer.optimizer is not None and trainer.model_init is None:
        frozen |= dict.fromkeys(_OPTIMIZER_NAMES, "the Trainer already has an optimizer")
    elif trainer.optimizer_cls_and_kwargs is not None:
        frozen |= dict.fromkeys(_OPTIMIZER_NAMES, "you passed optimizer_cls_and_kwargs")
    return frozen


def _callback_beside(trainer: Trainer) -> TrainerCallback | None:
    from hf_callbacks.callback import MetaHPCallback

    return next((item for item in trainer.callback_handler.callbacks if isinstance(item, MetaHPCallback)), None)
