"""The methods by name. Those of our own meta-model are its kinds; nothing here names them."""

from __future__ import annotations

import difflib
import os
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from metamodel.kinds import DEFAULT, KINDS
from store.errors import InvalidArgumentError

if TYPE_CHECKING:
    from compare_baselines.methods.base import Method

RANDOM, PLAIN = "random", "plain-gp"
_PEERS = {
    RANDOM: "compare_baselines.methods.simple:Random",
    "grid": "compare_baselines.methods.simple:Grid",
    "tpe": "compare_baselines.methods.samplers:TPE",
    "gp": "compare_baselines.methods.samplers:GP",
    "cmaes": "compare_baselines.methods.samplers:CMAES",
    PLAIN: "compare_baselines.methods.plain_gp:PlainGP",
    "best-of-past": "compare_baselines.methods.simple:BestOfPast",
    "constant": "compare_baselines.methods.transfer:Constant",
    "quantile": "compare_baselines.methods.transfer:Quantile",
    "zero-shot": "compare_baselines.methods.transfer:ZeroShot",
    "rgpe": "compare_baselines.methods.rgpe:RGPE",
    "scratch": "compare_baselines.methods.scratch:Scratch",
}
"""Name -> ``module:Class``."""
_SPECIAL = {
    "default": "compare_baselines.methods.simple:Default",
    "defaults": "compare_baselines.methods.simple:Default",
    "starter": "compare_baselines.methods.metahp:StarterMethod",
    "scratch-few": "compare_baselines.methods.scratch:ScratchFew",
    "constant-1e-2": "compare_baselines.methods.simple:ConstantHundredth",
    "constant-3e-3": "compare_baselines.methods.simple:ConstantThreeThousandths",
    "schedule-free": "compare_baselines.methods.simple:ScheduleFree",
    "prodigy": "compare_baselines.methods.simple:Prodigy",
}
"""Those of one kind of comparison only: without a past, in real training, on the same points."""
METHODS = (*_PEERS, *reversed(KINDS))
"""What a replay compares, the dear ones last."""
LIVE_METHODS = ("default", "grid", RANDOM, "tpe", "gp", *KINDS)
"""What real training compares."""
_ON_REQUEST = {"gp", "scratch", *KINDS} - {DEFAULT}
DEFAULT_METHODS = tuple(name for name in METHODS if name not in _ON_REQUEST)
"""What a replay compares where nobody chooses: all but ``gp``, which takes longer than all others together, and what few ask for."""
DAY_ONE_METHODS = (RANDOM, "defaults", "tpe", "cmaes", PLAIN, "starter")
"""The same without a past."""


def find_method(name: str) -> Method:
    """Return a new method.

    Args:
        name: One of ``METHODS``, or ``module:Class`` of a class of one's own; the module may lie in the working directory.

    Raises:
        InvalidArgumentError: If there is no such method.
    """
    from compare_baselines.methods.base import Method

    if name in KINDS:
        from compare_baselines.methods.metahp import MetaHP

        return MetaHP(name)
    path = {**_PEERS, **_SPECIAL}.get(name, name)
    module, _, attribute = path.partition(":")
    if not attribute:
        close = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.5)
        nearest = f"did you mean {close[0]!r}? Possible" if close else "possible"
        raise InvalidArgumentError(
            f"A method must be known, but got {name!r}; {nearest} are {', '.join(METHODS)}, or module:Class of a class of your own."
        )
    if path == name and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidArgumentError(f"A method must be importable as module:Class, but {name!r} is not: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InvalidArgumentError(f"A method must be a subclass of compare_baselines.replay.Method, but {name!r} is {found!r}.")
    return found()


@cache
def uses_past(name: str) -> bool:
    """Say whether a method learns from the runs of other tasks."""
    return find_method(name).uses_past


def find_live_method(name: str) -> Method:
    """Return a new method that serves a space.

    Raises:
        InvalidArgumentError: If there is no such method, or it needs a pool of recorded runs.
    """
    method = find_method(name)
    if method.needs_pool:
        raise InvalidArgumentError(
            f"A method of real training must propose configurations of a space, but {name!r} chooses among recorded runs only; "
            f"possible are {', '.join(LIVE_METHODS)}."
        )
    return method
