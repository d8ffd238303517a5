"""Which kind of training a set of arguments is for, by its class: libraries on the Trainer have argument classes of their own.

Before there is a Trainer its arguments are all that is known of it, so the kind is read from them. Nothing is imported for it: whoever has
such arguments has imported their library.
"""

from __future__ import annotations

from typing import Any

_HOSTS = frozenset({"transformers", "trl", "sentence_transformers", "setfit", "hf_callbacks"})
_LIBRARIES = frozenset({"trl", "sentence_transformers", "setfit"})
_ENDINGS = ("TrainingArguments", "Config")
_CLASSIFIES = frozenset({"Reward"})
"""Kinds whose Trainer loads a classifier from a path, whatever class the weights there are of."""

_REWARDED = frozenset({"GRPO", "RLOO"})


def library_of(args: object) -> str | None:
    """Return the library that a class of arguments belongs to; None for the host's own and a user's subclass of them."""
    base = _library_class(type(args))
    return None if base is None else base.__module__.partition(".")[0]


def kind_of_training(args: object) -> str | None:
    """Return for what the arguments are, such as ``SFT``, ``DPO``, ``SentenceTransformer``; None for a plain training.

    A user's subclass is of the kind of the class that it extends.
    """
    base = _library_class(type(args))
    if base is None:
        return None
    if base.__module__.startswith("setfit"):
        return "SetFit"
    name = base.__name__
    return next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending) and name != ending), name)


def loads_classifier(args: object) -> bool:
    """Say whether a Trainer of these arguments turns the weights at a path into a classifier."""
    return kind_of_training(args) in _CLASSIFIES


def learns_from_rewards(args: object) -> bool:
    """Say whether a training is judged by rewards of what the model writes; its loss is near zero whatever it has learned."""
    return kind_of_training(args) in _REWARDED


def is_users_class(cls: type[Any]) -> bool:
    """Say whether a class of Trainer is of none of the libraries."""
    return cls.__module__.partition(".")[0] not in _HOSTS


def _library_class(cls: type[Any]) -> type[Any] | None:
    public = (base for base in cls.__mro__ if not base.__name__.startswith("_"))
    return next((base for base in public if base.__module__.partition(".")[0] in _LIBRARIES), None)
