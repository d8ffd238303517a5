"""``autoconfig``: training arguments in, training arguments out, improved by the history where the user has set nothing."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import TrainingArguments

from hf_callbacks.arguments import check_arguments, restored, rewritten
from hf_callbacks.arguments_host import ArgumentsHost
from hf_callbacks.provenance import plain_class, provenance_of
from metahp_tuning.decision import tune
from metahp_tuning.host import check_request
from store.errors import InvalidArgumentError, UnknownHyperparameterError
from store.switches import is_off

if TYPE_CHECKING:
    from metamodel.data.task import TaskDescription
    from store import History


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

    Learning rate, weight decay, warm-up, gradient clipping and the batch may be rewritten; anything else only where ``space`` names it. The
    meta-model chooses a global batch; the per-device size follows from accumulation and processes. Keywords are explicit and win, unless
    ``space`` lists the name: then the value passed is the fallback. In ready-made arguments a field that differs from the class default
    counts as explicit, since the host does not record what the user set. ``task``, ``objective`` and ``direction`` travel on the arguments,
    and a bare ``MetaHPCallback()`` takes them from there. Arguments with ``resume_from_checkpoint`` get back what the checkpoint's run was
    made with; nothing is predicted for them. A history that does not exist yet is made when the run is recorded, not here. ``METAHP=off``
    returns what was given, ``METAHP_PIN=<id>`` applies that recommendation again.

    Args:
        args: Ready-made arguments of any subclass; None to build them from the keywords.
        model: The model to be trained; with the data it identifies the task.
        train_dataset: The training data, as it will be given to the Trainer.
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
    earlier = provenance_of(given)
    host = ArgumentsHost(
        restored(given, earlier),  # a second call starts from the user's own values again, not from those of the first
        request,
        explicit=earlier.explicit | frozenset(training_arguments),
        model=model,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
    )
    tune(host, request)
    return given if host.result is None else host.result


def _build(args: TrainingArguments | None, args_class: type[TrainingArguments], keywords: dict[str, Any]) -> TrainingArguments:
    if args is not None:
        checked = check_arguments(args)
        _check_keywords(type(checked), keywords)
        return rewritten(checked, keywords) if keywords else checked
    if not (isinstance(args_class, type) and issubclass(args_class, TrainingArguments)):
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
