"""What a recommendation is, and its way into and out of a history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from metamodel.data.units import Unit

if TYPE_CHECKING:
    from store import History


__all__ = ["Decision", "Evidence", "Recommendation", "Unit", "load_recommendation", "save_recommendation"]


class Decision(StrEnum):
    """Whether a recommendation should be acted on."""

    APPLY = "apply"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a recommendation rests on.

    Attributes:
        n_runs: Finished runs of this very task and model source.
        n_related: Finished runs of this task whose model source, length or definition of the objective differs.
        related: In which way these differ -> how many.
        n_siblings: Sibling tasks: alike in all but size, fold, length or an uncertain sign of content.
        n_sibling_runs: Their finished runs.
        n_tasks: Other tasks with finished runs.
        n_other_runs: Their finished runs.
        n_starter_tasks: Tasks of the starter history, which is not the user's own.
        n_starter_runs: Their runs.
        n_failed: Diverged and out-of-memory runs among all of these.
        best_run_id: Best run of this task so far.
        left_out: Why runs were not used -> how many.
        model_id: Meta-model file that answered, None if there was none.
        untuned: Names of the space that varied in no run: nothing is known about them.
        note: What happened to the meta-model on the way, e.g. that it was fitted just now.
        not_advised: Where the query had no space: what the task's runs have tuned that the answer leaves out -> why.
    """

    n_runs: int = 0
    n_related: int = 0
    n_tasks: int = 0
    n_other_runs: int = 0
    n_failed: int = 0
    best_run_id: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    model_id: str | None = None
    untuned: tuple[str, ...] = ()
    note: str = ""
    n_starter_tasks: int = 0
    n_starter_runs: int = 0
    related: Mapping[str, int] = field(default_factory=dict)
    n_siblings: int = 0
    n_sibling_runs: int = 0
    not_advised: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A configuration, its expected outcome, and whether to act on it.

    Attributes:
        id: Sortable, unique; ``METAHP_PIN=<id>`` re-applies exactly this one.
        config: The names of the space (or of the candidates) -> recommended value, raw names as the caller gave them.
        prediction: Expected outcome of ``config``, in ``unit``; NaN if nothing can be predicted.
        interval: Central 80 % interval of it, ``(low, high)``.
        own_prediction: Expected outcome of the user's own configuration, None if none was given.
        gain_probability: Probability that ``config`` beats the user's own configuration, None likewise.
        finish_probability: Probability that ``config`` neither diverges nor runs out of memory.
        unit: Unit of the predictions.
        evidence: What it rests on.
        decision: ``apply`` or ``abstain``.
        reason: The reason, one sentence.
        task_id: Task it was made for.
        mode: ``best`` or ``explore``.
    """

    id: str
    config: Mapping[str, Any]
    prediction: float
    interval: tuple[float, float]
    own_prediction: float | None
    gain_probability: float | None
    finish_probability: float
    unit: Unit
    evidence: Evidence
    decision: Decision
    reason: str
    task_id: str | None = None
    mode: str = "best"

    def to_dict(self) -> dict[str, Any]:
        """Return every field, JSON-compatible but for the values of ``config``, which keep their types."""
        evidence = _values(self.evidence)
        evidence |= {name: dict(evidence[name]) for name in ("left_out", "related", "not_advised")}
        return {**_values(self), "config": dict(self.config), "interval": list(self.interval), "evidence": evidence}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recommendation:
        """Rebuild a recommendation from ``to_dict``."""
        low, high = values["interval"]
        return cls(
            **{
                **values,
                "interval": (low, high),
                "unit": Unit(values["unit"]),
                "decision": Decision(values["decision"]),
                "evidence": Evidence(**{**values["evidence"], "untuned": tuple(values["evidence"].get("untuned", ()))}),
            }
        )


def _values(record: Evidence | Recommendation) -> dict[str, Any]:
    """Return the fields by name; values are neither copied nor looked into, unlike by ``dataclasses.asdict``."""
    return {item.name: getattr(record, item.name) for item in fields(record)}


def save_recommendation(
    history: History,
    recommendation: Recommendation,
    *,
    current: Mapping[str, Any] | None = None,
    changes: list[dict[str, Any]] | None = None,
) -> None:
    """Write a recommendation into the history, so that it can be pinned, shown and later joined with its outcome.

    Args:
        history: Open history.
        recommendation: The recommendation.
        current: The user's own configuration at that moment.
        changes: What was really rewritten, as ``Change.to_dict`` gives it.

    Raises:
        MetaHPError: If the history cannot be written.
    """
    history.save_recommendation(recommendation.to_dict(), current=dict(current or {}), changes=changes or [])


def load_recommendation(history: History, recommendation_id: str) -> Recommendation:
    """Read a stored recommendation.

    Raises:
        UnknownRecommendationError: If the history has none of this id.
    """
    return Recommendation.from_dict(history.recommendation(recommendation_id)["recommendation"])
