"""Replay: tuning methods compared on runs that are already recorded. Nothing is trained, everybody sees the same numbers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compare_baselines.methods import Method, NewTask, Past, PastTask
    from compare_baselines.replay.protocol import Benchmark, Pool, Protocol, load_benchmark, own_runs_protocol
    from compare_baselines.replay.report import save_picture
    from compare_baselines.replay.runner import run_replay

__all__ = [
    "Benchmark",
    "Method",
    "NewTask",
    "Past",
    "PastTask",
    "Pool",
    "Protocol",
    "load_benchmark",
    "own_runs_protocol",
    "run_replay",
    "save_picture",
]

_MODULE_OF = {
    **dict.fromkeys(("Method", "NewTask", "Past", "PastTask"), "compare_baselines.methods"),
    **dict.fromkeys(("Benchmark", "Pool", "Protocol", "load_benchmark", "own_runs_protocol"), "compare_baselines.replay.protocol"),
    "run_replay": "compare_baselines.replay.runner",
    "save_picture": "compare_baselines.replay.report",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_MODULE_OF[name]), name)
