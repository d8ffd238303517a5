"""Hugging Face: log every ``transformers.Trainer`` run and let the next one start from what the runs before it taught.

``MetaHPCallback`` logs, ``autoconfig`` rewrites training arguments before a Trainer exists, ``apply`` does so for a Trainer
that is already built.
"""

from __future__ import annotations

import runpy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_callbacks.callback import MetaHPCallback
    from hf_callbacks.tuning import apply, autoconfig

__all__ = ["MetaHPCallback", "apply", "autoconfig"]

# By its path and at once: `store` may be the very name that a file of the user's hides.
runpy.run_path(str(Path(__file__).parents[1] / "store" / "package_shadow.py"), {"PACKAGE": __name__})

# No module is named like a public function: importing `hf_callbacks.autoconfig` would put the module in the function's place.
_HOMES = {
    "MetaHPCallback": "hf_callbacks.callback",
    "apply": "hf_callbacks.tuning",
    "autoconfig": "hf_callbacks.tuning",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from store.extras import needed_for

    with needed_for(__name__):
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
