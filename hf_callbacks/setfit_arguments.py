"""SetFit's ``TrainingArguments``: no ``transformers.TrainingArguments``, with pairs of values for its two phases.

The first phase tunes the embedding with a Trainer of sentence-transformers, the second fits a head. What is tuned and compared is the first
phase, under SetFit's own names (``body_embedding_learning_rate``, ``embedding_batch_size``); the head's values stand beside them.
SetFit is never imported here: whoever has such arguments has imported it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from hf_callbacks.arguments import RecordedHParams
from hf_callbacks.provenance import FIELDS, Provenance, provenance_of, write_provenance
from hf_callbacks.trainer_kind import kind_of_training
from store.statuses import Source
from store.values import same_value

PAIRS = {
    "body_learning_rate": ("body_embedding_learning_rate", "body_classifier_learning_rate"),
    "batch_size": ("embedding_batch_size", "classifier_batch_size"),
    "num_epochs": ("embedding_num_epochs", "classifier_num_epochs"),
}
"""Field with a value for each phase -> SetFit's names of the two values."""
OF_TRAINER = {
    "learning_rate": "body_embedding_learning_rate",
    "per_device_train_batch_size": "embedding_batch_size",
    "num_train_epochs": "embedding_num_epochs",
    "weight_decay": "l2_weight",
    "warmup_steps": "warmup_proportion",
    "fp16": "use_amp",
    "max_steps": "max_steps",
    "seed": "seed",
}
"""Argument of the first phase's Trainer -> SetFit's name of it."""
_OF_RUN = (
    *("output_dir", "report_to", "run_name", "show_progress_bar", "metric_for_best_model", "greater_is_better", "evaluation_strategy"),
    *("load_best_model_at_end", "eval_max_steps"),
)
_OF_HEAD = ("classifier_batch_size", "classifier_num_epochs", "head_learning_rate")
_OF_BODY = "body_classifier_learning_rate"
_OF_RUN_PREFIXES = ("logging_", "eval_", "save_")


def is_setfit(args: object) -> bool:
    """Say whether arguments are SetFit's."""
    return kind_of_training(args) == "SetFit"


def is_setfit_class(cls: object) -> bool:
    """Say whether a class is that of SetFit's arguments, or extends it."""
    return isinstance(cls, type) and any(base.__module__ == "setfit.training_args" for base in cls.__mro__)


def setfit_values(args: Any) -> dict[str, Any]:
    """Return the fields that shape a training, each phase's value under SetFit's own name of it."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(args):
        value = getattr(args, item.name)
        if item.name in PAIRS:
            found |= dict(zip(PAIRS[item.name], value, strict=True))
        elif item.name not in FIELDS and item.name not in _OF_RUN and not item.name.startswith(_OF_RUN_PREFIXES):
            found[item.name] = value
    return found


def setfit_sources(args: Any, explicit: frozenset[str] = frozenset()) -> dict[str, Source]:
    """Return who chose the values: what differs from SetFit's defaults, or was passed as a keyword, is the user's; a pair is set as one."""
    args = restored_setfit(args, provenance_of(args))
    defaults: dict[str, Any] = {}
    for item in dataclasses.fields(args):
        if item.name in PAIRS:
            defaults |= dict(zip(PAIRS[item.name], item.default, strict=True))  # type: ignore[arg-type]
        else:
            defaults[item.name] = item.default
    for field, names in PAIRS.items():
        if getattr(args, field) != tuple(defaults[name] for name in names):
            explicit |= {field}
    chosen = {name for field in explicit for name in PAIRS.get(field, (field,))}
    return {
        name: Source.USER if name in chosen or not same_value(value, defaults.get(name)) else Source.DEFAULT
        for name, value in setfit_values(args).items()
    }


def unused_in_head(args: Any, model: Any) -> dict[str, str]:
    """Return which values of the second phase have no effect with this model's head, with the reason; none where the head is unknown."""
    is_differentiable = getattr(model, "has_differentiable_head", None)
    if is_differentiable is None:
        return {}
    if not is_differentiable:
        return dict.fromkeys((*_OF_HEAD, _OF_BODY), "SetFit uses it only with a differentiable head")
    return {} if args.end_to_end else {_OF_BODY: "SetFit uses it only with end_to_end=True"}


def rewritten_setfit(args: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of SetFit's arguments with other values, named as ``setfit_values`` names them.

    Raises:
        Exception: Whatever SetFit raises for values it refuses.
    """
    changes = {name: value for name, value in values.items() if not any(name in names for names in PAIRS.values())}
    for field, names in PAIRS.items():
        if any(name in values for name in names):
            changes[field] = tuple(values.get(name, old) for name, old in zip(names, getattr(args, field), strict=True))
    return dataclasses.replace(args, **changes)


def restored_setfit(args: Any, provenance: Provenance) -> Any:
    """Return the arguments as they were before a recommendation rewrote them."""
    now = setfit_values(args)
    old = {name: item.requested for name, item in provenance.rewrites.items() if name in now and same_value(item.applied, now[name])}
    return rewritten_setfit(args, old) if old else args


def first_phase(args: Any) -> TrainingArguments:
    """Return arguments of a plain Trainer that say of the first phase what SetFit's say."""
    values = setfit_values(args)
    of_trainer = {field: values[name] for field, name in OF_TRAINER.items() if values.get(name) is not None}
    return TrainingArguments(
        output_dir=args.output_dir, report_to="none", eval_strategy=args.eval_strategy, eval_steps=args.eval_steps, **of_trainer
    )


def pass_note_on(args: Any, of_phase: TrainingArguments) -> None:
    """Put the note that SetFit's arguments carry on those of the first phase's Trainer, under that Trainer's names."""
    noted = provenance_of(args)
    fields = {name: field for field, name in OF_TRAINER.items()}
    rewrites = {fields.get(name, name): item for name, item in noted.rewrites.items()}
    write_provenance(of_phase, dataclasses.replace(noted, rewrites=rewrites, explicit=frozenset()))
    if noted.pending:  # saved with the run of this training; a second one has nothing to add
        write_provenance(args, dataclasses.replace(noted, pending=()))


def recorded_of_setfit(args: Any, of_phase: RecordedHParams) -> RecordedHParams:
    """Return what a run is made with under SetFit's names, with what its first phase's Trainer has beside."""
    result = RecordedHParams()
    sources = setfit_sources(args, provenance_of(args).explicit)
    for name, value in of_phase.values.items():
        if OF_TRAINER.get(name, name) == name:
            result.put(name, value, of_phase.sources[name], of_phase.requested.get(name))
    for name, value in setfit_values(args).items():
        result.put(name, value, sources[name])
    for field, name in OF_TRAINER.items():
        is_known = field in of_phase.values and result.values.get(name) is not None
        if is_known and (field in of_phase.requested or of_phase.sources[field] in (Source.METAHP, Source.RESUME, Source.CONSTRAINT)):
            result.put(name, of_phase.values[field], of_phase.sources[field], of_phase.requested.get(field))
    return result


def named_as_setfit(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by argument of the first phase's Trainer under SetFit's names."""
    return {OF_TRAINER.get(name, name): value for name, value in values.items()}
