"""From a user's training arguments to what would be rewritten, why, and what is said about it.

``autoconfig`` and ``apply`` share everything here; they differ only in where the values then go.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainingArguments

from hf_callbacks.arguments import WARM_UP, plain_value, precision_of, read_arguments, read_settings, tunable_fields, warm_up_ratio
from hf_callbacks.describe_trainer import check_task, describe_task, describe_variant, read_model_config
from hf_callbacks.fixed_fields import EVERY_FIELD
from hf_callbacks.model_values import model_settings
from hf_callbacks.objective import Objective
from hf_callbacks.space_values import check_values_of
from hf_callbacks.spaces import (
    CONSERVATIVE,
    WARM_UP_RATIO,
    BatchPlan,
    check_names_of,
    checked_space,
    current_values,
    permitted_names,
    settings_for,
)
from metahp_tuning.memory_limit import known_limit, this_card
from metahp_tuning.messages import start_message
from metahp_tuning.precedence import Change, Constraint, Kept, Setting, check_keep, plan_changes, rewritable
from metamodel.data.task import TaskDescription
from metamodel.explanation import format_value
from metamodel.recommendation import Recommendation, load_recommendation, save_recommendation
from store.errors import (
    HistoryPathError,
    HistoryTooNewError,
    InvalidArgumentError,
    NotAHistoryError,
    SpaceError,
    UnknownHyperparameterError,
    UnknownRecommendationError,
)
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.names import canonical_name
from store.switches import pinned_recommendation

if TYPE_CHECKING:
    from store import History

logger = logging.getLogger(__name__)

MODES = ("best", "explore", "dry-run")

_USERS_MISTAKES = (SpaceError, UnknownHyperparameterError, UnknownRecommendationError, InvalidArgumentError)
_UNUSABLE_HISTORY = (HistoryPathError, NotAHistoryError, HistoryTooNewError)


@dataclass(frozen=True)
class Request:
    """What a user asks for, checked.

    Attributes:
        args: The training arguments as they would be without us.
        explicit: Fields passed as keywords.
        model: The model, None if it does not exist yet.
        train_dataset: Training data, None if unknown.
        eval_dataset: Validation data, None if unknown.
        task: Explicit name or description.
        space: The user's space, None for the conservative one.
        objective: The objective found.
        history: History, path or None.
        keep: Names never to touch.
        mode: One of ``MODES``.
        frozen: Canonical name, or ``*`` for every name, -> why it cannot be changed any more.
        of_model: Canonical name -> what of the model's configuration can be rewritten from here.
    """

    args: TrainingArguments
    explicit: frozenset[str] = frozenset()
    model: nn.Module | None = None
    train_dataset: object = None
    eval_dataset: object = None
    task: str | TaskDescription | None = None
    space: Mapping[str, Any] | None = None
    objective: Objective = field(default_factory=Objective)
    history: History | str | os.PathLike[str] | None = None
    keep: Collection[str] | str = ()
    mode: str = "best"
    frozen: Mapping[str, str] = field(default_factory=dict)
    of_model: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is rewritten, and what to say about it. Without a recommendation nothing was asked for or nothing came.

    Attributes:
        recommendation: What was recommended.
        changes: What is to be written.
        message: What to tell the user.
        is_failed: Whether something of ours went wrong; it was warned about, and the user's arguments are to be left as they are.
    """

    recommendation: Recommendation | None = None
    changes: tuple[Change, ...] = ()
    message: str = ""
    is_failed: bool = False


def check_request(request: Request) -> Request:
    """Return the request with everything a user may get wrong checked.

    Raises:
        InvalidArgumentError: If the mode, the task or an entry of ``keep`` is none.
        SpaceError: If the space is malformed, or holds a value that its field cannot have.
        UnknownHyperparameterError: If ``space`` or ``keep`` names a field the arguments do not have.
    """
    if request.mode not in MODES:
        raise InvalidArgumentError(f"A mode must be one of {', '.join(map(repr, MODES))}, but got {request.mode!r}. Pass one of them.")
    check_task(request.task)
    keep = check_keep(request.keep)
    available = [*tunable_fields(type(request.args)), *(setting.raw_name for setting in request.of_model.values())]
    elsewhere = [setting.raw_name for setting in model_settings(request.model).values()]
    check_names_of([name for name in keep if canonical_name(name) not in CONSERVATIVE], request.args, [*available, *elsewhere], ())
    space = request.space
    if space is not None:
        space = checked_space(space)
        check_names_of(list(space), request.args, available, elsewhere)
        check_values_of(space, request.args)
    if {WARM_UP, WARM_UP_RATIO} & {canonical_name(name) for name in keep}:
        keep = (*keep, WARM_UP, WARM_UP_RATIO)  # two names of one field
    return replace(request, keep=keep, space=space)


def agree(request: Request) -> Plan:
    """Decide on process zero and give every process the same answer.

    Each process runs the user's script; if each asked the history itself, a run that finishes in between would give them
    different learning rates.

    Args:
        request: A checked request.

    Returns:
        The plan; a failed one where something of ours went wrong, which is warned about.

    Raises:
        MetaHPError: If the user made a mistake which only shows here, e.g. an unknown METAHP_PIN.
    """
    answer = from_process_zero(request.args, lambda: _decide_safely(request))
    return answer if isinstance(answer, Plan) else Plan(is_failed=True)


def from_process_zero(args: TrainingArguments, compute: Callable[[], Any]) -> Any:
    """Compute something on process zero and give every process the same answer.

    Args:
        args: The training arguments.
        compute: What to compute; every process must come here, only the first one calls it.

    Raises:
        Exception: What ``compute`` raises, on every process.
    """
    distributed = torch.distributed
    if args.world_size <= 1 or not (distributed.is_available() and distributed.is_initialized()):
        return compute()
    answer: list[Any] = [None]
    if args.process_index == 0:
        try:
            answer = [compute()]
        except Exception as error:  # the others wait for an answer, and this is one
            answer = [error]
    distributed.broadcast_object_list(answer, src=0)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def say(args: TrainingArguments, message: str) -> None:
    """Print a message to stderr, on process zero only."""
    if message and args.process_index == 0:
        print(message, file=sys.stderr, flush=True)


def _decide_safely(request: Request) -> Plan:
    try:
        return _decide(request)
    except _USERS_MISTAKES:
        raise
    except _UNUSABLE_HISTORY as error:
        if request.history is not None:
            raise
        return _give_up(error)  # a default place that cannot be used must not cost a run, e.g. in a read-only container
    except Exception as error:  # advice must never stop a training
        return _give_up(error)


def _give_up(error: Exception) -> Plan:
    logger.warning("metahp: nothing changed; no recommendation could be made: %s: %s", type(error).__name__, error)
    logger.debug("The reason in full:", exc_info=error)
    return Plan(is_failed=True)


def _decide(request: Request) -> Plan:
    settings = settings_for(request.space, {**read_settings(request.args, request.explicit), **request.of_model})
    names = None if request.space is None else permitted_names(request.space)
    allowed, kept = rewritable(settings, names, request.keep, CONSERVATIVE)
    allowed, kept = _without_frozen(allowed, kept, request.frozen)
    if not allowed:
        return Plan(message=_hands_off(kept))
    description = describe_task(
        request.args,
        model=request.model,
        train_dataset=request.train_dataset,
        eval_dataset=request.eval_dataset,
        task=request.task,
        objective=request.objective,
    )
    made = read_model_config(request.model, read_arguments(request.args)).values
    current = current_values(request.args, made, warm_up_ratio(request.args))
    with _Opened(request.history) as history:
        constraints = _constraints(history, request.args, description)
        batch = BatchPlan(request.args, _space_of(request, allowed), min((limit.high for limit in constraints), default=None))
        recommendation = _recommendation(history, request, description, allowed, current, batch)
        to_write = replace(recommendation, config=batch.fields(recommendation.config))
        changes = [_typed(change) for change in plan_changes(allowed, to_write, constraints)]
        applied = [] if request.mode == "dry-run" else changes
        if not pinned_recommendation():  # the stored one says what was first rewritten, and must keep saying it
            save_recommendation(history, recommendation, current=current, changes=[change.to_dict() for change in applied])
    note = " ".join(_notes(request, description, recommendation))
    message = start_message(recommendation, changes, kept, request.objective.name, note)
    return Plan(recommendation, tuple(applied), message)


def _space_of(request: Request, allowed: Mapping[str, Setting]) -> dict[str, Any] | None:
    """Return the user's space without what may not be rewritten."""
    if request.space is None:
        return None
    free = {*allowed, GLOBAL_BATCH_SIZE} if PER_DEVICE_BATCH_SIZE in allowed else {*allowed}
    return {raw: values for raw, values in request.space.items() if canonical_name(raw) in free}


def _recommendation(
    history: History,
    request: Request,
    description: TaskDescription,
    allowed: Mapping[str, Setting],
    current: Mapping[str, Any],
    batch: BatchPlan,
) -> Recommendation:
    pinned = pinned_recommendation()
    if pinned:
        return load_recommendation(history, pinned)
    from metamodel import recommend

    return recommend(
        history,
        task=description,
        space=batch.asked,
        mode="best" if request.mode == "dry-run" else request.mode,
        current=current,
        allowed=list(allowed),
        limits=batch.limits,
        variant=None if request.model is None else describe_variant(request.model),
    )[0]


def _without_frozen(allowed: Mapping[str, Setting], kept: list[Kept], frozen: Mapping[str, str]) -> tuple[dict[str, Setting], list[Kept]]:
    free: dict[str, Setting] = {}
    kept = list(kept)
    for name, setting in allowed.items():
        reason = frozen.get(name, frozen.get(EVERY_FIELD))
        if reason is None:
            free[name] = setting
        else:
            kept.append(Kept(name, setting.raw_name, setting.value, reason))
    return free, kept


def _constraints(history: History, args: TrainingArguments, description: TaskDescription) -> list[Constraint]:
    """Return what limits a batch per device, the tightest limit only: the data, or a memory known to be too small."""
    limits: list[Constraint] = []
    if description.n_train:
        share = max(1, description.n_train // max(1, args.world_size * max(1, args.n_gpu)))
        limits.append(Constraint(PER_DEVICE_BATCH_SIZE, share, f"the data set has {description.n_train} samples"))
    known = known_limit(history, description, this_card(), precision_of(args))
    if known is not None:
        limits.append(Constraint(PER_DEVICE_BATCH_SIZE, known.max_per_device, known.reason))
    return sorted(limits, key=lambda limit: limit.high)[:1]


def _typed(change: Change) -> Change:
    """Give a value the type of the field: models recommend 32.0 where the host counts with 32, and text where it has an enum."""
    new = plain_value(change.new)
    if isinstance(change.old, int) and not isinstance(change.old, bool) and isinstance(new, float) and new.is_integer():
        new = int(new)
    return replace(change, new=new)


def _hands_off(kept: Collection[Kept]) -> str:
    lines = ["metahp: nothing changed; nothing that may be rewritten is left"]
    return "\n".join(lines + [f"  {item.raw_name} stays {format_value(item.value)}: {item.reason}" for item in kept])


def _notes(request: Request, description: TaskDescription, recommendation: Recommendation) -> list[str]:
    notes = [recommendation.evidence.note] if recommendation.evidence.note else []
    if request.mode == "dry-run":
        notes.append("Dry run: nothing was rewritten.")
    if not description.is_identified:
        missing = [name for name in ("model", "train_dataset") if getattr(request, name) is None]
        notes.append(f"Pass {' and '.join(name + '=' for name in missing) or 'task='} so that the task can be recognised.")
    if request.objective.problem:
        notes.append(request.objective.problem)
    return notes


class _Opened:
    """Open a history for a block; one that the user opened stays open afterwards."""

    def __init__(self, history: History | str | os.PathLike[str] | None) -> None:
        self._given = history
        self._close: Callable[[], None] | None = None

    def __enter__(self) -> History:
        from store import History, open_history

        history = open_history(self._given)
        if not isinstance(self._given, History):
            self._close = history.close
        return history

    def __exit__(self, *exc_info: object) -> None:
        if self._close is not None:
            self._close()
