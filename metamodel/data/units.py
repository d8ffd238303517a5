"""The unit of a prediction."""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """The unit in which predictions are given."""

    RANK = "rank"
    """Share of random configurations of the space that are worse, in [0, 1]; larger is better."""
    OBJECTIVE = "objective"
    """The task's own objective, in its units and direction."""
