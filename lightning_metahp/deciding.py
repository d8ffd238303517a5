"""From a fit that is about to start to what would be rewritten, why, and what is said about it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.host import fields_of_finders, loaders_passed_to_fit
from lightning_metahp.objective import Objective
from lightning_metahp.settings import datamodule_of, loaded_batch_size, own_settings, trainer_settings
from lightning_metahp.source_reads import later_reads
from lightning_metahp.task_readout import describe_task, peek_at_loaders
from metamodel.explanation import format_value, start_message
from metamodel.model_source import model_variant
from metamodel.precedence import (
    CONSERVATIVE_NAMES,
    Change,
    Constraint,
    Kept,
    Setting,
    check_names,
    plan_changes,
    rewritable,
)
from metamodel.recommendation import Recommendation, load_recommendation, save_recommendation
from metamodel.task import TaskDescription
from store.names import Direction, canonical_name, canonical_names

if TYPE_CHECKING:
    from store import History

MODES = ("best", "explore", "dry-run")
_MIN_FIT_S = 0.1
"""Left for fitting a model even where looking at the data took all the time there was."""


@dataclass(frozen=True)
class Request:
    """What a user asks for, checked.

    Attributes:
        trainer: The trainer, in its ``setup``.
        module: The module.
        space: The user's space, None for the conservative one.
        task: Explicit name or description, None to recognise it.
        objective: The objective as far as it is known.
        mode: One of ``MODES``.
        keep: Names never to touch.
        max_startup_s: Time for everything, in seconds.
    """

    trainer: Trainer
    module: LightningModule
    space: Mapping[str, Any] | None = None
    task: str | TaskDescription | None = None
    objective: Objective | None = None
    mode: str = "best"
    keep: tuple[str, ...] = ()
    max_startup_s: float = 10.0


@dataclass(frozen=True)
class Plan:
    """What is to be rewritten and what to say about it; ``recommendation_id`` is None where none is followed."""

    recommendation_id: str | None = None
    changes: tuple[Change, ...] = ()
    message: str = ""


def check_request(request: Request) -> None:
    """Check the names a user wrote against those that exist.

    Raises:
        UnknownHyperparameterError: If ``space`` or ``keep`` names something that neither module nor datamodule has.
    """
    settings = _settings(request)
    datamodule = datamodule_of(request.trainer)
    where = type(request.module).__name__ + (f" or {type(datamodule).__name__}" if datamodule is not None else "")
    available = sorted(setting.raw_name for setting in settings.values())
    check_names(request.keep, [*available, *trainer_settings(request.trainer), *sorted(CONSERVATIVE_NAMES)], where)
    if request.space is not None:
        check_names(list(request.space), available, where)


def decide(request: Request, history: History) -> Plan:
    """Decide what to rewrite, and store the recommendation.

    Args:
        request: A checked request.
        history: Open history.

    Raises:
        UnknownRecommendationError: If ``METAHP_PIN`` names no stored recommendation.
    """
    started = time.monotonic()
    allowed, kept = rewritable(_settings(request), None if request.space is None else list(request.space), request.keep)
    allowed, kept = _without_fixed(request, allowed, kept)
    if not allowed:
        return Plan(message=_nothing_left(request, kept))
    loaders = peek_at_loaders(request.trainer, request.module)
    description = describe_task(
        request.trainer,
        request.module,
        loaders,
        task=request.task,
        objective=request.objective,
        tunable=tuple(request.space or ()),
    )
    if not description.is_identified:
        return Plan(
            message="metahp: nothing changed; the training data cannot be seen before the start, so the task is not known. "
            "Pass task='a name for it' to MetaHParams, or give the LightningDataModule or module a train_dataloader() that works "
            "before the module's setup()."
        )
    note = ""
    if description.objective is None:
        known = objective_of_earlier_runs(history, description)
        if known is None:
            return Plan(
                message="metahp: nothing changed; the objective is not known before the first validation and no earlier run of this "
                "task says it. Pass it: MetaHParams(objective='val_loss'), or set monitor= of ModelCheckpoint."
            )
        description = description.with_objective(known.name, known.direction.value)
        note = f"The objective {known.name} ({known.direction.value}) is that of earlier runs of this task."
    seconds = max(_MIN_FIT_S, request.max_startup_s - (time.monotonic() - started))
    return _recommend(request, history, description, allowed, kept, note, seconds)


def objective_of_earlier_runs(history: History, description: TaskDescription) -> Objective | None:
    """Return the objective that the newest task of the same name, or of the same data and model, was trained for."""
    wanted = _without_objective(description.identity())
    tasks = [task for task in history.tasks() if task.objective is not None and _without_objective(task.identity) == wanted]
    newest = max(tasks, key=lambda task: task.last_run_utc or "", default=None)
    if newest is None or newest.objective is None or newest.direction is None:
        return None
    return Objective(newest.objective, Direction(newest.direction))


def _without_objective(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in ("objective", "direction")}


def _recommend(
    request: Request,
    history: History,
    description: TaskDescription,
    allowed: Mapping[str, Setting],
    kept: Sequence[Kept],
    note: str,
    seconds: float,
) -> Plan:
    current = _current(request)
    pinned = os.environ.get("METAHP_PIN")
    recommendation = load_recommendation(history, pinned) if pinned else _ask(request, history, description, allowed, current, seconds)
    is_dry = request.mode == "dry-run"
    changes = [_typed(change) for change in plan_changes(allowed, recommendation, _constraints(request, description))]
    applied = () if is_dry else tuple(changes)
    if not pinned:  # the stored one says what was first rewritten, and must keep saying it
        save_recommendation(history, recommendation, current=current, changes=[change.to_dict() for change in applied])
    notes = [recommendation.evidence.note, note, "Dry run: nothing was rewritten." if is_dry else ""]
    message = start_message(recommendation, changes, kept, description.objective, " ".join(text for text in notes if text))
    return Plan(None if is_dry else recommendation.id, applied, message)


def _ask(
    request: Request,
    history: History,
    description: TaskDescription,
    allowed: Mapping[str, Setting],
    current: Mapping[str, Any],
    seconds: float,
) -> Recommendation:
    from metamodel import recommend

    space = None
    if request.space is not None:
        space = {raw: values for raw, values in request.space.items() if canonical_name(raw) in allowed}
    return recommend(
        history,
        task=description,
        space=space,
        mode="best" if request.mode == "dry-run" else request.mode,
        current=current,
        allowed=list(allowed),
        variant=model_variant(request.module),
        max_fit_s=seconds,
    )[0]


def _settings(request: Request) -> dict[str, Setting]:
    """Return what could be rewritten, by canonical name; a batch size is there even where only a loader has it."""
    own = own_settings(request.module, datamodule_of(request.trainer))
    names = canonical_names(list(own))
    settings = {names[raw]: setting for raw, setting in own.items() if "." not in raw}
    passed = loaded_batch_size(loaders_passed_to_fit(request.trainer))
    if passed is not None and "batch_size" not in settings:
        settings["batch_size"] = Setting("batch_size", passed)
    return settings


def _current(request: Request) -> dict[str, Any]:
    own = {setting.raw_name: setting.value for setting in _settings(request).values()}
    return {**{name: setting.value for name, setting in trainer_settings(request.trainer).items()}, **own}


def _without_fixed(request: Request, allowed: Mapping[str, Setting], kept: Collection[Kept]) -> tuple[dict[str, Setting], list[Kept]]:
    """Take out what is no longer ours to change, with the reason."""
    free: dict[str, Setting] = {}
    fixed = list(kept)
    for name, setting in allowed.items():
        reason = _why_fixed(request, name, setting)
        if reason is None:
            free[name] = setting
        else:
            fixed.append(Kept(name, setting.raw_name, setting.value, reason))
    return free, fixed


def _why_fixed(request: Request, name: str, setting: Setting) -> str | None:
    for field, finder in fields_of_finders(request.trainer, request.module).items():
        if setting.raw_name == field or canonical_name(field) == name:
            return f"{finder} sets it"
    spellings = sorted(raw for raw in own_settings(request.module, datamodule_of(request.trainer)) if canonical_name(raw) == name)
    if len(spellings) > 1:
        return f"{' and '.join(spellings)} both mean {name}, and nobody could tell which one a recommendation is for; rename one"
    if name == "batch_size" and loaders_passed_to_fit(request.trainer) is not None:
        return "the loaders were passed to fit() and are fixed; a LightningDataModule with a batch_size can be tuned"
    holders = [holder for holder in (request.module, datamodule_of(request.trainer)) if holder is not None]
    reads = [later_reads(holder) for holder in holders]
    if any(found.reads(setting.raw_name) for found in reads):
        return None
    if name == "batch_size" and len(holders) == 2:
        return f"only {reads[1].where} reads it, which has already run; read self.hparams.{setting.raw_name} in train_dataloader()"
    return f"only {reads[0].where} reads it, which has already run"


def _constraints(request: Request, description: TaskDescription) -> list[Constraint]:
    if not description.n_train:
        return []
    share = max(1, description.n_train // max(1, request.trainer.world_size))
    return [Constraint("batch_size", share, f"the data set has {description.n_train} samples")]


def _typed(change: Change) -> Change:
    """Give a number the type of the value it replaces: models recommend 32.0 where a loader counts with 32."""
    new = change.new.item() if hasattr(change.new, "item") else change.new
    is_count = isinstance(change.old, int) and not isinstance(change.old, bool)
    if is_count and isinstance(new, float) and new.is_integer():
        new = int(new)
    if isinstance(change.old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    return replace(change, new=new)


def _nothing_left(request: Request, kept: Sequence[Kept]) -> str:
    reason = "nothing that may be rewritten is left"
    if not _settings(request):
        reason = f"{type(request.module).__name__} has no hyperparameters; call self.save_hyperparameters() in its __init__"
    lines = [f"metahp: nothing changed; {reason}"]
    return "\n".join(lines + [f"  {item.raw_name} stays {format_value(item.value)}: {item.reason}" for item in kept])
