"""Every ``METAHP_*`` environment variable, read here and nowhere else.

A switch understands ``off 0 false no`` and ``on 1 true yes`` in any case. Another word is one warning that names the possible ones, and
the default holds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

OFF_WORDS = frozenset({"off", "0", "false", "no"})
ON_WORDS = frozenset({"on", "1", "true", "yes"})

_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch.

    Attributes:
        name: Environment variable.
        default: What holds where it is unset.
        meaning: What it switches, for documentation.
    """

    name: str
    default: bool
    meaning: str

    @property
    def is_on(self) -> bool:
        """Whether it is on now."""
        word = os.environ.get(self.name, "").strip().lower()
        if word in ON_WORDS:
            return True
        if word in OFF_WORDS:
            return False
        if word:
            _warn_of(self, word)
        return self.default


ENABLED = Switch("METAHP", True, "everything: recording and advice")
REFIT = Switch("METAHP_REFIT", True, "fitting a missing or outdated meta-model when it is needed")
STARTER = Switch("METAHP_STARTER", True, "advice from the starter history")
AUTOLOG = Switch("METAHP_AUTOLOG", False, "recording of every Lightning Trainer without a callback")
RECORD_PATHS = Switch("METAHP_RECORD_PATHS", False, "recording of host name, user and paths as they are")
SWITCHES = (ENABLED, REFIT, STARTER, AUTOLOG, RECORD_PATHS)

PIN_VARIABLE = "METAHP_PIN"
HISTORY_VARIABLE = "METAHP_HISTORY"
RESOURCES_VARIABLE = "METAHP_RESOURCES_S"
VARIABLES = {
    HISTORY_VARIABLE: "path of the default history; unset: in the user data folder",
    PIN_VARIABLE: "id of a stored recommendation that is applied again",
    RESOURCES_VARIABLE: "seconds between two samples of CPU, memory and GPU; an off-word switches sampling off",
}
"""Variables that are no switches -> their meaning, for documentation."""


def is_off() -> bool:
    """Say whether ``METAHP=off`` forbids us everything."""
    return not ENABLED.is_on


def pinned_recommendation() -> str | None:
    """Return the id that ``METAHP_PIN`` names, None where there is none."""
    return os.environ.get(PIN_VARIABLE, "").strip() or None


def _warn_of(switch: Switch, word: str) -> None:
    if (switch.name, word) in _warned:
        return
    _warned.add((switch.name, word))
    from store.user_warnings import warn_user

    state = "on" if switch.default else "off"
    message = (
        f"{switch.name} must be one of {', '.join(sorted(OFF_WORDS | ON_WORDS))}, but is {word!r}; it is taken as {state}. "
        f"Set {switch.name}=off or {switch.name}=on."
    )
    warn_user(message)
