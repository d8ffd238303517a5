"""A random forest of scikit-learn that learns from its earlier runs: ``python -m examples.suggest.scikit_random_forest``.

It predicts the progress of diabetes from ten measurements; the data come with scikit-learn. The first runs are what one would try by hand,
the next ones try what would teach most (``mode="explore"``), and the last one takes what is expected to be best. Every run goes into the
history, so a second start of this file begins with what the first one learned.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import cross_val_score

from metahp_tuning import suggest
from store import History

TASK, OBJECTIVE = "diabetes-forest", "r2"
DEFAULTS: dict[str, Any] = {"max_features": 1.0, "min_samples_leaf": 1, "max_depth": 30}
BY_HAND: list[dict[str, Any]] = [
    DEFAULTS,
    {"max_features": 0.3, "min_samples_leaf": 1, "max_depth": 30},
    {"max_features": 1.0, "min_samples_leaf": 20, "max_depth": 30},
    {"max_features": 0.3, "min_samples_leaf": 5, "max_depth": 3},
]
SPACE: dict[str, Any] = {
    "max_features": FloatDistribution(0.1, 1.0),
    "min_samples_leaf": IntDistribution(1, 50, log=True),
    "max_depth": IntDistribution(2, 30, log=True),
}


def train(history: History, config: Mapping[str, Any], n_trees: int) -> float:
    """Cross-validate a forest, record it, and return its R2."""
    inputs, targets = load_diabetes(return_X_y=True)
    with history.start_run(task=TASK, hparams=config, objective=OBJECTIVE) as run:
        forest = RandomForestRegressor(n_trees, random_state=0, **config)
        score = float(cross_val_score(forest, inputs, targets, cv=5, scoring="r2").mean())
        run.log({OBJECTIVE: score})
    shown = ", ".join(f"{name} {value:.3g}" for name, value in config.items())
    print(f"R2 {score:.4f}  with {shown}")
    return score


def main(arguments: Sequence[str] | None = None) -> tuple[float, float]:
    """Run it; return the R2 of the default forest and of the one that was suggested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--explore", type=int, default=6, help="runs that try what would teach most")
    parser.add_argument("--trees", type=int, default=50)
    parser.add_argument("--history", type=Path, help="default: that of METAHP_HISTORY, or of the user")
    options = parser.parse_args(arguments)
    with History(options.history) as history:
        by_hand = [train(history, config, options.trees) for config in BY_HAND]
        asked: dict[str, Any] = {"space": SPACE, "task": TASK, "objective": OBJECTIVE, "history": history}
        for _ in range(options.explore):
            train(history, suggest(DEFAULTS, mode="explore", **asked), options.trees)
        suggested = train(history, suggest(DEFAULTS, **asked), options.trees)
    print(f"the default forest: R2 {by_hand[0]:.4f}; suggested: R2 {suggested:.4f}")
    return by_hand[0], suggested


if __name__ == "__main__":
    main()
