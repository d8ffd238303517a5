"""A recommendation that says exactly what a test wants: stored and pinned, so that nothing has to be learned first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from store import History, RunRecord
from store.ids import new_id


def recommend_exactly(history: History, config: Mapping[str, Any]) -> str:
    """Store a recommendation of a configuration, and return its id."""
    made = Recommendation(
        new_id(), dict(config), 0.9, (0.8, 1.0), 0.5, 0.99, 0.98, Unit.RANK, Evidence(n_runs=9), Decision.APPLY, "the test says so"
    )
    save_recommendation(history, made)
    return made.id


def pin(history: History, monkeypatch: pytest.MonkeyPatch, **config: Any) -> str:
    """Store and pin a recommendation; return its id."""
    identity = recommend_exactly(history, config)
    monkeypatch.setenv("METAHP_PIN", identity)
    return identity


def newest(history: History) -> RunRecord:
    return history.runs(newest_first=True, limit=1)[0]
