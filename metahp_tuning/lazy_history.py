"""A history that a decision reads and never makes: the file appears when a run is recorded, not before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metamodel.recommendation import Recommendation, save_recommendation
from store.paths import is_new_history, resolve_path
from store.values import Opaque, decode_value, encode_value

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from store import History


@dataclass(frozen=True, slots=True)
class PendingRecommendation:
    """A recommendation to be saved once the history is made.

    Attributes:
        recommendation: The recommendation.
        current: The configuration without us.
        changes: What was rewritten, as ``Change.to_dict`` gives it.
    """

    recommendation: Recommendation
    current: Mapping[str, Any]
    changes: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Keep of the configuration what a history stores of it, as plain data: an odd object could not travel to another process."""
        object.__setattr__(self, "current", _plain(decode_value(encode_value(dict(self.current)))))

    def save(self, history: History) -> None:
        """Write it.

        Raises:
            MetaHPError: If the history cannot be written.
        """
        save_recommendation(history, self.recommendation, current=self.current, changes=[dict(change) for change in self.changes])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that loads where our classes do not exist."""
        found = self.recommendation
        return {
            "recommendation": {**found.to_dict(), "unit": str(found.unit), "decision": str(found.decision)},
            "current": dict(self.current),
            "changes": [dict(change) for change in self.changes],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PendingRecommendation:
        """Rebuild what ``to_dict`` gave."""
        return cls(Recommendation.from_dict(values["recommendation"]), values["current"], tuple(values["changes"]))


def _plain(value: Any) -> Any:
    """Return a decoded value with the text of what cannot come back."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return str(value) if isinstance(value, Opaque) else value


class LazyHistory:
    """A history that is opened when it is first asked. Where there is none yet, an empty one in a temporary folder answers.

    Args:
        given: A history, its path, or None for the default one.

    Attributes:
        is_new: Whether there is no history yet.

    Raises:
        HistoryPathError: If it is no path.
    """

    def __init__(self, given: History | str | os.PathLike[str] | None) -> None:
        self._given = given
        self._opened: History | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        is_path = given is None or isinstance(given, str | os.PathLike)
        self.is_new = is_path and is_new_history(resolve_path(given))  # type: ignore[arg-type]  # it is a path

    @property
    def history(self) -> History:
        """The open history, for reading; for writing only where ``is_new`` is false."""
        from store import open_history

        if self._opened is None and self.is_new:
            self._folder = tempfile.TemporaryDirectory(prefix="metahp-", ignore_cleanup_errors=True)
            self._opened = open_history(os.path.join(self._folder.name, "empty.db"))
        elif self._opened is None:
            self._opened = open_history(self._given)
        return self._opened

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close what was opened here."""
        if self._opened is not None and self._opened is not self._given:
            self._opened.close()
        if self._folder is not None:
            self._folder.cleanup()
