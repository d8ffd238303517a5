"""Warnings that point at the user's own line, and what was said there before."""

from __future__ import annotations

import logging
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

from store.errors import MetaHPWarning

_log = logging.getLogger(__name__)

_OUR_PACKAGES = (
    "store",
    "metamodel",
    "metahp_tuning",
    "lightning_metahp",
    "hf_callbacks",
    "metahp_report",
    "compare_baselines",
    "metahp_cli",
)
_LIBRARIES = frozenset(
    str.split(
        "lightning lightning_fabric pytorch_lightning torch transformers accelerate trl peft setfit sentence_transformers datasets optuna "
        "sklearn keras ray hydra jsonargparse typer click joblib pluggy _pytest IPython ipykernel"
    )
)
"""Packages that call us on a user's behalf."""

_VARIABLE = re.compile(r"'[^']*'|\d{6}-\d{9}-[0-9a-f]+|\([^()]*\)|-?\d[\d.,]*(e[+-]?\d+)?")
"""What differs between messages of one kind: names, ids, remarks in brackets, numbers."""

_said: set[tuple[object, ...]] = set()


def warn_user(message: str, category: type[Warning] = MetaHPWarning) -> None:
    """Issue a warning for the line of the user's code that led here.

    It cannot stop the program: where warnings are errors it is logged instead, since nothing of ours may end a training. Python shows
    it once for each text and line, so that a loop over folds does not repeat it.
    """
    frame = next(_user_frames(), None) or sys._getframe(1)
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__", "<unknown>")
    try:
        warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, name, registry)
    except Warning:
        _log.warning(message)


def is_repeated(message: str, *context: object) -> bool:
    """Say whether a message, whatever numbers are in it, was given at this place of the user's program before, as by the folds of a loop.

    Args:
        message: What would be said.
        *context: What must be the same, too, e.g. the history.
    """
    place = tuple((frame.f_code.co_filename, frame.f_lineno) for frame in _user_frames())
    key = (_VARIABLE.sub("#", message), place, *context)
    if key in _said:
        return True
    _said.add(key)
    return False


def _user_frames() -> Iterator[FrameType]:
    """Yield the frames of the user's code, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _LIBRARIES and not _is_ours_or_pythons(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


@cache
def _is_ours_or_pythons(filename: str) -> bool:
    if filename.startswith("<frozen"):
        return True
    path = Path(filename)
    root = Path(__file__).parents[1]
    if path.is_relative_to(root) and path.relative_to(root).parts[0] in _OUR_PACKAGES:
        return True
    standard = Path(sysconfig.get_path("stdlib"))
    return path.is_relative_to(standard) and not {"site-packages", "dist-packages"} & set(path.parts)
