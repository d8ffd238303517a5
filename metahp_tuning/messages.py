"""What a person is told of a decision: the same sentences on the console, in the history and on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metahp_tuning.precedence import Change, Kept
from metamodel.explanation import describe_prediction, show_change, show_setting
from metamodel.recommendation import Decision, Recommendation
from store.statuses import Source


def describe_change(change: Change) -> str:
    """Write one change as ``lr 0.001 -> 0.0123``."""
    return show_change(change.raw_name, change.old, change.new)


def describe_changes(changes: Sequence[Change]) -> str:
    """Write the changes that there are to see."""
    return ", ".join(filter(None, map(describe_change, changes)))


def nothing_changed(reason: str) -> str:
    """Return the one line for a run that stays as it is."""
    return f"metahp: nothing changed; {reason}"


def nothing_left_message(reason: str, kept: Sequence[Kept]) -> str:
    """Return the lines for a run in which nothing may be rewritten.

    Args:
        reason: Why that is so as a whole, empty where it is because of each single setting.
        kept: What was left alone and why.
    """
    return "\n".join([nothing_changed(reason or "no tunable hyperparameter remains"), *_kept_lines(kept)])


def start_message(
    recommendation: Recommendation,
    changes: Sequence[Change],
    kept: Sequence[Kept] = (),
    objective: str | None = None,
    note: str = "",
    not_applied: Sequence[Kept] = (),
    *,
    is_saved: bool = True,
    is_pinned: bool = False,
) -> str:
    """Return the lines shown at the start of a run; one line where nothing is recommended.

    Args:
        recommendation: What was recommended.
        changes: What is rewritten.
        kept: What was left alone and why.
        objective: Name of the objective.
        note: A further remark, e.g. that a model was just fitted.
        not_applied: Values of a pinned recommendation that this run does not get, and why. Its prediction is for all of them together, so
            it is left out then.
        is_pinned: Whether it is a stored one that is applied again. Where a limit changes one of its values, its prediction is left out.
        is_saved: Whether the recommendation is, or will be, in a history; otherwise nobody can repeat it.
    """
    lines = []
    is_applied = recommendation.decision is Decision.APPLY
    is_whole = not not_applied and not (is_pinned and any(change.source is Source.CONSTRAINT for change in changes))
    if changes:
        lines.append(f"metahp: {describe_changes(changes)}")
        lines += [f"  {change.raw_name}: {change.reason}" for change in changes if change.reason != recommendation.reason]
        if is_applied and is_whole:
            lines.append(f"  {describe_prediction(recommendation, objective)}; {recommendation.reason}")
    elif not_applied:
        lines.append(nothing_changed("no value of the pinned recommendation can be applied here"))
    elif is_pinned:
        as_it_is = "every value of the pinned recommendation is in force already"
        lines.append(nothing_changed(as_it_is if is_applied else f"the pinned recommendation abstained: {recommendation.reason}"))
    else:
        return _abstention(recommendation.reason, kept, note)
    left = {item.name: item for item in kept}
    lines += [
        f"  {item.raw_name} {show_setting(item.raw_name, item.value)} was not applied: {item.reason}"
        for item in not_applied
        if item.name not in left
    ]
    lines += _kept_lines(kept, {item.name: item.value for item in not_applied})
    if note:
        lines.append(f"  {note}")
    if is_saved:
        how = "pinned by METAHP_PIN" if is_pinned else f"METAHP_PIN={recommendation.id} repeats it" if is_applied else ""
        lines.append(f"  recommendation {recommendation.id} ({', '.join(filter(None, [how, 'METAHP=off switches this off']))})")
    return "\n".join(lines)


def _abstention(reason: str, kept: Sequence[Kept], note: str) -> str:
    """Return one line: the reason, what was left alone and why, and the note. There is nothing to repeat or to switch off."""
    stays = "; ".join(line.strip() for line in _kept_lines(kept))
    parts = [part for part in (reason, stays, note) if part]
    return nothing_changed(" ".join([*(f"{part.rstrip('.')}." for part in parts[:-1]), *parts[-1:]]))


def _kept_lines(kept: Sequence[Kept], pinned: Mapping[str, Any] | None = None) -> list[str]:
    lines = [f"  {item.raw_name} stays {show_setting(item.raw_name, item.value)}: {item.reason}" for item in kept]
    values = pinned or {}
    added = [f"; {show_setting(item.raw_name, values[item.name])} was not applied" if item.name in values else "" for item in kept]
    return [line + text for line, text in zip(lines, added, strict=True)]
