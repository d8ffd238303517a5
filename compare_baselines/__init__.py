"""The proof: what the recommendations are worth against what one would do without them. Nothing heavy is loaded until it is used."""

from __future__ import annotations

from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compare_baselines.live.families import FAMILIES
    from compare_baselines.live.sklearn_data import DATASETS, DemoData, load_dataset

__all__ = ["DATASETS", "FAMILIES", "DemoData", "load_dataset"]

# By its path and at once: `store` may be the very name that a file of the user's hides.
_CHECK = str(Path(__file__).parent.parent / "store" / "package_shadow.py")
_GLOBALS = {"__name__": "check", "__file__": _CHECK, "PACKAGES": ["store", "metamodel", "lightning_metahp"]}
exec(SourceFileLoader("check", _CHECK).get_code("check") or "", _GLOBALS)

_MODULE_OF = {
    **dict.fromkeys(("DATASETS", "DemoData", "load_dataset"), "compare_baselines.live.sklearn_data"),
    "FAMILIES": "compare_baselines.live.families",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
