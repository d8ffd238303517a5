"""What a scenario reports."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Trials:
    """One line of the table.

    Attributes:
        name: What was done to the history.
        must: What must hold.
        tries: How often it was tried.
        figures: What was measured, ready to print.
        failures: What did not hold, empty if all did.
        skipped: Why it could not be tried here, None if it was.
    """

    name: str
    must: str
    tries: int = 0
    figures: str = ""
    failures: list[str] = field(default_factory=list)
    skipped: str | None = None

    @property
    def result(self) -> str:
        """``held``, ``FAILED`` with how often, or ``not tried``."""
        if self.skipped is not None:
            return "not tried"
        return f"FAILED {len(self.failures)} times" if self.failures else "held"

    def expect(self, holds: bool, complaint: str) -> None:
        """Note a complaint where something does not hold."""
        if not holds:
            self.failures.append(complaint)
