"""Where a history lies."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from store.errors import HistoryPathError
from store.switches import HISTORY_VARIABLE


def default_history_path() -> Path:
    """Return where the history lies unless a path is given: ``$METAHP_HISTORY``, else the user's data directory."""
    chosen = os.environ.get(HISTORY_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return platformdirs.user_data_path("metahp") / "history.db"


def resolve_path(path: str | os.PathLike[str] | None) -> Path:
    """Return the absolute path of a history.

    Raises:
        HistoryPathError: If the path is ``:memory:`` or no path at all.
    """
    if path is None:
        path = default_history_path()
    if not isinstance(path, str | os.PathLike):
        raise HistoryPathError(f"A history is a path, a History or None, but got {type(path).__name__}. Pass the path of a file.")
    text = os.fspath(path)
    if text == ":memory:" or not text or "\x00" in text:
        raise HistoryPathError(f"A history is a file that several processes share, but got {text!r}. Pass the path of a file.")
    try:
        return Path(os.path.abspath(os.path.expanduser(text)))
    except FileNotFoundError:  # of the working directory
        raise HistoryPathError(f"The history {text} is relative to a directory that was deleted. Pass an absolute path.") from None


def is_new_history(path: Path) -> bool:
    """Return whether nothing is there yet and a history can be made, as far as a look shows; where that is doubtful, opening it decides.

    Args:
        path: Absolute path.
    """
    there = next((folder for folder in path.parents if folder.exists()), None)
    if there is None or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return False
    if path.exists():  # the file system knows which spellings of a name are one
        return False
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return True
    except OSError:  # nobody may look into it
        return False
    # What is spooled beside a missing file is ingested by opening it.
    return not any(name.startswith(path.name) for name in names)
