"""Lightning: ``MetaHPCallback`` logs every run, ``MetaHParams`` starts the next one better, ``MetaHPCLI`` adds the first to a CLI.

Importing this package loads nothing heavy; the names load their modules when they are first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_metahp.callback import MetaHPCallback
    from lightning_metahp.cli import MetaHPCLI
    from lightning_metahp.meta_hparams import MetaHParams

__all__ = ["MetaHPCLI", "MetaHPCallback", "MetaHParams"]

# By its path and at once: `store` may be the very name that a file of the user's hides.
_CHECK = os.path.join(os.path.dirname(os.path.dirname(__file__)), "store", "package_shadow.py")
_GLOBALS = {"__name__": "check", "__file__": _CHECK, "PACKAGES": ["store", "metamodel"]}
exec(SourceFileLoader("check", _CHECK).get_code("check") or "", _GLOBALS)

_HOMES = {
    "MetaHPCallback": "lightning_metahp.callback",
    "MetaHParams": "lightning_metahp.meta_hparams",
    "MetaHPCLI": "lightning_metahp.cli",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}.")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
