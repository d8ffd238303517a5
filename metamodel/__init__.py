"""Learns from a history of training runs and recommends hyperparameters. Nothing heavy is loaded until it is used."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metamodel.data.task import TaskDescription
    from metamodel.data.units import Unit
    from metamodel.fitting import current_model, refit
    from metamodel.gp.meta_model import MetaModel
    from metamodel.recommendation import Decision, Evidence, Recommendation
    from metamodel.recommender import recommend
    from metamodel.sampler import MetaHPSampler

__all__ = [
    "Decision",
    "Evidence",
    "MetaHPSampler",
    "MetaModel",
    "Recommendation",
    "TaskDescription",
    "Unit",
    "current_model",
    "recommend",
    "refit",
]

# By its path and at once: `store` may be the very name that a file of the user's hides.
runpy.run_path(str(Path(__file__).parents[1] / "store" / "package_shadow.py"), {"PACKAGE": __name__})

_HOMES = {
    "Decision": "metamodel.recommendation",
    "Evidence": "metamodel.recommendation",
    "MetaHPSampler": "metamodel.sampler",
    "MetaModel": "metamodel.gp.meta_model",
    "Recommendation": "metamodel.recommendation",
    "TaskDescription": "metamodel.data.task",
    "Unit": "metamodel.data.units",
    "current_model": "metamodel.fitting",
    "recommend": "metamodel.recommender",
    "refit": "metamodel.fitting",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metamodel' has no attribute {name!r}; it has: {', '.join(__all__)}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
