"""The tuning decision, once for every host: limits, precedence, query and messages. Nothing heavy is loaded until it is used."""

from __future__ import annotations

import runpy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metahp_tuning.decision import TuningDecision, tune
    from metahp_tuning.host import Host, PlainHost, TuningRequest, check_request
    from metahp_tuning.suggestion import Suggestion, suggest

__all__ = ["Host", "PlainHost", "Suggestion", "TuningDecision", "TuningRequest", "check_request", "suggest", "tune"]

# By its path and at once: `store` may be the very name that a file of the user's hides.
runpy.run_path(str(Path(__file__).parents[1] / "store" / "package_shadow.py"), {"PACKAGE": __name__})

_MODULE_OF = {
    **dict.fromkeys(("TuningDecision", "tune"), "metahp_tuning.decision"),
    **dict.fromkeys(("Host", "PlainHost", "TuningRequest", "check_request"), "metahp_tuning.host"),
    **dict.fromkeys(("Suggestion", "suggest"), "metahp_tuning.suggestion"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
