"""The wording of an explanation: the same sentences on the console, in the history and on the command line."""

from __future__ import annotations

import math
from typing import Any

from metamodel.data.nouns import count
from metamodel.data.units import Unit
from metamodel.recommendation import Evidence, Recommendation


def format_value(value: Any) -> str:
    """Write a hyperparameter for reading: four significant digits for floats, everything else as it is."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return str(value)


def show_setting(name: str, value: Any) -> str:
    """Write a setting for reading: steps of warm-up below one are a share of all steps."""
    is_share = name.rpartition(".")[2] == "warmup_steps" and isinstance(value, float) and 0 < value < 1
    return f"{100 * value:.3g}% of the steps" if is_share else format_value(value)


def describe_evidence(evidence: Evidence) -> str:
    """Say in half a sentence what a recommendation rests on."""
    parts = []
    if evidence.n_runs:
        parts.append(count(evidence.n_runs, "run") + " of this task")
    if evidence.n_related:
        ways = evidence.related or {"with other model code": evidence.n_related}
        parts += [f"{count(n, 'run')} of it {way}" for way, n in ways.items()]
    if evidence.n_sibling_runs:
        parts.append(f"{count(evidence.n_sibling_runs, 'run')} of {count(evidence.n_siblings, 'sibling task')}")
    if evidence.n_other_runs:
        parts.append(f"{count(evidence.n_other_runs, 'run')} of {count(evidence.n_tasks, 'other task')}")
    if not evidence.n_starter_tasks:
        return " and ".join(parts) if parts else "no finished runs"
    starter = f"{count(evidence.n_starter_runs, 'small network')} of {count(evidence.n_starter_tasks, 'task')}"
    if parts:
        return f"{' and '.join(parts)}; prior from the starter history ({starter})"
    return f"the starter history, not from your runs ({starter})"


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
