"""From a fit that is about to start to what would be rewritten, why, and what is said about it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp import dropout
from lightning_metahp.host import loaders_passed_to_fit, optimizer_is_replaced
from lightning_metahp.objective import Objective
from lightning_metahp.refusals import Surroundings, without_fixed
from lightning_metahp.settings import TRAINER_FIELDS, datamodule_of, loaded_batch_size, trainer_settings
from lightning_metahp.task_readout import describe_task, peek_at_loaders
from lightning_metahp.written_optimizer import written_optimizer
from metahp_tuning.messages import start_message
from metahp_tuning.precedence import Change, Constraint, Kept, Setting, check_names, rewritable
from metamodel.data.task import TaskDescription
from metamodel.evidence_floor import without_history
from metamodel.explanation import format_value
from metamodel.recommendation import Recommendation, load_recommendation, save_recommendation
from metamodel.space.batch import BatchLayout
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE, conservative_names
from store.ids import task_id_of
from store.names import canonical_name, canonical_names
from store.paths import is_new_history, resolve_path
from store.switches import pinned_recommendation

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
        out_of_reach: Hooks of the module that have run already, or that nobody will call.
        is_resume_known: Whether it is known if this run resumes another.
    """

    trainer: Trainer
    module: LightningModule
    space: Mapping[str, Any] | None = None
    task: str | TaskDescription | None = None
    objective: Objective | None = None
    mode: str = "best"
    keep: tuple[str, ...] = ()
    max_startup_s: float = 10.0
    out_of_reach: tuple[str, ...] = ()
    is_resume_known: bool = True

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """What could be rewritten, by canonical name, as it is before anything is."""
        return _settings_of(self)

    @cached_property
    def around(self) -> Surroundings:
        """What decides whether a value can still be changed."""
        return Surroundings(self.trainer, self.module, self.out_of_reach, self.is_resume_known)


@dataclass(frozen=True, slots=True)
class Unsaved:
    """An abstention that waits for the history in which it is going to stand, and what the user's own configuration was."""

    recommendation: Recommendation
    current: Mapping[str, Any]

    def save(self, history: History) -> None:
        """Write it."""
        save_recommendation(history, self.recommendation, current=self.current, changes=[])


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be rewritten and what to say about it; ``recommendation_id`` is None where none is followed."""

    recommendation_id: str | None = None
    changes: tuple[Change, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One decision on its way: what may change, what is known, and how the batch is put together."""

    request: Request
    allowed: Mapping[str, Setting]
    kept: Sequence[Kept]
    description: TaskDescription
    constraints: Sequence[Constraint]
    layout: BatchLayout | None
    note: str
    seconds: float

    @property
    def space(self) -> dict[str, Any] | None:
        """The user's own space without what cannot be changed."""
        if self.request.space is None:
            return None
        return {raw: values for raw, values in self.request.space.items() if _knob(raw) in self.allowed}

    @property
    def max_per_device(self) -> float | None:
        """Largest batch that a device may load."""
        return min((limit.high for limit in self.constraints), default=None)


def check_request(request: Request) -> None:
    """Check the names a user wrote against those that exist.

    Raises:
        UnknownHyperparameterError: If ``space`` or ``keep`` names something that neither module nor datamodule has.
    """
    settings = request.settings
    datamodule = datamodule_of(request.trainer)
    where = type(request.module).__name__ + (f" or {type(datamodule).__name__}" if datamodule is not None else "")
    available = sorted(setting.raw_name for setting in settings.values())
    check_names(request.keep, [*available, *request.around.told, *sorted(conservative_names())], where)
    if request.space is None:
        return
    advice = "Use one of these names, or save_hyperparameters() with it."
    if optimizer_is_replaced(request.module):
        advice = "LightningCLI builds the optimizer itself, before any callback: use MetaHPCLI, which rewrites its arguments."
    asked = [raw for raw in request.space if not (canonical_name(raw) == GLOBAL_BATCH_SIZE and PER_DEVICE_BATCH_SIZE in settings)]
    check_names(asked, available, where, advice)


class Reach:
    """A history that is opened when it is first needed: where there is none yet, nothing has to be made or imported to know so.

    Args:
        given: A history, its path, or None for the default one.

    Attributes:
        unsaved: What is to be saved once the run opens the history.

    Raises:
        HistoryPathError: If it is no path.
    """

    def __init__(self, given: History | str | os.PathLike[str] | None) -> None:
        self._given = given
        self._opened: History | None = None
        self.unsaved: Unsaved | None = None
        is_path = given is None or isinstance(given, str | os.PathLike)
        self.is_new = is_path and is_new_history(resolve_path(given))  # type: ignore[arg-type]  # it is a path

    @property
    def history(self) -> History:
        """The open history."""
        from store import open_history

        if self._opened is None:
            self._opened = open_history(self._given)
        return self._opened

    def close(self) -> None:
        """Close what was opened here."""
        if self._opened is not None and self._opened is not self._given:
            self._opened.close()


def decide(request: Request, reach: Reach) -> Plan:
    """Decide what to rewrite, and store the recommendation.

    Args:
        request: A checked request.
        reach: Where the history is.

    Raises:
        UnknownRecommendationError: If ``METAHP_PIN`` names no stored recommendation.
    """
    started = time.monotonic()
    settings = request.settings
    names = None if request.space is None else [_knob(raw) for raw in request.space]
    allowed, kept = rewritable(settings, names, [_knob(raw) for raw in request.keep])
    allowed, kept = without_fixed(request.around, allowed, kept)
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
        known = _objective_before(description, reach)
        if known is None:
            return Plan(
                message="metahp: nothing changed; the objective is not known before the first validation and no earlier run of this "
                "task says it. Pass it: MetaHParams(objective='val_loss'), or set monitor= of ModelCheckpoint."
            )
        description = description.with_objective(known.name, known.direction.value)
        note = f"The objective {known.name} ({known.direction.value}) is that of earlier runs of this task."
    seconds = max(_MIN_FIT_S, request.max_startup_s - (time.monotonic() - started))
    constraints = _constraints(request, description, reach) if PER_DEVICE_BATCH_SIZE in allowed else []
    case = Case(request, allowed, kept, description, constraints, _layout(request, settings, loaders), note, seconds)
    return _recommend(case, reach)


def _objective_before(description: TaskDescription, reach: Reach) -> Objective | None:
    if reach.is_new:
        return None
    from lightning_metahp.asking import objective_of_earlier_runs

    return objective_of_earlier_runs(reach.history, description)


def _recommend(case: Case, reach: Reach) -> Plan:
    request = case.request
    current = _current(request, case.layout)
    pinned = pinned_recommendation()
    is_dry = request.mode == "dry-run"
    if reach.is_new and not pinned:
        task_id = task_id_of(case.description.identity())
        spoken = {canonical_name(name): value for name, value in current.items()}
        nothing = without_history(case.description, spoken, "best" if is_dry else request.mode, task_id)
        if nothing is not None:
            reach.unsaved = Unsaved(nothing, current)
            note = f"{case.note} Dry run: nothing was rewritten.".strip() if is_dry else case.note
            return Plan(None if is_dry else nothing.id, (), start_message(nothing, (), case.kept, case.description.objective, note))
    from lightning_metahp.asking import ask, planned_changes

    history = reach.history
    recommendation = load_recommendation(history, pinned) if pinned else ask(case, history, current)
    changes = planned_changes(recommendation, case.allowed, case.constraints, case.layout, case.space, case.max_per_device)
    applied = () if is_dry else tuple(changes)
    if not pinned:  # the stored one says what was first rewritten, and must keep saying it
        save_recommendation(history, recommendation, current=current, changes=[change.to_dict() for change in applied])
    notes = [recommendation.evidence.note, case.note, "Dry run: nothing was rewritten." if is_dry else ""]
    note = " ".join(text for text in notes if text)
    message = start_message(recommendation, changes, case.kept, case.description.objective, note)
    return Plan(None if is_dry else recommendation.id, applied, message)


def _settings_of(request: Request) -> dict[str, Setting]:
    """Return what could be rewritten, by canonical name.

    A batch size is there even where only a loader has it; dropout where only layers have it, and the Trainer's own values, are there
    where the space names them.
    """
    own = request.around.own
    names = canonical_names(list(own))
    settings = {names[raw]: setting for raw, setting in own.items() if "." not in raw}
    passed = loaded_batch_size(loaders_passed_to_fit(request.trainer))
    if passed is not None and PER_DEVICE_BATCH_SIZE not in settings:
        settings[PER_DEVICE_BATCH_SIZE] = Setting(PER_DEVICE_BATCH_SIZE, passed)
    wanted = {canonical_name(raw): raw for raw in request.space or ()}
    if "dropout" in wanted and "dropout" not in settings and dropout.rates(request.module):
        settings["dropout"] = Setting("dropout", dropout.rates(request.module)[0])
    for name in wanted.keys() & TRAINER_FIELDS.keys():
        settings[name] = request.around.told[TRAINER_FIELDS[name]]
    return settings


def _knob(raw: str) -> str:
    """Return the canonical name of what is rewritten: a global batch is reached through the samples per device."""
    name = canonical_name(raw)
    return PER_DEVICE_BATCH_SIZE if name == GLOBAL_BATCH_SIZE else name


def _layout(request: Request, settings: Mapping[str, Setting], loaders: Any) -> BatchLayout | None:
    size = settings[PER_DEVICE_BATCH_SIZE].value if PER_DEVICE_BATCH_SIZE in settings else loaded_batch_size(loaders)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        return None
    return BatchLayout(size, max(1, request.trainer.accumulate_grad_batches), max(1, request.trainer.world_size))


def _current(request: Request, layout: BatchLayout | None) -> dict[str, Any]:
    own = {setting.raw_name: setting.value for setting in request.settings.values()}
    # Read anew: making the loaders may have set a seed.
    told = {name: setting.value for name, setting in trainer_settings(request.trainer).items()}
    written = {} if optimizer_is_replaced(request.module) else written_optimizer(request.module)
    taken = {canonical_name(raw) for raw in own}
    written = {name: value for name, value in written.items() if name not in taken}
    return {**told, **written, **own, **({} if layout is None else {GLOBAL_BATCH_SIZE: layout.global_size})}


def _constraints(request: Request, description: TaskDescription, reach: Reach) -> list[Constraint]:
    """Hard limits on what a device loads: its share of the data set, and the memory of its card."""
    found = []
    if description.n_train:
        share = max(1, description.n_train // max(1, request.trainer.world_size))
        found.append(Constraint(PER_DEVICE_BATCH_SIZE, share, f"the data set has {description.n_train} samples"))
    if not reach.is_new:
        from metahp_tuning.memory_limit import known_limit, this_card

        memory = known_limit(reach.history, description, this_card(), str(request.trainer.precision))
        if memory is not None:
            found.append(Constraint(PER_DEVICE_BATCH_SIZE, memory.max_per_device, memory.reason))
    # plan_changes knows one limit for each name.
    return sorted(found, key=lambda limit: limit.high)[:1]


def _nothing_left(request: Request, kept: Sequence[Kept]) -> str:
    reason = "nothing that may be rewritten is left"
    if optimizer_is_replaced(request.module):
        reason += " (LightningCLI builds the optimizer itself, before any callback; MetaHPCLI rewrites its arguments)"
    elif not request.settings:
        reason = f"{type(request.module).__name__} has no hyperparameters; call self.save_hyperparameters() in its __init__"
    lines = [f"metahp: nothing changed; {reason}"]
    return "\n".join(lines + [f"  {item.raw_name} stays {format_value(item.value)}: {item.reason}" for item in kept])
