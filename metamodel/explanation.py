"""The wording of an explanation: the same sentences on the console, in the history and on the command line."""

from __future__ import annotations

import math
from typing import Any

from metamodel.data.nouns import count
from metamodel.data.units import Unit
from metamodel.recommendation import Evidence, Recommendation
from store.values import same_value

MAX_NAMED = 2
"""Sources of evidence that a sentence names."""
SINGLE_PRECISION = 1e-7


def format_value(value: Any, digits: int = 4) -> str:
    """Write a hyperparameter for reading: four significant digits for floats, everything else as it is."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.{digits}g}"
    return str(value)


def show_setting(name: str, value: Any, digits: int = 4) -> str:
    """Write a setting for reading: steps of warm-up below one are a share of all steps."""
    is_share = name.rpartition(".")[2] == "warmup_steps" and isinstance(value, float) and 0 < value < 1
    return f"{100 * value:.{digits - 1}g}% of the steps" if is_share else format_value(value, digits)


def show_change(name: str, old: Any, new: Any) -> str:
    """Write a change as ``lr 0.001 -> 0.0123``, with as many digits as tell the two apart; empty where they are the same value.

    Numbers that agree in single precision are the same: that is how the frameworks keep them.
    """
    numbers = [value for value in (old, new) if isinstance(value, int | float) and not isinstance(value, bool)]
    if same_value(old, new) or (len(numbers) == 2 and math.isclose(*numbers, rel_tol=SINGLE_PRECISION)):
        return ""
    pairs = [(show_setting(name, old, digits), show_setting(name, new, digits)) for digits in range(4, 10)]
    before, after = next((pair for pair in pairs if pair[0] != pair[1]), (repr(old), repr(new)))
    return f"{name} {before} -> {after}"


def describe_evidence(evidence: Evidence) -> str:
    """Say in half a sentence what a recommendation rests on: at most two sources by name."""
    sources = [(evidence.n_runs, count(evidence.n_runs, "run") + " of this task")]
    related = dict(evidence.related) or {"with other model code": evidence.n_related}
    for way, n in sorted(related.items(), key=lambda item: -item[1]):
        is_first = not evidence.n_runs and len(sources) == 1
        sources.append((n, f"{count(n, 'run')} of this task {way}" if is_first else f"{n} {way}"))
    sources.append((evidence.n_sibling_runs, f"{count(evidence.n_sibling_runs, 'run')} of {count(evidence.n_siblings, 'sibling task')}"))
    sources.append((evidence.n_other_runs, f"{count(evidence.n_other_runs, 'run')} of {count(evidence.n_tasks, 'other task')}"))
    sources = [source for source in sources if source[0]]
    named, n_more = [text for _, text in sources[:MAX_NAMED]], sum(n for n, _ in sources[MAX_NAMED:])
    known = f"{', '.join(named)} and {n_more} more" if n_more else " and ".join(named)
    if not evidence.n_starter_tasks:
        return known or "no run with an outcome"
    starter = f"{count(evidence.n_starter_runs, 'small network')} of {count(evidence.n_starter_tasks, 'task')}"
    return f"{known}; prior from the starter history ({starter})" if known else f"the starter history, not from your runs ({starter})"


def describe_prediction(recommendation: Recommendation, objective: str | None = None) -> str:
    """Say what is expected, in ranks or in units of the objective, with the interval and against the user's own values."""
    if math.isnan(recommendation.prediction):
        return "no prediction"
    low, high = sorted(recommendation.interval)
    own = recommendation.own_prediction
    if recommendation.unit is Unit.RANK:
        text = f"expected better than {recommendation.prediction:.0%} of random configurations (80 % interval {low:.0%} to {high:.0%})"
        return text + (f", your own values {own:.0%}" if own is not None else "")
    name = objective or "objective"
    text = f"expected {name} {recommendation.prediction:.4g} (80 % interval {low:.4g} to {high:.4g})"
    return text + (f", your own values {own:.4g}" if own is not None else "")
