"""What a user passed to a Trainer, as it was before a constructor prepared it.

Subclasses of the Trainer tokenise, pack and rename inside their ``__init__``, and load a model from its path. Which runs belong together
is told by what the user passed, so ``Trainer.__new__``, which sees the arguments first, leaves a note of them on the object. The note lives
as long as the Trainer and is plain data.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainingArguments

from hf_callbacks.provenance import provenance_of, write_provenance
from hf_callbacks.setfit_watch import setfit_datasets, surrounding_setfit
from store.switches import is_off

logger = logging.getLogger(__name__)

_NOTE = "_metahp_inputs"
_PREPARED = "prepared"
_NOTED = ("train_dataset", "eval_dataset", "args")


def note_inputs() -> None:
    """Have every Trainer that is made from now on note what it was given; a second call does nothing, nor one under METAHP=off."""
    if is_off() or "__new__" in vars(Trainer):
        return

    @functools.wraps(Trainer.__init__)
    def make(cls: type[Any], /, *args: Any, **kwargs: Any) -> Any:
        following = super(Trainer, cls).__new__  # of a class beside the Trainer, where it has one
        made = object.__new__(cls) if following is object.__new__ else following(cls, *args, **kwargs)
        if is_off():
            return made
        try:
            given = arguments_by_name(cls, args, kwargs)
            vars(made)[_NOTE] = {name: given[name] for name in _NOTED if given.get(name) is not None}
        except Exception as error:  # the Trainer is what matters
            logger.debug("What %s was given could not be noted: %s", cls.__name__, error)
        return made

    Trainer.__new__ = staticmethod(make)  # type: ignore[method-assign,assignment]


def arguments_by_name(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a constructor's arguments by name; what a class passes on as ``*args, **kwargs`` is named by the classes behind it."""
    found: dict[str, Any] = {}
    rest, named = tuple(args), dict(kwargs)
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        bound = inspect.signature(base.__init__).bind_partial(None, *rest, **named)  # type: ignore[misc]
        rest, named = (), {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                rest = value
            elif kind is inspect.Parameter.VAR_KEYWORD:
                named = value
            else:
                found.setdefault(name, value)
        if not rest and not named:
            break
    return found


def note_prepared(trainer: Trainer) -> None:
    """Note what the constructors have made of the data so far: data that are put into the Trainer's attributes later are others.

    Where a constructor made other arguments of those that the user passed, the recommendation goes along.
    """
    note = vars(trainer).get(_NOTE)
    if note is not None:
        note[_PREPARED] = id(trainer.train_dataset)
    given = given_arguments(trainer)
    if given is not trainer.args and not provenance_of(trainer.args).carries_advice():
        write_provenance(trainer.args, provenance_of(given))


def task_inputs(trainer: Trainer | None, args: TrainingArguments, loader: object = None) -> tuple[Any, Any, Any]:
    """Return arguments, training and validation data as the user passed them: to SetFit's Trainer, to this one, or as the loader has them.

    Args:
        trainer: The Trainer, None where it is unknown.
        args: Its arguments.
        loader: Its training loader.
    """
    setfit = surrounding_setfit()
    if setfit is not None:
        return setfit.args, *setfit_datasets(setfit)
    train, evaluation = (None, None) if trainer is None else given_datasets(trainer)
    given = args if trainer is None else given_arguments(trainer)
    return given, _dataset_of(loader) if train is None else train, evaluation


def given_datasets(trainer: Trainer) -> tuple[Any, Any]:
    """Return the training and validation data as the user passed them; those of the Trainer's attributes where they were replaced."""
    note = vars(trainer).get(_NOTE, {})
    train = note.get("train_dataset")
    if train is None or not _is_made_of(trainer.train_dataset, train, note.get(_PREPARED)):
        return trainer.train_dataset, trainer.eval_dataset
    return train, note.get("eval_dataset", trainer.eval_dataset)


def given_arguments(trainer: Trainer) -> TrainingArguments:
    """Return the training arguments as the user passed them; the Trainer's own where none were passed."""
    given = vars(trainer).get(_NOTE, {}).get("args")
    return given if isinstance(given, TrainingArguments) else trainer.args


def _is_made_of(dataset: Any, given: Any, prepared: int | None) -> bool:
    """Say whether a Trainer's data are those it was given, perhaps prepared, and not others that someone put there afterwards."""
    if dataset is given or prepared is None or id(dataset) == prepared:
        return True
    # A constructor may go on preparing after the event that told us of the data: it adds columns then.
    try:
        return len(dataset) == len(given) and set(_columns(given)) <= set(_columns(dataset))
    except TypeError:  # a stream has no length
        return False


def _columns(dataset: Any) -> list[str]:
    names = getattr(dataset, "column_names", None) or []
    return [f"{part}/{name}" for part in names for name in names[part]] if isinstance(names, Mapping) else list(names)


def _dataset_of(loader: Any) -> object:
    """Return the data set behind a loader, unwrapped from the shard Accelerate makes of a stream."""
    dataset = getattr(loader, "dataset", None)
    return getattr(dataset, "dataset", dataset) if type(dataset).__name__ == "IterableDatasetShard" else dataset
