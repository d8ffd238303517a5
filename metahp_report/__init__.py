"""Reports: a history, or a live comparison in it, as one HTML file or as pictures. Nothing heavy is loaded until it is used."""

from __future__ import annotations

import runpy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metahp_report.comparison.report import comparison_report
    from metahp_report.history import history_report
    from metahp_report.page import render_page, write_page
    from metahp_report.parts import Report
    from metahp_report.pictures import save_pictures

__all__ = ["Report", "comparison_report", "history_report", "render_page", "save_pictures", "write_page"]

# By its path and at once: `store` may be the very name that a file of the user's hides.
runpy.run_path(str(Path(__file__).parents[1] / "store" / "package_shadow.py"), {"PACKAGE": __name__})

_MODULE_OF = {
    "Report": "metahp_report.parts",
    "comparison_report": "metahp_report.comparison.report",
    "history_report": "metahp_report.history",
    **dict.fromkeys(("render_page", "write_page"), "metahp_report.page"),
    "save_pictures": "metahp_report.pictures",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
