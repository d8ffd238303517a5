"""One clear error where a file of the user's has the name of one of our packages and hides it.

The import names are the folder names, so a script folder with its own ``store.py`` comes before ours on the path. Each package above
``store`` runs this file by its path, since ``store`` may be the very name that is hidden:
``runpy.run_path(..., {"PACKAGE": __name__})``. Hence it imports nothing of ours by name unless it has seen that the name is free.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location

PACKAGES = ("store", "metamodel", "metahp_tuning", "lightning_metahp", "hf_callbacks", "metahp_report", "compare_baselines", "metahp_cli")
"""All our packages; each may import those before it."""

HOSTS = {"lightning_metahp", "hf_callbacks"}
"""Packages that never import each other."""

PACKAGES_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder all our packages were installed into."""


def found_file(name: str) -> str | None:
    """Return the file or folder that ``import name`` would take, without importing it; None if there is none."""
    loaded = sys.modules.get(name)
    spec: ModuleSpec | None = getattr(loaded, "__spec__", None) if loaded is not None else find_spec(name)
    if spec is None:
        return getattr(loaded, "__file__", None)
    folders = list(spec.submodule_search_locations or [])
    # A folder without __init__.py (a namespace package) has no file of its own.
    return spec.origin if spec.origin is not None or not folders else folders[0]


def hiding_file(name: str) -> str | None:
    """Return the file that hides our package of this name, None if nothing does."""
    ours = os.path.join(PACKAGES_FOLDER, name)
    found = found_file(name)
    if found is None or not os.path.isdir(ours):
        return None
    folder = os.path.dirname(found) if os.path.basename(found).startswith("__init__.") else found
    # Spelled alike is one folder; to resolve links takes a look at each folder above it.
    return None if folder == ours or os.path.realpath(folder) == os.path.realpath(ours) else found


def error_class() -> type[ImportError]:
    """Return ``ShadowedPackageError``, loaded from its file where ``store`` itself is hidden."""
    if hiding_file("store") is None:
        from store.errors import ShadowedPackageError

        return ShadowedPackageError
    spec = spec_from_file_location("store.errors", os.path.join(PACKAGES_FOLDER, "store", "errors.py"))
    if spec is None or spec.loader is None:
        return ImportError
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[ImportError] = module.ShadowedPackageError
    return found


def packages_below(package: str) -> tuple[str, ...]:
    """Return the packages that one of ours may import."""
    below = PACKAGES[: PACKAGES.index(package)]
    return tuple(name for name in below if not (package in HOSTS and name in HOSTS))


def refuse_hidden_packages(package: str) -> None:
    """Check for one of our packages that each of those below it is the one an import would find.

    Raises:
        ShadowedPackageError: If a file of the user's would be imported instead; it names the file.
    """
    for name in packages_below(package):
        file = hiding_file(name)
        if file is not None:
            raise error_class()(
                f"No file of yours may have the name of a package of lightning-metahp, but {file} hides the package {name!r}. "
                "Any other name is possible. Rename the file, or run the script from another folder."
            )


if "PACKAGE" in globals():
    refuse_hidden_packages(globals()["PACKAGE"])
