"""A history for as long as a query takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store import History


@contextmanager
def opened_history(history: History | str | os.PathLike[str] | None) -> Iterator[History]:
    """Open a history and close it afterwards; one that is given open stays open.

    Args:
        history: A history, its path, or None for the default one.

    Raises:
        HistoryPathError: If the path cannot hold a history.
        NotAHistoryError: If the file is something else.
        HistoryTooNewError: If a newer version wrote it.
    """
    from store import open_history

    found = open_history(history)
    try:
        yield found
    finally:
        if found is not history:
            found.close()
