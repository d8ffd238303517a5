"""What the starter history is worth: the figures of docs/prior.md, made by ``python -m studies.starter.proof``.

The recorded tables are no part of this project; they are looked for in ``$METAHP_SHARED_DATA``, else in ``../shared/data``. Figures are
kept as JSON in ``build/starter-proof``, so that the page can be written again without measuring (``--write``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compare_baselines.replay.day_one import DayOneBenchmark, TableMapping, day_one
from compare_baselines.replay.protocol import Pool, Protocol, load_benchmark
from compare_baselines.replay.report import show_regret
from compare_baselines.replay.runner import run_replay
from metamodel.data.observations import LearningTable, TaskRuns, rank_scores
from metamodel.data.run_groups import RunGroups
from metamodel.data.task import TaskDescription
from metamodel.gp.gp_meta_model import GPMetaModel
from metamodel.gp.meta_model import MetaModel
from metamodel.gp.prediction import TargetTaskData
from metamodel.starter import starter_prior
from store import History
from store.importers.table import import_table
from store.names import Direction
from studies.replay.tables import FIGURES as REPLAYED
from studies.replay.tables import REPLAY_TABLES, ROOT, data_folder, lcbench_space

PROOF_FIGURES = ROOT / "build" / "starter-proof"
PROOF_PAGE = ROOT / "docs" / "prior.md"
PAGE_MARK = "<!-- tables: made by python -m studies.starter.proof -->"
DAY_ONE_COMPARED = ("starter", "defaults", "random", "tpe", "plain-gp")
SLOW_PEER = "gp"
"""Taken from `make replay`, which measures it on the same pools with the same seeds: it knows no past."""
MAPPINGS = {
    "lcbench": TableMapping(known={"model_family": "mlp", "optimizer": "SGD", "lr_scheduler": "cosine"}),
    "hpobench_mlp": TableMapping(
        {"alpha": "weight_decay"},
        {"model_family": "mlp", "optimizer": "Adam", "num_epochs": 243},
        {"learning_rate": 1e-3, "weight_decay": 1e-4, "batch_size": 200, "num_layers": 1, "hidden_size": 100},
    ),
}
"""What is known of all runs of a table: how its authors trained. The defaults of the second are those of scikit-learn's MLPClassifier."""
EVALUATIONS_SHOWN = (1, 2, 3, 5, 8)
N_OWN_TASKS = (0, 2, 3, 4, 6, 8, 12)
OWN_RUNS = 16
N_DRAWS = 6
N_RANKED = 10
"""Which of many almost equally promising configurations comes first is partly luck, so that the best ten are more informative."""


def read_table(name: str, seeds: int) -> DayOneBenchmark:
    """Import a recorded table and turn it into a replay without a past."""
    table = next(table for table in REPLAY_TABLES if table.name == name)
    folder = data_folder()
    join = None if table.join is None else (folder / table.join[0], table.join[1])
    features = None if table.features is None else (folder / table.features[0], table.features[1])
    with tempfile.TemporaryDirectory(prefix="metahp-proof-") as temporary, History(Path(temporary) / "history.db") as history:
        import_table(history, folder / table.file, table.columns, join=join, task_features=features)
        space = lcbench_space() if table.has_space else None
        return day_one(load_benchmark(history, Protocol(n_hist=1, budget=EVALUATIONS_SHOWN[-1], seeds=seeds), space), MAPPINGS[name])


def measure(benchmark: DayOneBenchmark, methods: Sequence[str]) -> dict[str, Any]:
    """Replay the first day, and say how often the first interval of a prediction held what it claimed."""
    report = run_replay(benchmark, list(methods), workers=1, progress=_say)
    return {**report, "coverage": coverage(benchmark)}


def with_slow(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Add the figures of the method that is measured elsewhere, where they are."""
    path = REPLAYED / f"{name}-slow.json"
    if not path.exists() or SLOW_PEER in report["methods"]:
        return report
    found = json.loads(path.read_text(encoding="utf-8"))["methods"][SLOW_PEER]
    return {**report, "methods": {**report["methods"], SLOW_PEER: found}}


def coverage(benchmark: DayOneBenchmark) -> dict[str, float]:
    """Return the share of configurations whose rank lay in the 80 % interval, with and without the widening, before any run."""
    starter = _starter_prior(benchmark)
    held: dict[str, list[float]] = {"shipped": [], "without widening": []}
    for pool in benchmark.pools.values():
        mean, spread = _predicted(starter.model, pool)
        scores = rank_scores(pool.filled)
        width = starter.model.calibration.half_width(0)
        for label, half in (("shipped", width), ("without widening", width / starter_prior.INTERVAL_INFLATION)):
            held[label].append(float((np.abs(scores - mean) < half * spread).mean()))
    return {label: float(np.mean(shares)) for label, shares in held.items()}


def take_over(benchmark: DayOneBenchmark, progress: bool = True) -> list[dict[str, Any]]:
    """Compare what is recommended first with some other tasks of one's own, from these alone and beside the prior.

    Returns:
        An entry for each number of tasks and way: mean regret of the first choice, and of the best ``N_RANKED`` of the ranking.
    """
    names = list(benchmark.pools)
    found: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    context = benchmark.pools[names[0]].description["context"]
    description = TaskDescription(name="?", model_family=context["model_family"])
    starter = _starter_prior(benchmark)
    for draw in range(N_DRAWS):
        rng = np.random.default_rng(draw)
        order = [str(name) for name in rng.permutation(names)]
        tested = order[-max(4, len(names) // 3) :]
        for n_own in (n for n in N_OWN_TASKS if n + len(tested) <= len(names)):
            own = [_as_task(benchmark.pools[name], rng) for name in order[:n_own]]
            ways: dict[str, MetaModel] = {"starter only": starter.model}
            if n_own:
                fitted = GPMetaModel.fit(LearningTable(tuple(own)), {"id": "own"})
                ways = {"own tasks only": fitted, "mixed": starter.combined_with(fitted).model}
            for way, model in ways.items():
                for name in tested:
                    pool = benchmark.pools[name]
                    ranked = _ranked(model, pool, description)
                    found[n_own, way].append((float(pool.regret[ranked[0]]), float(pool.regret[ranked[:N_RANKED]].mean())))
            if progress:
                _say(draw / N_DRAWS, f"{n_own} own tasks")
    return [
        {"n_own": n, "way": way, "first": float(np.mean([a for a, _ in pairs])), "next": float(np.mean([b for _, b in pairs]))}
        for (n, way), pairs in sorted(found.items())
    ]


def _starter_prior(benchmark: DayOneBenchmark) -> starter_prior.StarterPrior:
    known = next(iter(benchmark.pools.values())).description["context"]
    starter = starter_prior.load_starter_prior(TaskDescription(name="?", model_family=known["model_family"]), known)
    if isinstance(starter, str):
        raise AssertionError(f"the starter must apply to networks of its own kind, but: {starter}")
    return starter


def _believed(model: MetaModel, pool: Pool, description: TaskDescription) -> tuple[Any, Any, float]:
    """Return mean and variance of the scores of a pool before any run, and the variance of the noise."""
    inputs = model.encoder.encode([{**_known(pool), **config} for config in pool.configs])
    nothing = TargetTaskData(np.zeros((0, inputs.shape[1])), np.zeros(0), RunGroups.asked(0))
    posterior = model.posterior(nothing, description, 0, None)
    return *posterior.predict(inputs).mixture(), posterior.noise_variance


def _predicted(model: MetaModel, pool: Pool) -> tuple[Any, Any]:
    """Return mean and spread of the scores of a pool, as predicted before any run."""
    mean, variance, noise = _believed(model, pool, TaskDescription(name="?"))
    return mean, np.sqrt(variance + noise)


def _ranked(model: MetaModel, pool: Pool, description: TaskDescription) -> Any:
    """Return the pool in the order in which a first run would be chosen."""
    mean, variance, _ = _believed(model, pool, description)
    return np.argsort(np.sqrt(variance) - mean, kind="stable")


def _known(pool: Pool) -> dict[str, Any]:
    epochs = max((value for value in pool.epochs if value is not None), default=None)
    return {**pool.description["context"], **({} if epochs is None else {"num_epochs": epochs})}


def _as_task(pool: Pool, rng: np.random.Generator) -> TaskRuns:
    chosen = rng.choice(len(pool), OWN_RUNS, replace=False)
    values = pool.values[chosen]
    none = np.zeros(OWN_RUNS, dtype=bool)
    configs = tuple({**_known(pool), **pool.configs[i]} for i in chosen)
    ids = tuple(str(i) for i in chosen)
    description = TaskDescription(name=pool.task)
    return TaskRuns(
        pool.task, pool.task, "score", Direction.MAX, description, ids, configs, values, np.isnan(values), none, (None,) * OWN_RUNS
    )


def _say(share: float, text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {share:6.1%} {text}\n")


def composition() -> list[str]:
    """Return the table of what the starter consists of, as lines of Markdown."""
    folder = Path(starter_prior.__file__).parent / starter_prior.DATA_FOLDER
    about = json.loads((folder / starter_prior.TASKS_FILE).read_text(encoding="utf-8"))
    origin = about["provenance"]
    from pyarrow import parquet

    rows = parquet.read_table(folder / "runs.parquet").select(["task", "status", "optimizer", "num_epochs", "hidden_size"]).to_pylist()
    family_of = {task["description"]["name"]: name for name, tasks in about["families"].items() for task in tasks}
    lines = [
        f"{origin['n_tasks']} tasks, {origin['n_runs']:,} networks, {origin['n_epochs']:,} epochs recorded, "
        f"{origin['n_diverged']} diverged, {origin['cpu_seconds'] / 60:.0f} minutes of one slow core; "
        f"seed {origin['seed']}, torch {origin['versions']['torch']}, scikit-learn {origin['versions']['scikit-learn']}; "
        f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB.",
        "",
        _line(["family", "tasks", "networks", "SGD", "Adam", "AdamW", "widths", "epochs", "longest, steps", "training samples"]),
        _line(["---", *["---:"] * 9]),
    ]
    for name, tasks in about["families"].items():
        mine = [row for row in rows if family_of[row["task"]] == name]
        count = Counter(row["optimizer"] for row in mine)
        sizes = [task["description"]["n_train"] for task in tasks]
        ends = [f"{min(row[key] for row in mine)}-{max(row[key] for row in mine)}" for key in ("hidden_size", "num_epochs")]
        longest = max(task["longest"] for task in tasks)
        cells = [name, len({row["task"] for row in mine}), f"{len(mine):,}", *(count[kind] for kind in ("SGD", "Adam", "AdamW"))]
        lines.append(_line([*map(str, cells), *ends, f"{longest:,}", f"{min(sizes):,}-{max(sizes):,}"]))
    kinds = Counter(data["make"] if data["make"] != "generator" else str(data["options"]["which"]) for data in about["data"].values())
    lines += ["", "Data: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(kinds.items())) + ".", ""]
    return lines


def section(name: str, report: Mapping[str, Any]) -> list[str]:
    """Return the table of one replay as lines of Markdown."""
    mapping = MAPPINGS[name]
    content = {"names": dict(mapping.names), "known": dict(mapping.known), "defaults": dict(mapping.defaults)}
    tasks, seeds = len(report["protocol"]["tasks"]), report["protocol"]["seeds"]
    held = report["coverage"]
    lines = [
        f"## {name}",
        "",
        f"{tasks} tasks, {seeds} seed{'s' if seeds > 1 else ''}, no past run. The mapping file:",
        "",
        "```json",
        json.dumps(content),
        "```",
        "",
    ]
    lines += [
        _line(["method", *(f"k={k}" for k in EVALUATIONS_SHOWN), "95 % at k=1"]),
        _line(["---", *["---:"] * (len(EVALUATIONS_SHOWN) + 1)]),
    ]
    for method, item in sorted(report["methods"].items(), key=lambda pair: pair[1]["regret"][0]):
        low, high = item["ci95"][0]
        cells = [show_regret(item["regret"][k - 1]) for k in EVALUATIONS_SHOWN]
        lines.append(_line([method, *cells, f"{show_regret(low)}-{show_regret(high)}"]))
    first = report["methods"]["starter"]["tasks"]
    better = {each: sum(first[task][0] < item["tasks"][task][0] for task in first) for each, item in report["methods"].items()}
    lines += [
        "",
        f"The first recommendation is better than a random configuration on average on {better['random']} of {tasks} tasks, and than the "
        f"defaults on {better['defaults']}. Before any run, {held['shipped']:.0%} of the recorded outcomes lay in the 80 % interval "
        f"({held['without widening']:.0%} without the widening by {starter_prior.INTERVAL_INFLATION:g}).",
        "",
    ]
    return lines


def take_over_section(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the table of how one's own tasks take over, as lines of Markdown."""
    lines = ["## When one's own tasks take over", ""]
    lines += [
        f"Regret of the first recommendation with other tasks of one's own, {OWN_RUNS} random runs each, {N_DRAWS} draws; after the stroke "
        f"the mean of the {N_RANKED} configurations that rank first, which depends less on luck.",
        "",
    ]
    for name, entries in found.items():
        by = {(entry["n_own"], entry["way"]): entry for entry in entries}
        counts = sorted({entry["n_own"] for entry in entries})
        lines += [_line([name, *(f"{n} tasks" for n in counts)]), _line(["---", *["---:"] * len(counts)])]
        for way in dict.fromkeys(entry["way"] for entry in sorted(entries, key=lambda entry: entry["n_own"])):
            cells = [by.get((n, way)) for n in counts]
            lines.append(_line([way, *("" if c is None else f"{show_regret(c['first'])} / {show_regret(c['next'])}" for c in cells)]))
        lines.append("")
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_page() -> None:
    """Write docs/prior.md from the explanation that stands in it and the figures measured."""
    head = PROOF_PAGE.read_text(encoding="utf-8").partition(PAGE_MARK)[0]
    lines = ["## What it consists of", "", *composition()]
    reports = {name: _load(name) for name in MAPPINGS}
    for name, report in reports.items():
        lines += section(name, with_slow(name, report)) if report else [f"## {name}", "", "Not measured yet.", ""]
    overs = {name: found for name in MAPPINGS if (found := _load(f"{name}-take-over"))}
    lines += take_over_section(overs) if overs else []
    PROOF_PAGE.write_text(f"{head}{PAGE_MARK}\n\n" + "\n".join(lines), encoding="utf-8")


def _load(name: str) -> Any:
    path = PROOF_FIGURES / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description="Replay the first day and write docs/prior.md.")
    parser.add_argument("--only", nargs="*", default=list(MAPPINGS), help="tables to measure")
    parser.add_argument("--seeds", type=int, default=3, help="seeds (%(default)s)")
    parser.add_argument("--methods", nargs="*", default=list(DAY_ONE_COMPARED), help="methods of the replay; none leaves it out")
    parser.add_argument("--take-over", action="store_true", help="measure when one's own tasks take over, too")
    parser.add_argument("--write", action="store_true", help="only write the page")
    given = parser.parse_args()
    PROOF_FIGURES.mkdir(parents=True, exist_ok=True)
    for name in () if given.write else given.only:
        benchmark = read_table(name, given.seeds)
        if given.methods:
            (PROOF_FIGURES / f"{name}.json").write_text(json.dumps(measure(benchmark, given.methods)), encoding="utf-8")
        if given.take_over:
            (PROOF_FIGURES / f"{name}-take-over.json").write_text(json.dumps(take_over(benchmark)), encoding="utf-8")
    write_page()


if __name__ == "__main__":
    main()
