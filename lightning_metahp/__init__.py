"""Lightning: ``MetaHPCallback`` logs every run, ``MetaHParams`` starts the next one better, ``MetaHPCLI`` adds the first to a CLI.

Importing this package loads nothing heavy; the names load their modules when they are first used.
"""

from __future__ import annotations

import runpy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_metahp.callback import MetaHPCallback
    from lightning_metahp.cli import MetaHPCLI
    from lightning_metahp.meta_hparams import MetaHParams

__all__ = ["MetaHPCLI", "MetaHPCallback", "MetaHParams"]

# By its path and at once: `store` may be the very name that a file of the user's hides.
runpy.run_path(str(Path(__file__).parents[1] / "store" / "package_shadow.py"), {"PACKAGE": __name__})

_HOMES = {
    "MetaHPCallback": "lightning_metahp.callback",
    "MetaHParams": "lightning_metahp.meta_hparams",
    "MetaHPCLI": "lightning_metahp.cli",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}.")
    from store.extras import needed_for

    with needed_for(__name__):
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
