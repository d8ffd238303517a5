"""What a person is told of a decision: the same sentences on the console, in the history and on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from metahp_tuning.precedence import Change, Kept
from metamodel.explanation import describe_prediction, format_value
from metamodel.recommendation import Decision, Recommendation


def describe_change(change: Change) -> str:
    """Write one change as ``lr 0.001 -> 0.0123``."""
    return f"{change.raw_name} {format_value(change.old)} -> {format_value(change.new)}"


def start_message(
    recommendation: Recommendation, changes: Sequence[Change], kept: Sequence[Kept] = (), objective: str | None = None, note: str = ""
) -> str:
    """Return the lines shown at the start of a run.

    Args:
        recommendation: What was recommended.
        changes: What is rewritten.
        kept: What was left alone and why.
        objective: Name of the objective.
        note: A further remark, e.g. that a model was just fitted.
    """
    lines = []
    if changes:
        lines.append(f"metahp: {', '.join(describe_change(change) for change in changes)}")
        for change in changes:
            if change.reason != recommendation.reason:
                lines.append(f"  {change.raw_name}: {change.reason}")
        if recommendation.decision is Decision.APPLY:
            lines.append(f"  {describe_prediction(recommendation, objective)}; {recommendation.reason}")
    else:
        lines.append(f"metahp: nothing changed; {recommendation.reason}")
    lines += [f"  {item.raw_name} stays {format_value(item.value)}: {item.reason}" for item in kept]
    if note:
        lines.append(f"  {note}")
    lines.append(f"  recommendation {recommendation.id} (METAHP_PIN={recommendation.id} repeats it, METAHP=off switches this off)")
    return "\n".join(lines)
