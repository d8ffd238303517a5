"""The history of training runs: recording, reading, correcting.

``from store import History`` loads the standard library and ``platformdirs`` only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.errors import (
        HistoryClosedError,
        HistoryPathError,
        HistoryTooNewError,
        InvalidArgumentError,
        MetaHPError,
        MetaHPWarning,
        MissingDependencyError,
        ModelFileError,
        NotAHistoryError,
        NotAppliedWarning,
        NotEnoughHistoryError,
        ObjectiveError,
        ObjectiveWarning,
        ShadowedPackageError,
        SpaceError,
        StorageError,
        StorageWarning,
        UnknownHyperparameterError,
        UnknownRecommendationError,
        UnknownRunError,
        UnknownTaskError,
        WorkerDiedError,
    )
    from store.history import History, open_history
    from store.names import Direction, canonical_name, infer_direction, resolve_direction
    from store.paths import default_history_path
    from store.recording.recorder import RunRecorder
    from store.records import FINISHED, HParam, MetricRecord, RunRecord, RunStatus, Source, TaskLike, TaskRecord, TunedConfiguration
    from store.sqlite.bulk import Curve, FinishedRun
    from store.upkeep.compaction import Compaction, compact, vacuum_history
    from store.usage import ResourceTotals, Usage, resource_totals

__all__ = [
    "FINISHED",
    "Compaction",
    "Curve",
    "Direction",
    "FinishedRun",
    "HParam",
    "History",
    "HistoryClosedError",
    "HistoryPathError",
    "HistoryTooNewError",
    "InvalidArgumentError",
    "MetaHPError",
    "MetaHPWarning",
    "MetricRecord",
    "MissingDependencyError",
    "ModelFileError",
    "NotAHistoryError",
    "NotAppliedWarning",
    "NotEnoughHistoryError",
    "ObjectiveError",
    "ObjectiveWarning",
    "ResourceTotals",
    "RunRecord",
    "RunRecorder",
    "RunStatus",
    "ShadowedPackageError",
    "Source",
    "SpaceError",
    "StorageError",
    "StorageWarning",
    "TaskLike",
    "TaskRecord",
    "TunedConfiguration",
    "UnknownHyperparameterError",
    "UnknownRecommendationError",
    "UnknownRunError",
    "UnknownTaskError",
    "Usage",
    "WorkerDiedError",
    "canonical_name",
    "compact",
    "default_history_path",
    "infer_direction",
    "open_history",
    "resolve_direction",
    "resource_totals",
    "vacuum_history",
]

_MODULE_OF = {
    **dict.fromkeys(("Compaction", "compact", "vacuum_history"), "store.upkeep.compaction"),
    **dict.fromkeys(("ResourceTotals", "Usage", "resource_totals"), "store.usage"),
    **dict.fromkeys(("Curve", "FinishedRun"), "store.sqlite.bulk"),
    **dict.fromkeys(("History", "open_history"), "store.history"),
    **dict.fromkeys(("Direction", "canonical_name", "infer_direction", "resolve_direction"), "store.names"),
    **dict.fromkeys(("FINISHED", "HParam", "MetricRecord", "RunRecord", "RunStatus", "Source"), "store.records"),
    **dict.fromkeys(("TaskLike", "TaskRecord", "TunedConfiguration"), "store.records"),
    "RunRecorder": "store.recording.recorder",
    "default_history_path": "store.paths",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF.get(name, "store.errors")), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
