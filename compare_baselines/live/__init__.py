"""Live comparisons: tuning tasks trained for real by each method, every cost counted. Nothing heavy is loaded until it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compare_baselines.live.runner import Settings, run_live
    from metahp_report.comparison.reader import list_comparisons, load_comparison
    from metahp_report.comparison.records import ComparisonPlan, ComparisonResult

__all__ = ["ComparisonPlan", "ComparisonResult", "Settings", "list_comparisons", "load_comparison", "run_live"]

_MODULE_OF = {
    **dict.fromkeys(("list_comparisons", "load_comparison"), "metahp_report.comparison.reader"),
    **dict.fromkeys(("ComparisonPlan", "ComparisonResult"), "metahp_report.comparison.records"),
    **dict.fromkeys(("Settings", "run_live"), "compare_baselines.live.runner"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_MODULE_OF[name]), name)
