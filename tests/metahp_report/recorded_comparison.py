"""Writes a finished live comparison into a history, as the runner does it, without training anything."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from store import History

ID = "c-recorded"
SPACES: dict[str, dict[str, list[float]]] = {
    "text": {"learning_rate": [2e-5, 3e-5, 5e-5], "batch_size": [16, 32, 64], "epochs": [3, 4, 5]},
    "series": {"learning_rate": [0.001, 0.005, 0.01], "batch_size": [16, 32, 64], "epochs": [20, 50, 100]},
}
OBJECTIVES = {"text": ("accuracy", "max", ["accuracy", "f1"]), "series": ("mse", "min", ["mse", "mae"])}
SKILL = {"default": 0.0, "grid": 0.0, "random": 0.0, "tpe": 0.3, "metahp": 0.8, "maml": 0.5}


def write_comparison(
    history: History,
    tasks: Sequence[str] = ("text", "series"),
    methods: Sequence[str] = ("default", "random", "metahp"),
    budget: int = 4,
    seeds: int = 2,
    *,
    skipped: Sequence[tuple[str, str, int]] = (),
    has_energy: bool = False,
) -> str:
    """Write a comparison and return its id; ``skipped`` names searches, as task, method and seed, that were not begun."""
    plan = {"tasks": [*tasks], "methods": [*methods], "budget": budget, "seeds": seeds, "size": "tiny", "origin": "the other tasks"}
    plan |= {"hardware": "2 CPU cores", "data": "local files"}
    infos = {task: _info(task) for task in tasks}
    note = {"id": ID, "plan": plan, "tasks": infos, "names": {task: f"live-{task}" for task in tasks}}
    history.start_run(task="live comparisons", framework="comparison", description={"comparison": note}).finish()
    for task in tasks:
        for method in methods:
            for seed in range(seeds):
                if (task, method, seed) not in skipped:
                    _search(history, task, method, seed, 1 if method == "default" else budget, has_energy=has_energy)
    return ID


def _info(task: str) -> dict[str, Any]:
    objective, direction, metrics = OBJECTIVES[task]
    space = SPACES[task]
    defaults = {name: values[0] for name, values in space.items()}
    about = f"{task} of a recorded kind"
    return {
        "name": task,
        "about": about,
        "objective": objective,
        "direction": direction,
        "metrics": metrics,
        "space": space,
        "defaults": defaults,
    }


def _search(history: History, task: str, method: str, seed: int, n: int, *, has_energy: bool) -> None:
    draw = random.Random(f"{task}{method}{seed}")
    for index in range(n):
        # a method with skill starts near the best and stays there; the others draw
        config = {name: values[1] if draw.random() < SKILL[method] else draw.choice(values) for name, values in SPACES[task].items()}
        if method == "default":
            config = {name: values[0] for name, values in SPACES[task].items()}
        is_failed = method == "random" and index == 1 and seed == 0
        _evaluation(history, task, method, seed, index, config, draw, is_failed=is_failed, has_energy=has_energy)


def _evaluation(
    history: History,
    task: str,
    method: str,
    seed: int,
    index: int,
    config: Mapping[str, float],
    draw: random.Random,
    *,
    is_failed: bool,
    has_energy: bool,
) -> None:
    objective, direction, metrics = OBJECTIVES[task]
    loss = sum(abs(list(values).index(config[name]) - 1) for name, values in SPACES[task].items()) / 10 + draw.random() / 30
    value = 0.9 - loss if direction == "max" else 0.1 + loss
    prediction = (
        {"value": value + 0.01, "low": value - 0.02, "high": value + 0.05, "unit": "objective"} if method == "metahp" and index else None
    )
    if method == "metahp" and not index:
        prediction = {"value": 0.8, "low": 0.5, "high": 0.99, "unit": "rank"}
    note = {"id": ID, "task": task, "size": "tiny", "method": method, "seed": seed, "index": index, "config": dict(config)}
    note |= {"decision_s": 0.1 * (index + 1), "note": "", "prediction": prediction}
    run = history.start_run(
        task=f"live-{task}", hparams=dict(config), objective=f"val_{objective}", direction=direction, description={"comparison": note}
    )
    sign = 1 if direction == "max" else -1
    for epoch in range(3):
        logged = {f"val_{name}": value - sign * (2 - epoch) / 20 for name in metrics}
        run.log(logged if not is_failed else {f"val_{objective}": math.nan}, step=epoch + 1, epoch=epoch + 1)
    run.log({f"test_{name}": value - sign * 0.01 for name in metrics}, step=3)
    run.finish(error=RuntimeError("out of luck") if is_failed else None)
    seconds = 5.0 * config["epochs"] * (64 / config["batch_size"]) / 4 + draw.random()
    with history._writing() as connection:  # nobody trained, so the time is told
        connection.execute("UPDATE runs SET wall_s = ?, cpu_s = ? WHERE id = ?", (seconds, 1.8 * seconds, run.id))
        if has_energy:
            sample = (run.id, "energy_counter_j", "gpu0", seconds, 150 * seconds)
            connection.execute("INSERT OR REPLACE INTO resources (run_id, name, device, elapsed_s, value) VALUES (?, ?, ?, ?, ?)", sample)
