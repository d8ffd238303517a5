"""How a recommendation's id travels on training arguments, through copies, pickles and ``training_args.bin``.

``TrainingArguments`` does not record which fields the user set, and none of its fields is free for a note of ours. Arguments that
``autoconfig`` returns are therefore of a subclass with two more fields. Everything else about it is the host's class:

- ``isinstance`` holds, and the class has the name, module and constructor of its base;
- ``dataclasses.replace`` and ``copy`` keep class and note;
- ``to_dict`` leaves the note out, so ``OtherArguments(**args.to_dict())`` still works;
- pickles, and so ``training_args.bin``, name the base class only and keep the note as a plain attribute: whoever loads such a
  file needs nothing of ours.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from enum import Enum
from typing import Any

from transformers import TrainingArguments

from metahp_tuning.precedence import Change
from metahp_tuning.resumption import Rewrite
from metamodel.data.task import TaskDescription
from store.values import same_value

ID_FIELD = "metahp"
"""Attribute that holds the recommendation's id, or None."""
NOTE_FIELD = "metahp_note"
"""Attribute that holds a ``Provenance`` as plain data: it must load where our classes do not exist."""
FIELDS = (ID_FIELD, NOTE_FIELD)

_NOTED_CLASSES: dict[type[TrainingArguments], type[TrainingArguments]] = {}


@dataclass(frozen=True, slots=True)
class Target:
    """What the user passed about the run: task, objective and direction; None where nothing was passed."""

    task: str | TaskDescription | None = None
    objective: str | None = None
    direction: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that loads where our classes do not exist."""
        task = self.task.to_dict() if isinstance(self.task, TaskDescription) else self.task
        return {"task": task, "objective": self.objective, "direction": self.direction}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Target:
        """Rebuild what ``to_dict`` gave."""
        task = values.get("task")
        task = TaskDescription.from_dict(task) if isinstance(task, Mapping) else task
        return cls(task, values.get("objective"), values.get("direction"))


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who decided what on a set of training arguments.

    Attributes:
        recommendation_id: The recommendation behind the rewritten fields, None if there was none.
        explicit: Fields the user passed as keywords; their values are the user's even where they equal the default.
        is_complete: Whether these are known to be all that the user passed.
        rewrites: Field -> what was rewritten.
        target: What the recommendation was asked for.
        pending: Recommendations that were made where there was no history yet, as ``PendingRecommendation.to_dict`` gives them.
    """

    recommendation_id: str | None = None
    explicit: frozenset[str] = frozenset()
    rewrites: Mapping[str, Rewrite] = field(default_factory=dict)
    target: Target = Target()
    pending: tuple[Mapping[str, Any], ...] = ()
    is_complete: bool = False

    def carries_advice(self) -> bool:
        """Say whether there is more than what the user typed."""
        return replace(self, explicit=frozenset(), is_complete=False) != Provenance()

    def rewrite_in_force(self, name: str, value: Any) -> Rewrite | None:
        """Return the rewrite behind a field's present value, None where the user changed the field again afterwards."""
        rewrite = self.rewrites.get(name)
        return rewrite if rewrite is not None and same_value(rewrite.applied, value) else None


def rewrites_of(changes: Iterable[Change]) -> dict[str, Rewrite]:
    """Turn planned changes into what travels with the arguments."""
    return {
        change.raw_name: Rewrite(change.old, change.new.value if isinstance(change.new, Enum) else change.new, change.source)
        for change in changes
    }


def provenance_of(args: TrainingArguments) -> Provenance:
    """Return what travels on these arguments; empty for arguments that ``autoconfig`` never saw."""
    note = getattr(args, NOTE_FIELD, None) or {}
    rewrites = {name: Rewrite.from_dict(item) for name, item in note.get("rewrites", {}).items()}
    target = Target.from_dict(note.get("target", {}))
    explicit, pending = frozenset(note.get("explicit", ())), tuple(note.get("pending", ()))
    return Provenance(getattr(args, ID_FIELD, None), explicit, rewrites, target, pending, bool(note.get("is_complete")))


def recommendation_id(args: TrainingArguments) -> str | None:
    """Return the id of the recommendation that configured these arguments, None if none did."""
    return provenance_of(args).recommendation_id


def write_provenance(args: TrainingArguments, provenance: Provenance) -> None:
    """Put a note on arguments in place, as plain attributes."""
    rewrites = {name: item.to_dict() for name, item in provenance.rewrites.items()}
    setattr(args, ID_FIELD, provenance.recommendation_id)
    note = {"explicit": sorted(provenance.explicit), "rewrites": rewrites, "target": provenance.target.to_dict()}
    setattr(args, NOTE_FIELD, {**note, "pending": list(provenance.pending), "is_complete": provenance.is_complete})


def with_provenance(args: TrainingArguments, provenance: Provenance) -> TrainingArguments:
    """Return a copy of the arguments that carries a note, of the subclass described above."""
    noted: TrainingArguments = object.__new__(noted_class(plain_class(type(args))))
    vars(noted).update(vars(args))
    write_provenance(noted, provenance)
    return noted


def plain_class(cls: type[TrainingArguments]) -> type[TrainingArguments]:
    """Return the host's class behind a noted one, or the class itself."""
    return cls.__bases__[0] if cls in _NOTED_CLASSES.values() else cls


def noted_class(base: type[TrainingArguments]) -> type[TrainingArguments]:
    """Return the subclass of ``base`` with our two fields; the same one on every call."""
    if base not in _NOTED_CLASSES:
        _NOTED_CLASSES[base] = _make_noted_class(base)
    return _NOTED_CLASSES[base]


def _make_noted_class(base: type[TrainingArguments]) -> type[TrainingArguments]:
    def initialise(self: Any, *args: Any, metahp: str | None = None, metahp_note: dict[str, Any] | None = None, **kwargs: Any) -> None:
        # The base's own constructor runs, generated or hand-written; a generated one of ours would replace the latter.
        base.__init__(self, *args, **kwargs)
        self.metahp = metahp
        self.metahp_note = metahp_note

    def to_dict(self: Any) -> dict[str, Any]:
        values: dict[str, Any] = base.to_dict(self)  # type: ignore[no-untyped-call]
        return {name: value for name, value in values.items() if name not in FIELDS}

    def to_sanitized_dict(self: Any) -> dict[str, Any]:
        # What TensorBoard shows of a run; no arguments are built from it.
        return {**base.to_sanitized_dict(self), ID_FIELD: str(self.metahp)}

    def reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
        return object.__new__, (base,), self.__getstate__()

    def shallow(self: Any) -> Any:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def deep(self: Any, memo: dict[int, Any]) -> Any:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    namespace = {
        "__doc__": base.__doc__,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__init__": initialise,
        "__reduce_ex__": reduce,
        "__copy__": shallow,
        "__deepcopy__": deep,
        "to_dict": to_dict,
        "to_sanitized_dict": to_sanitized_dict,
    }
    extra = [
        (ID_FIELD, "str | None", field(default=None, metadata={"help": "Id of the recommendation behind these arguments."})),
        (
            NOTE_FIELD,
            "dict | None",
            field(default=None, metadata={"help": "Which fields the user set and which were rewritten."}),
        ),
    ]
    made: type[TrainingArguments] = make_dataclass(
        base.__name__, extra, bases=(base,), namespace=namespace, init=False, repr=False, eq=False
    )
    return made
