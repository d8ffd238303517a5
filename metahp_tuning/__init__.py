"""The tuning decision, once for every host."""

from __future__ import annotations

import runpy
from pathlib import Path

# By its path and at once: `store` may be the very name that a file of the user's hides.
runpy.run_path(str(Path(__file__).parents[1] / "store" / "package_shadow.py"), {"PACKAGE": __name__})
