"""``autoconfig`` and ``apply``: training arguments, or a built Trainer, improved by the history where the user has set nothing."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_callbacks.arguments import restored, rewritten
from hf_callbacks.arguments_host import ArgumentsHost
from hf_callbacks.provenance import plain_class, provenance_of
from hf_callbacks.setfit_arguments import is_setfit, is_setfit_class, restored_setfit
from hf_callbacks.setfit_host import SetFitHost
from hf_callbacks.train_watch import watch
from hf_callbacks.trainer_host import TrainerHost
from hf_callbacks.typed_arguments import note_typed_arguments
from metahp_tuning.decision import tune
from metahp_tuning.host import check_request
from store.errors import InvalidArgumentError, UnknownHyperparameterError
from store.switches import is_off

if TYPE_CHECKING:
    from metamodel.data.task import TaskDescription
    from metamodel.recommendation import Recommendation
    from store import History

note_typed_arguments()


def autoconfig(
    args: TrainingArguments | None = None,
    /,
    *,
    model: nn.Module | str | None = None,
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

    Learning rate, weight decay, warm-up, gradient clipping and the batch may be rewritten; anything else only where ``space`` names it. The
    meta-model chooses a global batch; the per-device size follows from accumulation and processes. Keywords are explicit and win, unless
    ``space`` lists the name: then the value passed is the fallback. In ready-made arguments what was passed to their constructor is
    explicit, and any field that differs from the class default. ``task``, ``objective`` and ``direction`` travel on the arguments,
    and a bare ``MetaHPCallback()`` takes them from there. Arguments with ``resume_from_checkpoint`` get back what the checkpoint's run was
    made with; nothing is predicted for them. A history that does not exist yet is made when the run is recorded, not here. ``METAHP=off``
    returns what was given, ``METAHP_PIN=<id>`` applies that recommendation again.

    Args:
        args: Ready-made arguments of any subclass, or SetFit's; None to build them from the keywords.
        model: The model to be trained, or the path that TRL's Trainers load it from; with the data it identifies the task.
        train_dataset: The training data, as they will be passed to the Trainer: before TRL tokenises them.
        eval_dataset: The validation data.
        task: Name, or a ``TaskDescription``; None to recognise it by data, model and objective.
        space: Raw or canonical name -> Optuna distribution or list of values. Naming a field permits to rewrite it.
        objective: Metric of the evaluation, ``eval_`` may be left out; default: ``metric_for_best_model``, else the evaluation loss.
        direction: ``min`` or ``max``; default: inferred.
        history: A ``History``, a path, or None for the default one.
        keep: Names never to touch.
        mode: ``best``, ``explore``, or ``dry-run``, which only prints what it would do.
        args_class: Class to build from the keywords, explicit values of its fields; ignored where ``args`` are given.
        **training_arguments: These keywords.

    Returns:
        New arguments of the same class; they carry the recommendation's id, which ``MetaHPCallback`` links to the run.

    Raises:
        InvalidArgumentError: If an argument is of the wrong kind.
        UnknownHyperparameterError: If a keyword is no field of the arguments, or ``space`` or ``keep`` names a field there is not.
        SpaceError: If the space is malformed, or holds a value that its field cannot have.
        ObjectiveError: If the direction of the objective is unknown.
        UnknownRecommendationError: If ``METAHP_PIN`` names no stored recommendation.
        HistoryPathError: If the given history cannot be used.
    """
    given = _build(args, args_class, training_arguments)
    if is_off():
        return given
    request = check_request(space, task, objective, direction, history, keep, mode)
    earlier = provenance_of(given if args is None else args)
    restore: Callable[..., Any] = restored_setfit if is_setfit(given) else restored
    host = (SetFitHost if is_setfit(given) else ArgumentsHost)(
        restore(given, earlier),  # a second call starts from the user's own values again, not from those of the first
        request,
        explicit=earlier.explicit | frozenset(training_arguments),
        is_complete=earlier.is_complete or args is None,
        model=model,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
    )
    tune(host, request)
    return given if host.result is None else host.result


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
        instead = "Before there is one, use autoconfig on its arguments."
        if hasattr(type(trainer), "train_classifier"):
            instead = "SetFit's is none; use trainer.args = autoconfig(trainer.args, model=..., train_dataset=...)."
        raise InvalidArgumentError(f"apply needs a built transformers.Trainer, but got {type(trainer).__name__}. {instead}")
    if is_off():
        return None
    beside = _callback_beside(trainer)
    given = {"task": task, "objective": objective, "direction": direction, "history": history}
    found: dict[str, Any] = {name: getattr(beside, name, None) if value is None else value for name, value in given.items()}
    watch(trainer)
    request = check_request(**found, space=space, keep=keep, mode=mode)
    return tune(TrainerHost(trainer, request), request).recommendation


def _build(args: TrainingArguments | None, args_class: type[TrainingArguments], keywords: dict[str, Any]) -> TrainingArguments:
    if args is not None:
        if not isinstance(args, TrainingArguments) and not is_setfit(args):
            raise InvalidArgumentError(
                f"The arguments to rewrite must be TrainingArguments or a subclass, but got {type(args).__name__}: {args!r:.80}. "
                "Pass TrainingArguments(...), or only keywords: autoconfig(output_dir='out', model=model, train_dataset=data)."
            )
        _check_keywords(type(args), keywords)
        if is_setfit(args):
            return dataclasses.replace(args, **keywords) if keywords else args
        return rewritten(args, keywords) if keywords else args
    if not (isinstance(args_class, type) and issubclass(args_class, TrainingArguments)) and not is_setfit_class(args_class):
        raise InvalidArgumentError(
            f"args_class must be TrainingArguments or a subclass, but got {args_class!r}. Pass the class, not an instance."
        )
    _check_keywords(args_class, keywords)
    return args_class(**keywords)


def _check_keywords(cls: type[TrainingArguments], keywords: Mapping[str, Any]) -> None:
    """Check that keywords are fields; what else ``autoconfig`` takes is offered as well, since a typo may be of either kind.

    Raises:
        UnknownHyperparameterError: If one is not.
    """
    parameters = inspect.signature(cls).parameters
    known, takes_any = set(parameters), any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    for name in keywords:
        if not takes_any and name not in known:
            own = {item.name for item in inspect.signature(autoconfig).parameters.values() if item.kind is item.KEYWORD_ONLY}
            near = difflib.get_close_matches(name, sorted(known | own), n=3, cutoff=0.55)
            nearest = f"nearest are {', '.join(map(repr, near))}. Did you mean {near[0]!r}?" if near else "leave it out."
            raise UnknownHyperparameterError(
                f"A keyword of autoconfig must be one of its own or a field of {plain_class(cls).__name__}, but got {name!r}; {nearest}"
            )


def _callback_beside(trainer: Trainer) -> TrainerCallback | None:
    from hf_callbacks.callback import MetaHPCallback

    return next((item for item in trainer.callback_handler.callbacks if isinstance(item, MetaHPCallback)), None)
