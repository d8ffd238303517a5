"""``metahp import KIND PLACE`` for what other tools recorded: one command for each, all with the same options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption, split_list

if TYPE_CHECKING:
    from store.importers.foreign import RunSource
    from store.importers.mapping import Reading
    from store.importers.pipeline import SourceReport

TaskOption = Annotated[str | None, typer.Option("--task", help="One task for all runs; default: what the source calls them.")]
ObjectiveOption = Annotated[str | None, typer.Option("--objective", help="Metric that decides; needed where the source does not say.")]
DirectionOption = Annotated[str | None, typer.Option("--direction", help="min or max; needed where source and name do not say it.")]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="RAW=NAME,...", help="What a hyperparameter of another spelling is, e.g. lr0=learning_rate.")
]
UnitOption = Annotated[
    str | None, typer.Option("--unit", metavar="NAME=UNIT,...", help="percent, fraction or keep, where values leave it open.")
]
BatchOption = Annotated[str | None, typer.Option("--batch", help="per-device or global, where several devices leave it open.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would come in, and why something would not.")]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Only show how every name of the source is read.")]


def pairs(text: str | None, option: str) -> dict[str, str]:
    """Split ``NAME=VALUE,...``.

    Raises:
        InvalidArgumentError: If a part is no pair.
    """
    from store import InvalidArgumentError

    found = {}
    for part in split_list(text) or []:
        name, separator, value = part.rpartition("=")
        if not separator or not name or not value:
            raise InvalidArgumentError(f"{option} must be given as NAME=VALUE, several with commas, but got {part!r}.")
        found[name] = value
    return found


@dataclass(frozen=True)
class Choices:
    """What the options of such a command say."""

    task: str | None
    objective: str | None
    direction: str | None
    name: str | None
    unit: str | None
    batch: str | None
    dry_run: bool
    explain: bool
    history: Path | None
    format: Format


def take_in(source: RunSource, choices: Choices) -> None:
    """Import a source as the options say, and print what came of it."""
    from store import History
    from store.importers.mapping import Answers
    from store.importers.pipeline import import_source
    from store.paths import resolve_path

    names, units = pairs(choices.name, "--name"), pairs(choices.unit, "--unit")
    answers = Answers(choices.task, choices.objective, choices.direction, names, units, choices.batch)
    only_look = choices.dry_run or choices.explain
    if only_look and not resolve_path(choices.history).exists():  # a look leaves nothing behind, not even an empty history
        with output.progress("reading") as report:
            found = import_source(None, source, answers, dry_run=True, progress=report)
    else:
        with History(choices.history, create=not only_look) as opened, output.progress("reading") as report:
            found = import_source(opened, source, answers, dry_run=only_look, progress=report)
    print_report(found, choices.format, with_mapping=choices.explain)


def print_report(found: SourceReport, format: Format, *, with_mapping: bool) -> None:
    """Print what an import did or would do; with the mapping of names where it was asked for."""
    if format is Format.JSON:
        readings = [output.record_dict(reading) for reading in found.readings]
        left_out = [{"reason": reason, "count": count, "examples": where} for reason, count, where in found.left_out]
        output.print_json({**output.record_dict(found), "left_out": left_out, "readings": readings})
        return
    if with_mapping:
        print_mapping(found.readings)
    output.print_fields(summary(found))
    if found.left_out:
        rows = [(count, reason, ", ".join(where)) for reason, count, where in found.left_out]
        output.print_table(("left out", "because it", "for example"), rows, title="\nLeft out")
    for line in found.notes:
        output.note(f"Note: {line}.")
    print_questions(found.questions, is_written=found.is_written)


def print_mapping(readings: Sequence[Reading]) -> None:
    """Print how every name is read."""
    columns = ("in the source", "kind", "in the history", "read as", "because", "runs")
    rows = [(item.name, item.kind, item.becomes, item.meaning, item.because, item.n_runs) for item in readings]
    output.print_table(columns, rows, title="Mapping")
    output.print_line("")


def print_questions(questions: Sequence[str], *, is_written: bool) -> None:
    """Print what is open, and that nothing was written."""
    for line in questions:
        output.note(f"Question: {line}.")
    if not is_written:
        rest = "The questions come first." if questions else "Leave out --dry-run and --explain to import."
        output.note(f"Nothing was written. {rest}")


def summary(found: SourceReport) -> Mapping[str, str | int | None]:
    """Return what the table says first: name -> value."""
    taken = found.n_new + found.n_updated + found.n_known
    tasks = [f"{task} ({count})" for task, count in list(found.tasks.items())[:6]]
    more = [f"and {len(found.tasks) - 6} more"] if len(found.tasks) > 6 else []
    bad = f", {found.n_bad} of them damaged" if found.n_bad else ""
    return {
        "source": f"{found.kind}, {found.place}",
        "records": found.n_found,
        "runs": f"{taken}: {found.n_new} new, {found.n_updated} updated, {found.n_known} known",
        "left out": f"{found.n_left_out}{bad}" if found.n_left_out else None,
        "tasks": ", ".join([*tasks, *more]) or None,
        "outcomes": ", ".join(f"{count} {status}" for status, count in found.statuses.items()) or None,
        "metric values": f"{found.n_values} new" if found.is_written else None,
    }


def optuna(
    place: Annotated[str, typer.Argument(metavar="STORAGE", help="Address (sqlite:///study.db), SQLite or journal file.")],
    study: Annotated[str | None, typer.Option("--study", metavar="LIST", help="Only these studies; default: all.")] = None,
    task: TaskOption = None,
    objective: ObjectiveOption = None,
    direction: DirectionOption = None,
    name: NameOption = None,
    unit: UnitOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    explain: ExplainOption = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take in Optuna studies: every trial a run, intermediate values its curve, pruned and failed ones as such.

    Example: metahp import optuna sqlite:///study.db --dry-run
    """
    from store.importers.optuna_storage import OptunaSource

    choices = Choices(task, objective, direction, name, unit, batch, dry_run, explain, history, format)
    take_in(OptunaSource(place, tuple(split_list(study) or ())), choices)


def mlflow(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="An mlruns folder, its SQLite file, or a tracking URI.")],
    task: TaskOption = None,
    objective: ObjectiveOption = None,
    direction: DirectionOption = None,
    name: NameOption = None,
    unit: UnitOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    explain: ExplainOption = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take in MLflow runs of all experiments: parameters, metrics with their steps, and how each run ended.

    Example: metahp import mlflow mlruns --objective val_loss
    """
    from store.importers.mlflow_tracking import MlflowSource

    choices = Choices(task, objective, direction, name, unit, batch, dry_run, explain, history, format)
    take_in(MlflowSource(place), choices)


def tensorboard(
    place: Annotated[str, typer.Argument(metavar="FOLDER", help="Log folder; every folder with event files below it is a run.")],
    task: TaskOption = None,
    objective: ObjectiveOption = None,
    direction: DirectionOption = None,
    name: NameOption = None,
    unit: UnitOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    explain: ExplainOption = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take in TensorBoard runs: scalars, and hyperparameters of the hparams plugin or of a hparams.yaml beside them.

    Example: metahp import tensorboard runs --objective val/accuracy --explain
    """
    from store.importers.tensorboard_events import TensorBoardSource

    choices = Choices(task, objective, direction, name, unit, batch, dry_run, explain, history, format)
    take_in(TensorBoardSource(place), choices)


def lightning(
    place: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of CSVLogger, or one with several.")],
    task: TaskOption = None,
    objective: ObjectiveOption = None,
    direction: DirectionOption = None,
    name: NameOption = None,
    unit: UnitOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    explain: ExplainOption = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take in what Lightning's CSVLogger wrote: every version folder is a run.

    Example: metahp import lightning lightning_logs --objective val_loss --task digits
    """
    from store.importers.lightning_csv import LightningSource

    choices = Choices(task, objective, direction, name, unit, batch, dry_run, explain, history, format)
    take_in(LightningSource(place), choices)


def hf(
    place: Annotated[str, typer.Argument(metavar="FOLDER", help="Output folder of a Trainer, or one with several.")],
    task: TaskOption = None,
    objective: ObjectiveOption = None,
    direction: DirectionOption = None,
    name: NameOption = None,
    unit: UnitOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    explain: ExplainOption = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take in runs of transformers.Trainer: trainer_state.json, and training_args.bin, which is read and never executed.

    Example: metahp import hf out --task sst2 --objective eval_accuracy
    """
    from store.importers.hf_trainer import HuggingFaceSource

    choices = Choices(task, objective, direction, name, unit, batch, dry_run, explain, history, format)
    take_in(HuggingFaceSource(place), choices)


def trackio(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="A project's SQLite file, or Trackio's folder.")],
    task: TaskOption = None,
    objective: ObjectiveOption = None,
    direction: DirectionOption = None,
    name: NameOption = None,
    unit: UnitOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    explain: ExplainOption = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take in Trackio projects: every run with its configuration and values.

    Example: metahp import trackio ~/.cache/huggingface/trackio/digits.db --objective val_acc
    """
    from store.importers.trackio_sqlite import TrackioSource

    choices = Choices(task, objective, direction, name, unit, batch, dry_run, explain, history, format)
    take_in(TrackioSource(place), choices)


def hyperparameterhunter(
    place: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder HyperparameterHunterAssets.")],
    task: TaskOption = None,
    objective: ObjectiveOption = None,
    direction: DirectionOption = None,
    name: NameOption = None,
    unit: UnitOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    explain: ExplainOption = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take in HyperparameterHunter's experiments: descriptions, and outcomes of the leaderboard.

    Example: metahp import hyperparameterhunter HyperparameterHunterAssets --objective oof_roc_auc_score
    """
    from store.importers.hyperparameterhunter import HyperparameterHunterSource

    choices = Choices(task, objective, direction, name, unit, batch, dry_run, explain, history, format)
    take_in(HyperparameterHunterSource(place), choices)


def openml(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="A dump (ARFF or CSV), or task:31,37 to ask OpenML.")],
    qualities: Annotated[str | None, typer.Option("--qualities", metavar="FILE", help="Table with a row a task: its features.")] = None,
    flow: Annotated[str | None, typer.Option("--flow", metavar="LIST", help="Only runs of these flows (ids); live only.")] = None,
    size: Annotated[int, typer.Option("--size", min=1, max=10_000, help="Runs to ask for, of each task; live only.")] = 1_000,
    task: TaskOption = None,
    objective: ObjectiveOption = None,
    direction: DirectionOption = None,
    name: NameOption = None,
    unit: UnitOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    explain: ExplainOption = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take in runs and evaluations of OpenML, live or from a dump, with the qualities of the tasks.

    Example: metahp import openml runs.csv --qualities qualities.csv --objective predictive_accuracy
    """
    from store.importers.openml_runs import OpenmlSource

    choices = Choices(task, objective, direction, name, unit, batch, dry_run, explain, history, format)
    take_in(OpenmlSource(place, qualities, objective, whole_numbers(flow), size), choices)


def whole_numbers(text: str | None) -> tuple[int, ...]:
    """Split a list of ids.

    Raises:
        InvalidArgumentError: If one of them is no whole number.
    """
    from store import InvalidArgumentError

    parts = split_list(text) or []
    wrong = [part for part in parts if not part.isdecimal()]
    if wrong:
        raise InvalidArgumentError(f"Ids must be whole numbers, several with commas, but got {wrong[0]!r}.")
    return tuple(map(int, parts))


COMMANDS = (optuna, mlflow, tensorboard, lightning, hf, trackio, hyperparameterhunter, openml)
"""Each is registered under its own name."""
