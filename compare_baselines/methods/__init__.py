"""Tuning methods, each once: the peers and our own, for recorded runs and for real training. Nothing heavy is loaded until it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compare_baselines.methods.base import Method, NewTask, Past, PastTask, Proposal, SearchProblem, Trial
    from compare_baselines.methods.registry import DAY_ONE_METHODS, DEFAULT_METHODS, LIVE_METHODS, METHODS, find_live_method, find_method

__all__ = [
    "DAY_ONE_METHODS",
    "DEFAULT_METHODS",
    "LIVE_METHODS",
    "METHODS",
    "Method",
    "NewTask",
    "Past",
    "PastTask",
    "Proposal",
    "SearchProblem",
    "Trial",
    "find_live_method",
    "find_method",
]

_REGISTRY = ("DAY_ONE_METHODS", "DEFAULT_METHODS", "LIVE_METHODS", "METHODS", "find_live_method", "find_method")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(f"compare_baselines.methods.{'registry' if name in _REGISTRY else 'base'}"), name)
