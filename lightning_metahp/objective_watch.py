"""The objective of one run: found as soon as it is logged, given its value under one name, missed as soon as it should have been there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_metahp.guard import say
from lightning_metahp.objective import (
    PER_LOADER,
    Objective,
    missing_objective_message,
    no_objective_message,
    objective_from_logged,
)
from store.errors import ObjectiveWarning
from store.user_warnings import warn_user


class ObjectiveWatch:
    """Follows what one run logs.

    Args:
        found: The objective, None as long as it is not known.
        direction: The user's choice of a direction, None to find it.

    Attributes:
        found: Likewise.
        has_warned: Whether the user was told that it is missing.
    """

    def __init__(self, found: Objective | None = None, direction: str | None = None) -> None:
        self.found = found
        self.has_warned = False
        self._direction = direction
        self._has_chosen = False

    @property
    def name(self) -> str | None:
        """Base name of the objective."""
        return None if self.found is None else self.found.name

    def settle(self, logged: Mapping[str, Any]) -> bool:
        """Look for the objective among what was logged, unless it is known.

        Args:
            logged: Name -> metric object behind it, None where a plain number was logged.

        Returns:
            Whether this call has found it.
        """
        if self.found is not None or not logged:
            return False
        self.found = objective_from_logged(logged, self._direction)
        return self.found is not None

    def is_among(self, names: Mapping[str, Any]) -> bool:
        """Say whether the objective is among some names, however it is spelled there."""
        return self.found is not None and self.found.among(names) is not None

    def put_value(self, values: dict[str, Any], logged: Mapping[str, Any]) -> bool:
        """Put the objective's value under its base name.

        Args:
            values: What is going to be recorded; receives it.
            logged: Where it is looked for.

        Returns:
            Whether it is there.
        """
        spelling = None if self.found is None else self.found.among(logged)
        if self.found is None or spelling is None:
            return False
        name = self.found.name
        values[name] = logged[spelling]
        if PER_LOADER in spelling and self.found.spelling != spelling and not self._has_chosen:
            self._has_chosen = True
            found = sorted((key for key in logged if key.startswith(f"{name}{PER_LOADER}")), key=lambda key: (len(key), key))
            others = f"; pass objective={found[1]!r} for the next one" if len(found) > 1 else ""
            say(f"metahp: {name} is logged once for each validation loader, and {spelling} is used as the objective{others}")
        return True

    def warn_once(self, logged: Mapping[str, Any], when: str) -> None:
        """Say that there is no objective, or that it was not logged yet, with what works instead.

        Args:
            logged: Names logged so far, with their values where they are known.
            when: Until when it was not; empty where the training is over.
        """
        if self.has_warned:
            return
        self.has_warned = True
        message = no_objective_message(logged, is_over=not when)
        if self.found is not None:
            message = missing_objective_message(self.found, logged, when)
        warn_user(message, ObjectiveWarning)
