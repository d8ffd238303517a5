"""The kinds of meta-model there are, by the names that ``refit(model=...)`` and the command line take: one line each.

A table of names that imports nothing of the others, so that every module may ask it.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from store.errors import InvalidArgumentError

DEFAULT = "metahp"
_CLASSES = {
    DEFAULT: "metamodel.gp.gp_meta_model:GPMetaModel",
    "direct": "metamodel.networks.direct_model:DirectModel",
    "maml": "metamodel.networks.adapted_model:MamlModel",
    "reptile": "metamodel.networks.adapted_model:ReptileModel",
}
KINDS = tuple(_CLASSES)


def check_kind(kind: str | None) -> None:
    """Check the name of a kind; None is the active one.

    Raises:
        InvalidArgumentError: If there is none of that name.
    """
    if kind is None or kind in _CLASSES:
        return
    close = get_close_matches(str(kind), KINDS, n=1)
    hint = f"did you mean {close[0]!r}? Possible are" if close else "possible are"
    raise InvalidArgumentError(f"A model must be of a known kind, but got {kind!r}; {hint} {', '.join(KINDS)}. Pass one of these.")


def class_of(kind: str) -> Any:
    """Return the class of a kind, a subclass of ``MetaModel``.

    Raises:
        InvalidArgumentError: If there is none of that name.
    """
    check_kind(kind)
    module, _, name = _CLASSES[kind].partition(":")
    return getattr(import_module(module), name)
