"""SetFit's own Trainer around the Trainer of its first phase: when a training really ends, what it evaluates, what it was given.

Its class is none of the host's, so its events are only those of the first phase. When our callback meets that Trainer, the one around it
becomes a subclass of the same name whose ``train()`` and ``evaluate()`` report, as ``train_watch`` does it for the host's.
"""

from __future__ import annotations

import functools
import inspect
import logging
from typing import Any

from transformers import Trainer

from hf_callbacks.objective import EVALUATION_PREFIX, EvaluationObjective, evaluation_name
from hf_callbacks.provenance import Target
from hf_callbacks.train_watch import like, reduced_as, watchers_of
from store.names import infer_direction, resolve_direction

logger = logging.getLogger(__name__)

_WATCHED: dict[type, type] = {}
"""SetFit's class, or a user's that extends it -> the one that reports."""
_FIRST_PHASE = f"{EVALUATION_PREFIX}embedding_"
_DEFAULT_METRIC = "accuracy"
_OTHER_COLUMN = "feat_"
"""What SetFit puts before the names of columns that it does not use."""


def surrounding_setfit() -> Any:
    """Return the Trainer of SetFit that is building or running the one whose event is being handled, None where there is none."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
        if owner is not None and not isinstance(owner, Trainer) and hasattr(type(owner), "train_classifier"):
            return owner
        frame = frame.f_back
    return None


def watch_setfit() -> Any:
    """Have the surrounding Trainer of SetFit report its training and its evaluations; return it, None where there is none."""
    owner = surrounding_setfit()
    if owner is None or type(owner) in _WATCHED.values():
        return owner
    cls = type(owner)
    try:
        owner.__class__ = _WATCHED.setdefault(cls, _watched_class(cls))
    except TypeError as error:  # a class with its own memory layout
        logger.debug("%s cannot be watched: %s", cls.__name__, error)
    return owner


def setfit_datasets(owner: Any) -> tuple[Any, Any]:
    """Return the data that SetFit's Trainer was given, with the columns as the user named them."""
    return _as_given(owner.train_dataset, owner.column_mapping), _as_given(owner.eval_dataset, owner.column_mapping)


def setfit_objective(target: Target) -> EvaluationObjective | None:
    """Return the metric of SetFit's own ``evaluate()`` as the objective; None without SetFit, or for a metric of the first phase."""
    owner = surrounding_setfit()
    if owner is None:
        return None
    metric = getattr(owner, "metric", None)
    name = evaluation_name(target.objective or (metric if isinstance(metric, str) else _DEFAULT_METRIC))
    if name.startswith(_FIRST_PHASE):
        return None
    if target.direction is None and infer_direction(name) is None:
        problem = f"The direction of {name!r} is unknown. Pass MetaHPCallback(objective={name!r}, direction='max')."
        return EvaluationObjective(problem=problem)
    return EvaluationObjective(name, resolve_direction(name, target.direction), is_late=True)


def _as_given(dataset: Any, mapping: dict[str, str] | None) -> Any:
    if dataset is None or not mapping:
        return dataset
    names = {new: old for old, new in mapping.items()}
    names |= {name: name.removeprefix(_OTHER_COLUMN) for name in dataset.column_names if name.startswith(_OTHER_COLUMN)}
    return dataset.rename_columns(names)


def _watched_class(base: type[Any]) -> type[Any]:
    @functools.wraps(base.train)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        for watcher in watchers_of(self.st_trainer):
            watcher.phases_begin()
        try:
            result = base.train(self, *args, **kwargs)
        except BaseException as error:
            for watcher in watchers_of(self.st_trainer):
                watcher.phases_end(self.st_trainer, error)
            raise
        for watcher in watchers_of(self.st_trainer):
            watcher.phases_end(self.st_trainer, None)
        return result

    @functools.wraps(base.evaluate)
    def evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = base.evaluate(self, *args, **kwargs)
        for watcher in watchers_of(self.st_trainer):
            watcher.evaluated(self.st_trainer, {evaluation_name(str(name)): value for name, value in found.items()})
        return found

    return like(base, {"__reduce_ex__": reduced_as(base), "train": train, "evaluate": evaluate})
