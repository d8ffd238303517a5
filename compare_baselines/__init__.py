"""The proof: what the recommendations are worth against what one would do without them. Nothing heavy is loaded until it is used."""

from __future__ import annotations

import runpy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compare_baselines.live.families import LIVE_FAMILIES
    from compare_baselines.live.sklearn_data import DATASETS, DemoData, load_dataset

__all__ = ["DATASETS", "LIVE_FAMILIES", "DemoData", "load_dataset"]

# By its path and at once: `store` may be the very name that a file of the user's hides.
runpy.run_path(str(Path(__file__).parents[1] / "store" / "package_shadow.py"), {"PACKAGE": __name__})

_MODULE_OF = {
    **dict.fromkeys(("DATASETS", "DemoData", "load_dataset"), "compare_baselines.live.sklearn_data"),
    "LIVE_FAMILIES": "compare_baselines.live.families",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    from store.extras import needed_for

    with needed_for(__name__, extra="bench"):
        return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
