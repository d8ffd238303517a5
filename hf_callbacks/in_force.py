"""What is really in force once training starts: read back from the optimizer, the schedule and the loader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import Trainer, TrainerState, TrainingArguments

from hf_callbacks.arguments import (
    WARM_UP,
    RecordedHParams,
    argument_values,
    global_batch_size,
    is_ratio,
    precision_of,
    warm_up_ratio,
)
from hf_callbacks.provenance import Provenance, provenance_of
from hf_callbacks.trainer_kind import is_users_class
from metahp_tuning.configured_values import read_model_value
from metahp_tuning.optimizer_description import group_values, read_optimizer, read_scheduler, value_in_force
from metamodel.explanation import format_value
from store.hyperparameters import PER_DEVICE_BATCH_SIZE, REGISTRY, TRANSFORMERS, trainer_fields
from store.statuses import Source
from store.values import same_value

FIELDS_OF_TRAINER = trainer_fields(TRANSFORMERS)
BATCH_FIELD = FIELDS_OF_TRAINER[PER_DEVICE_BATCH_SIZE]

_MAKERS = frozenset({"create_optimizer", "create_optimizer_and_scheduler", "get_optimizer_cls_and_kwargs"})
"""Methods of the Trainer by which a subclass makes the optimizer itself."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What was read back.

    Attributes:
        details: Scoped readings (``optimizer.lr``, ``lr_scheduler.class``) by name.
        observed: Field of the training arguments -> value found in force.
        reasons: Field -> why it may differ from the argument.
        sources: Field -> who decided a value that differs.
        users_optimizer: Class name of an optimizer the user passed, else None.
    """

    details: Mapping[str, Any] = field(default_factory=dict)
    observed: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    users_optimizer: str | None = None


def read_back(
    args: TrainingArguments,
    state: TrainerState,
    *,
    optimizer: Any,
    scheduler: Any,
    loader: Any,
    optimizer_maker: str | None = None,
    model: Any = None,
) -> InForce:
    """Read what is in force at the start of training.

    Args:
        args: The training arguments.
        state: The Trainer's state; its ``train_batch_size`` is what this attempt loads.
        optimizer: The optimizer, None if there is none.
        scheduler: The schedule, None if there is none.
        loader: The training loader, None if unknown.
        optimizer_maker: Who made the optimizer where not the Trainer did from the arguments, as a sentence; None where it did.
        model: The model, None if unknown; what was rewritten in it is read back from its modules.
    """
    observed: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    sources: dict[str, Source] = {}
    details = _optimizer_details(optimizer)
    for row in (item for item in REGISTRY if item.group_key is not None and item.name in FIELDS_OF_TRAINER):
        name = FIELDS_OF_TRAINER[row.name]
        value = _setting_in_force(args, name, _group_values(optimizer, row.name))
        if value is not None:
            observed[name] = value
        if optimizer_maker is not None:
            reasons[name] = optimizer_maker
        elif state.global_step > 0:
            reasons[name] = "the optimizer's state comes from a checkpoint"
            sources[name] = Source.RESUME
    details |= _scheduler_details(scheduler)
    observed |= _schedule_readings(args, state, details)
    reasons[WARM_UP] = "the scheduler was created with a different value"
    # The loop reads these from the arguments at every step, so that the argument is what is in force.
    live = [FIELDS_OF_TRAINER[row.name] for row in REGISTRY if TRANSFORMERS in row.reads_live]
    observed |= {name: getattr(args, name) for name in live}
    observed |= _model_readings(model, args)
    loaded = _loader_batch_size(loader) or state.train_batch_size
    if loaded:
        observed[BATCH_FIELD] = loaded // max(1, args.n_gpu)
        reasons[BATCH_FIELD] = "the loader was created with a different value"
        if args.auto_find_batch_size:
            reasons[BATCH_FIELD], sources[BATCH_FIELD] = "auto_find_batch_size lowered it", Source.CONSTRAINT
    return InForce(details, observed, reasons, sources, None if optimizer_maker is None else details.get("optimizer.class"))


def optimizer_maker(trainer: Trainer | None, has_own_optimizer: bool) -> str | None:
    """Return who made a Trainer's optimizer, as a sentence; None where the Trainer did, from its arguments."""
    if has_own_optimizer:
        return "the Trainer uses an optimizer you passed"
    if trainer is None:
        return None
    if getattr(trainer, "optimizer_cls_and_kwargs", None) is not None:
        return "the Trainer uses the optimizer_cls_and_kwargs you passed"
    made_by = (cls for cls in type(trainer).__mro__ if not _MAKERS.isdisjoint(vars(cls)))
    owner = next(made_by, Trainer)
    return f"{owner.__name__} makes the optimizer in a method of its own" if is_users_class(owner) else None


def _setting_in_force(args: TrainingArguments, name: str, values: list[float]) -> float | None:
    """Return the argument where the parameter groups have it or follow from it, else what the first of them has."""
    setting = getattr(args, name)
    if len(set(values)) <= 1 or not isinstance(setting, int | float):
        return values[0] if values else None
    rewrite = provenance_of(args).rewrite_in_force(name, setting)
    before = None if rewrite is None else rewrite.requested
    return value_in_force(values, setting, before if isinstance(before, int | float) else None)


def _group_values(optimizer: Any, name: str) -> list[float]:
    """Return the values of the parameter groups that have parameters; biases and norms, exempt from decay, tell nothing of its setting."""
    groups = getattr(getattr(optimizer, "optimizer", optimizer), "param_groups", [])  # Accelerate wraps the optimizer
    values = group_values([group for group in groups if group.get("params")] or groups, name)
    return [value for value in values if value] or values if name == "weight_decay" else values


def _schedule_readings(args: TrainingArguments, state: TrainerState, details: Mapping[str, Any]) -> dict[str, Any]:
    """Read back the warm-up from the schedule and the epochs from the loop, each as its argument has it where they agree."""
    found: dict[str, Any] = {}
    steps = details.get("lr_scheduler.num_warmup_steps")
    if isinstance(steps, int) and state.max_steps > 0:
        found[WARM_UP] = args.warmup_steps if steps == args.get_warmup_steps(state.max_steps) else steps
    if state.num_train_epochs and args.max_steps <= 0:
        is_same = state.num_train_epochs == math.ceil(args.num_train_epochs)
        found["num_train_epochs"] = args.num_train_epochs if is_same else state.num_train_epochs
    return found


def _model_readings(model: Any, args: TrainingArguments) -> dict[str, Any]:
    """Read back from a model's modules what a recommendation wrote into its configuration."""
    config = getattr(model, "config", None)
    names = [name for name in provenance_of(args).rewrites if not hasattr(args, name) and hasattr(config, name)]
    return {name: "not the same in all modules" if (value := read_model_value(model, name)) is None else value for name in names}


def put_in_force(found: InForce, args: TrainingArguments, into: RecordedHParams, state: TrainerState) -> RecordedHParams:
    """Add what was read back; a value in force replaces the argument it overrules, which stays as what was requested."""
    for name, rewrite in provenance_of(args).rewrites.items():
        if name in into.values and not hasattr(args, name) and same_value(into.values[name], rewrite.applied):
            into.put(name, rewrite.applied, rewrite.source, rewrite.requested)
    ratio = warm_up_ratio(args, max(0, state.max_steps))
    if ratio is not None:
        decided = into.sources.get(WARM_UP, Source.USER) if is_ratio(args.warmup_steps) else Source.DEFAULT
        into.put("warmup_ratio", ratio, decided)
    into.put("precision", precision_of(args), Source.USER if args.bf16 or args.fp16 else Source.DEFAULT)
    for name, value in found.details.items():
        into.put(name, value, Source.DEFAULT)
    for name, value in found.observed.items():
        asked = into.values.get(name)
        if name in into.values and not _same(value, asked):
            into.put(name, value, found.sources.get(name, Source.USER), asked)
    if found.users_optimizer is not None:
        into.put("optimizer", found.users_optimizer, Source.USER)
    per_process = found.observed.get(BATCH_FIELD)
    per_process = None if per_process is None else per_process * max(1, args.n_gpu)
    into.put("global_batch_size", global_batch_size(args, per_process), into.sources.get(BATCH_FIELD, Source.USER))
    return into


def not_applied(args: TrainingArguments, provenance: Provenance, found: InForce) -> list[str]:
    """Return a sentence for each recommended value that is not in force, although the arguments still hold it."""
    sentences = []
    values = argument_values(args)
    for name, value in found.observed.items():
        rewrite = provenance.rewrite_in_force(name, values[name]) if name in values else provenance.rewrites.get(name)
        if rewrite is not None and not _same(value, rewrite.applied):
            reason = found.reasons.get(name, "something changed it after the arguments were built")
            sentences.append(
                f"A recommended value must be in force once training starts, but {name} is {format_value(value)} and "
                f"{format_value(rewrite.applied)} was recommended; {reason}. Set {name} there, or name it in keep."
            )
    return sentences


def _same(a: Any, b: Any) -> bool:
    return a is not None and b is not None and same_value(a, b)


def _optimizer_details(optimizer: Any) -> dict[str, Any]:
    # Accelerate wraps the optimizer.
    optimizer = getattr(optimizer, "optimizer", optimizer)
    if optimizer is None:
        return {}
    details = read_optimizer(optimizer)
    name = details.pop("optimizer", None)
    return {"optimizer.class": name, **details}


def _scheduler_details(scheduler: Any) -> dict[str, Any]:
    scheduler = getattr(scheduler, "scheduler", scheduler)
    if scheduler is None:
        return {}
    details = read_scheduler(scheduler)
    # The setting is lr_scheduler_type; nearly all of the host's schedules are LambdaLR.
    name = details.pop("lr_scheduler", None)
    made_with = getattr((getattr(scheduler, "lr_lambdas", None) or [None])[0], "keywords", {})
    scalars = {f"lr_scheduler.{key}": value for key, value in made_with.items() if isinstance(value, bool | int | float | str)}
    return {"lr_scheduler.class": name, **details, **scalars}


def _loader_batch_size(loader: Any) -> int | None:
    sizes = (getattr(holder, "batch_size", None) for holder in (loader, getattr(loader, "batch_sampler", None)))
    return next((size for size in sizes if isinstance(size, int)), None)
