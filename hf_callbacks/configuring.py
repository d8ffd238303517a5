"""``autoconfig``: training arguments in, training arguments out, improved by the history where the user has not spoken."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import TrainingArguments

from hf_callbacks.arguments import check_arguments, restored, rewritten
from hf_callbacks.deciding import Plan, Request, agree, check_request, from_process_zero, is_off, say
from hf_callbacks.fixed_fields import fixed_fields
from hf_callbacks.objective import find_objective
from hf_callbacks.provenance import Provenance, Target, provenance_of, rewrites_of, with_provenance
from hf_callbacks.resuming import find_resumption
from store.errors import InvalidArgumentError

if TYPE_CHECKING:
    from metamodel.task import TaskDescription
    from store import History

logger = logging.getLogger(__name__)


def autoconfig(
    args: TrainingArguments | None = None,
    /,
    *,
    model: nn.Module | None = None,
    train_dataset: object = None,
    eval_dataset: object = None,
    task: str | TaskDescription | None = None,
    space: Mapping[str, Any] | None = None,
    objective: str | None = None,
    direction: str | None = None,
    history: History | str | os.PathLike[str] | None = None,
    keep: Collection[str] | str = (),
    mode: str = "best",
    args_class: type[TrainingArguments] = TrainingArguments,
    **training_arguments: Any,
) -> TrainingArguments:
    """Return training arguments in which the meta-model has chosen what the user has not.

    Learning rate, weight decay, warm-up, gradient clipping and the batch may be rewritten; anything else only where ``space`` names
    it. The meta-model chooses a global batch; the per-device size follows from accumulation and processes.
    Keywords are explicit and win, unless ``space`` lists the name: then the value passed is the fallback. In ready-made arguments
    a field that differs from the class default counts as explicit, since the host does not record what the user set.
    ``task``, ``objective`` and ``direction`` travel on the arguments as well, and a bare ``MetaHPCallback()`` takes them from there.
    Arguments with ``resume_from_checkpoint`` get back what the checkpoint's run was made with; nothing is predicted for them.
    ``METAHP=off`` returns exactly what was given. ``METAHP_PIN=<id>`` applies that recommendation again.

    Args:
        args: Ready-made arguments of any subclass; None to build them from the keywords.
        model: The model to be trained; with the data it tells which task this is.
        train_dataset: The training data, as it will be given to the Trainer.
        eval_dataset: The validation data.
        task: Name, or a ``TaskDescription``; None to recognise it by data, model and objective.
        space: Raw or canonical name -> Optuna distribution or list of values. Naming a field permits to rewrite it.
        objective: Metric of the evaluation, ``eval_`` may be left out; default: ``metric_for_best_model``, else the evaluation loss.
        direction: ``min`` or ``max``; default: inferred.
        history: A ``History``, a path, or None for the default one.
        keep: Names never to touch.
        mode: ``best``, ``explore``, or ``dry-run``, which only says.
        args_class: Class to build from the keywords, explicit values of its fields; ignored where ``args`` are given.
        **training_arguments: These keywords.

    Returns:
        New arguments of the same class; they carry the recommendation's id, which ``MetaHPCallback`` links to the run.

    Raises:
        InvalidArgumentError: If an argument is of the wrong kind.
        SpaceError: If the space is malformed, or (``UnknownHyperparameterError``) it or ``keep`` names a field there is not.
        ObjectiveError: If the direction of the objective is unknown.
        UnknownRecommendationError: If ``METAHP_PIN`` names no stored recommendation.
        HistoryPathError: If the given history cannot be used.
    """
    given = _build(args, args_class, training_arguments)
    if is_off():
        return given
    if (resumed := _resumed(given)) is not None:
        return resumed
    earlier = provenance_of(given)
    users = restored(given, earlier)  # a second call starts from the user's own values again, not from those of the first
    request = check_request(
        Request(
            users,
            earlier.explicit | frozenset(training_arguments),
            model=model,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            task=task,
            space=space,
            objective=find_objective(users, objective, direction),
            history=history,
            keep=keep,
            mode=mode,
            frozen=fixed_fields(users),
        )
    )
    plan = agree(request)
    result = given if mode == "dry-run" or plan.is_failed else _apply(given, plan, request, Target(task, objective, direction))
    if result is not given or mode == "dry-run":
        say(given, plan.message)
    return result


def _resumed(args: TrainingArguments) -> TrainingArguments | None:
    """Return the arguments of the run that a checkpoint belongs to; None where these arguments resume nothing."""
    if not args.resume_from_checkpoint:
        return None
    plan = from_process_zero(args, lambda: find_resumption(args, args.resume_from_checkpoint))
    if plan is None:
        return None
    result = with_provenance(rewritten(args, plan.values) if plan.values else args, plan.provenance)
    say(args, plan.message or "metahp: nothing changed; the run resumes from a checkpoint, which brings its own values")
    return result


def _build(args: TrainingArguments | None, args_class: type[TrainingArguments], keywords: dict[str, Any]) -> TrainingArguments:
    if args is not None:
        checked = check_arguments(args)
        return rewritten(checked, keywords) if keywords else checked
    if not (isinstance(args_class, type) and issubclass(args_class, TrainingArguments)):
        raise InvalidArgumentError(
            f"args_class must be TrainingArguments or a subclass, but got {args_class!r}. Pass the class, not an instance."
        )
    return args_class(**keywords)


def _apply(given: TrainingArguments, plan: Plan, request: Request, target: Target) -> TrainingArguments:
    """Write the plan into a copy, with a note of it; where the host refuses the values, return what the user gave."""
    try:
        values = {change.raw_name: change.new for change in plan.changes}
        result = rewritten(request.args, values) if values else request.args
        chosen = None if plan.recommendation is None else plan.recommendation.id
        return with_provenance(result, Provenance(chosen, request.explicit, rewrites_of(plan.changes), target))
    except Exception as error:  # advice must never stop a training
        logger.warning(
            "metahp: nothing changed after all; the recommended values were refused by %s: %s: %s",
            type(given).__name__,
            type(error).__name__,
            error,
        )
        return given
