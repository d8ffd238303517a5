"""Reports: what a history, or a live comparison in it, says, as one HTML file or as pictures. Nothing heavy is loaded until it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compare_baselines.report.comparison import comparison_report
    from compare_baselines.report.history import history_report
    from compare_baselines.report.page import render_page, write_page
    from compare_baselines.report.parts import Report
    from compare_baselines.report.pictures import save_pictures

__all__ = ["Report", "comparison_report", "history_report", "render_page", "save_pictures", "write_page"]

_MODULE_OF = {
    "Report": "compare_baselines.report.parts",
    "comparison_report": "compare_baselines.report.comparison",
    "history_report": "compare_baselines.report.history",
    **dict.fromkeys(("render_page", "write_page"), "compare_baselines.report.page"),
    "save_pictures": "compare_baselines.report.pictures",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
