"""``metahp runs`` and ``metahp show RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, GroupBy, HistoryOption, split_list

if TYPE_CHECKING:
    from store import MetricRecord, ResourceTotals, RunRecord
    from store.repeats import Draws

SHOWN_HPARAMS = ("learning_rate", "per_device_batch_size", "weight_decay", "dropout", "num_layers", "num_epochs", "optimizer")
"""What the table of runs shows of a configuration: the most common ones, and what was tuned. JSON has them all."""
MAX_TUNED = 6
"""Further names shown of those that vary within a task."""


def runs(
    task: Annotated[str | None, typer.Option("--task", help="Only runs of this task: name, id or start of an id.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="LIST", help="Only runs of these statuses, e.g. completed,diverged.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most this many; 0 for all.")] = 20,
    group_by: Annotated[
        GroupBy | None, typer.Option("--group-by", help="config: runs that differ in the seed only are one row, with mean and spread.")
    ] = None,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """List runs, newest first.

    Example: metahp runs --task digits --status completed --limit 5
    """
    from store import History
    from store.repeats import pooled

    with History(history, create=False) as opened:
        # One more than asked for shows whether there are more; only all runs show which are draws of one configuration.
        least = limit + 1 if limit and group_by is None else None
        found = opened.runs(task, status=split_list(status), limit=least, newest_first=True)
        path = opened.path
    draws = pooled(found)
    n_found = len(found) if group_by is None else len(draws)
    if group_by is None:
        print_runs(found[: limit or None], format)
    else:
        print_configurations(draws[: limit or None], format)
    if not found:
        output.note(f"No such runs in {path}.")
    elif limit and n_found > limit:
        output.note("There are more; --limit 0 lists all.")
    n_repeated = sum(len(item.runs) > 1 for item in draws)
    if n_repeated and group_by is None and format is Format.TABLE:
        what = "configuration was" if n_repeated == 1 else "configurations were"
        output.note(f"{n_repeated} {what} run more than once with equal values, seeds aside; --group-by config shows mean and spread.")


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or the start of it.")],
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Show one run and what came of it.

    Hyperparameters and who chose them, outcome, cost, metrics, and its recommendation.

    Example: metahp show 251122-155601123-9f3a21c4 --format json
    """
    from store import History, resource_totals

    with History(history, create=False) as opened:
        record = opened.run(run)
        metrics = summarise_metrics(opened.metrics(record.id))
        totals = resource_totals(opened, record.id)
        advice = opened.recommendation(record.recommendation_id) if record.recommendation_id else None
    print_run(record, metrics, advice, totals, format)


def run_dict(record: RunRecord) -> dict[str, Any]:
    """Return a run for JSON: every field, ``hparams`` with values only."""
    return {**output.record_dict(record, leave_out=["provenance"]), "hparams": record.hparams}


def summarise_metrics(records: Sequence[MetricRecord]) -> list[dict[str, Any]]:
    """Return one row per metric name: how many values, first, last, smallest and largest with their steps.

    Values that are no finite numbers count but are neither smallest nor largest.
    """
    by_name: dict[str, list[MetricRecord]] = {}
    for record in records:
        by_name.setdefault(record.name, []).append(record)
    rows = []
    for name, series in by_name.items():
        ordered = sorted((item for item in series if abs(item.value) < float("inf")), key=lambda item: item.value)
        low, high = (ordered[0], ordered[-1]) if ordered else (None, None)
        row: dict[str, Any] = {"name": name, "count": len(series), "first": series[0].value, "last": series[-1].value}
        row |= {"min": low and low.value, "min_step": low and low.step}
        row |= {"max": high and high.value, "max_step": high and high.step}
        rows.append(row)
    return rows


def print_runs(records: Sequence[RunRecord], format: Format) -> None:
    """Print a list of runs."""
    if format is Format.JSON:
        output.print_json([run_dict(record) for record in records])
        return
    rows, names = [], shown_names(records)
    for record in records:
        config = {name: record.hparams[name] for name in names if name in record.hparams}
        started, took = output.show_time(record.started_utc), output.show_duration(record.wall_s)
        objective = f"{record.objective} ({record.direction})" if record.objective else None
        rows.append((record.id, record.task_name, record.status, objective, record.objective_best, started, took, config))
    output.print_table(("run", "task", "status", "objective", "best", "started (UTC)", "took", "hyperparameters"), rows)


def shown_names(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the hyperparameters that a table of runs shows: the most common ones, and those that vary within a task."""
    from store.hyperparameters import is_of_run

    values: dict[tuple[str, str], set[str]] = {}
    for record in records:
        for name, param in record.provenance.items():
            if "." not in name and not is_of_run(name):
                values.setdefault((name, record.task_id), set()).add(repr(param.value))
    tuned: dict[str, int] = {}
    for (name, _), seen in values.items():
        if len(seen) > 1 and name not in SHOWN_HPARAMS:
            tuned[name] = max(len(seen), tuned.get(name, 0))
    return (*SHOWN_HPARAMS, *sorted(tuned, key=lambda name: (-tuned[name], name))[:MAX_TUNED])


def print_configurations(draws: Sequence[Draws[RunRecord]], format: Format) -> None:
    """Print configurations with what their draws came to."""
    if format is Format.JSON:
        output.print_json([draws_dict(item) for item in draws])
        return
    from store.repeats import definition_of_run

    rows, names = [], shown_names([run for item in draws for run in item.runs])
    for item in draws:
        run = item.runs[0]
        config = {name: run.hparams[name] for name in names if name in run.hparams}
        objective = f"{run.objective} ({run.direction})" if run.objective else None
        failed = item.n_failed or None
        defined = {"objective": definition} if (definition := definition_of_run(run)) else {}
        rows.append((run.id, run.task_name, objective, len(item.runs), len(item), item.mean, item.spread, failed, {**config, **defined}))
    output.print_table(("newest run", "task", "objective", "runs", "draws", "mean", "spread", "failed", "hyperparameters"), rows)
    if any(len(item.runs) > len(item) for item in draws):
        output.note("Runs with the same seed and the same outcome are the same run again, and one draw.")


def draws_dict(item: Draws[RunRecord]) -> dict[str, Any]:
    """Return a configuration and what its draws came to for JSON."""
    from store.repeats import definition_of_run

    run = item.runs[0]
    found: dict[str, Any] = {"task_id": run.task_id, "task_name": run.task_name, "objective": run.objective, "direction": run.direction}
    found |= {"mean": item.mean, "spread": item.spread, "n_draws": len(item), "n_failed": item.n_failed}
    found["defined_by"] = definition_of_run(run)
    return {**found, "run_ids": [one.id for one in item.runs], "hparams": run.hparams}


def print_run(
    record: RunRecord, metrics: list[dict[str, Any]], advice: dict[str, Any] | None, totals: ResourceTotals, format: Format
) -> None:
    """Print everything known about one run."""
    if format is Format.JSON:
        provenance = [output.record_dict(param) for param in record.provenance.values()]
        more = {"provenance": provenance, "metrics": metrics, "recommendation": advice, "resources": resources_dict(totals)}
        output.print_json({**run_dict(record), **more})
        return
    output.print_fields(run_summary(record, totals))
    # Set values come before the defaults.
    ordered = sorted(record.provenance.values(), key=lambda param: (str(param.source) == "default", param.name))
    rows = [(p.name, p.raw_name, p.value, p.source, p.requested, p.observed) for p in ordered]
    output.print_table(("name", "raw name", "value", "source", "requested", "observed"), rows, title="\nHyperparameters")
    if metrics:
        columns = ("name", "count", "first", "last", "min", "min_step", "max", "max_step")
        output.print_table(columns, [[row[column] for column in columns] for row in metrics], title="\nMetrics")
    if totals.usage:
        sampled = [(used.name, used.device, used.n_samples, used.mean, used.highest) for used in totals.usage]
        output.print_table(("name", "device", "samples", "mean", "highest"), sampled, title="\nResources")
    if advice:
        output.print_line("\nRecommendation")
        output.print_fields(advice_summary(record, advice))


def resources_dict(totals: ResourceTotals) -> dict[str, Any]:
    """Return what a run used for JSON: hours, joules with their source, and each sampled quantity."""
    return {
        "cpu_hours": None if totals.cpu_s is None else totals.cpu_s / 3600,
        "gpu_hours": None if totals.gpu_s is None else totals.gpu_s / 3600,
        "gpu_hours_source": totals.gpu_source,
        "energy_j": totals.energy_j,
        "energy_sources": totals.energy_sources,
        "usage": [output.record_dict(used) for used in totals.usage],
    }


def energy_summary(totals: ResourceTotals) -> str | None:
    """Write joules with their source, device by device."""
    parts = [f"{device} {joules:,.0f} J ({totals.energy_sources[device]})" for device, joules in totals.energy_j.items()]
    return "; ".join(parts) or None


def run_summary(record: RunRecord, totals: ResourceTotals) -> dict[str, Any]:
    """Return the first lines of one run: name -> value, None where unknown."""
    last = None if record.objective_last is None else f"{record.objective_last:.4g} at step {record.objective_last_step}"
    best = None if record.objective_best is None else f"{record.objective_best:.4g} at step {record.objective_best_step}"
    return {
        "run": record.id,
        "task": f"{record.task_name} ({record.task_id})",
        "status": record.status,
        "error": record.error,
        "objective": f"{record.objective} ({record.direction})" if record.objective else None,
        "best": best,
        "last": last,
        "epochs": record.epochs_reached,
        "steps": record.steps_reached,
        "started (UTC)": output.show_time(record.started_utc),
        "ended (UTC)": output.show_time(record.ended_utc),
        "wall time": output.show_duration(record.wall_s),
        "CPU time": show_hours(totals.cpu_s, None),
        "GPU time": show_hours(totals.gpu_s, totals.gpu_source),
        "energy": energy_summary(totals),
        "peak memory": output.show_bytes(record.peak_memory_bytes),
        "peak GPU memory": output.show_bytes(record.peak_gpu_memory_bytes),
        "framework": record.framework,
        "model": record.model_class and f"{record.model_class} ({record.model_family}, {record.n_parameters} parameters)",
        "model source": record.variant,
        "versions": dict(record.versions) or None,
        "git commit": record.git_commit,
        "resumed from": record.parent_run_id,
        "attempt": record.attempt or None,
        "imported from": describe_origin(record.description.get("origin")),
    }


def describe_origin(origin: Any) -> str | None:
    """Return where an imported run comes from; None for one that was recorded here."""
    if not isinstance(origin, dict):
        return None
    hidden = {"importer", "place", "run", "digest"}
    facts = {name: value for name, value in origin.items() if name not in hidden and value not in (None, "")}
    return f"{origin.get('importer')}, {origin.get('place')}: {output.show_value(facts) or origin.get('run')}"


def show_hours(seconds: float | None, source: str | None) -> str | None:
    """Write a time of use for reading, in hours as well where it is long enough, with its source."""
    if seconds is None:
        return None
    hours = f" ({seconds / 3600:.2f} h)" if 120 <= seconds < 7200 or seconds >= 48 * 3600 else ""
    return f"{output.show_duration(seconds)}{hours}{'' if source is None else f', {source}'}"


def advice_summary(record: RunRecord, advice: dict[str, Any]) -> dict[str, Any]:
    """Return what was recommended for a run and what came of it: name -> value."""
    from metamodel.explanation import describe_evidence, describe_prediction, show_change
    from metamodel.recommendation import Recommendation

    given = Recommendation.from_dict(advice["recommendation"])
    changes = [show_change(item["raw_name"], item["old"], item["new"]) for item in advice["changes"]]
    return {
        "recommendation": given.id,
        "decision": given.decision,
        "reason": given.reason,
        "changed": "; ".join(filter(None, changes)) or "nothing",
        "prediction": describe_prediction(given, record.objective),
        "evidence": describe_evidence(given.evidence),
        "came out as": "no outcome yet" if advice["outcome"] is None else f"{record.objective} {advice['outcome']:.4g}",
    }
