"""``metahp import KIND PLACE``: a command for each registered importer, all with the options of one dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption

if TYPE_CHECKING:
    from store.importers.foreign import RunSource
    from store.importers.mapping import ImportOptions, NameMapping
    from store.importers.pipeline import SourceReport


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """What every import command takes: each field is an option."""

    task: Annotated[str | None, typer.Option("--task", help="One task for all runs; default: its name in the source.")] = None
    objective: Annotated[
        str | None, typer.Option("--objective", metavar="METRIC", help="Metric that decides, if there are several; or TASK=METRIC,...")
    ] = None
    direction: Annotated[str | None, typer.Option("--direction", help="min or max; needed if neither source nor name imply it.")] = None
    name: Annotated[
        str | None, typer.Option("--name", metavar="RAW=NAME,...", help="Canonical name of a hyperparameter, e.g. lr0=learning_rate.")
    ] = None
    unit: Annotated[str | None, typer.Option("--unit", metavar="NAME=UNIT,...", help="percent, fraction or keep, if ambiguous.")] = None
    batch: Annotated[str | None, typer.Option("--batch", help="per-device or global, if ambiguous.")] = None
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="best or last value of a curve; default: as the tool has it, else the best.")
    ] = None
    unfinished: Annotated[
        str, typer.Option("--unfinished", help="skip, interrupted or failed: what runs are whose process is gone without an end.")
    ] = "skip"
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be imported, and what not and why.")] = False
    explain: Annotated[bool, typer.Option("--explain", help="Only show how every name of the source is read.")] = False
    history: HistoryOption = None
    format: FormatOption = Format.TABLE
    debug: DebugOption = False

    def import_options(self) -> ImportOptions:
        """Return what they set for the import itself.

        Raises:
            InvalidArgumentError: If one is malformed.
        """
        from store.importers.mapping import ImportOptions

        names, units = pairs(self.name, "--name"), pairs(self.unit, "--unit")
        return ImportOptions(self.task, self.objective, self.direction, names, units, self.batch, self.unfinished, self.outcome)

    @property
    def is_look(self) -> bool:
        """Whether nothing is to be written."""
        return self.dry_run or self.explain


def with_shared_options(function: Callable[..., None], own: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Return a command of a function that takes its parameters and, as ``shared``, the options of every import."""
    hints = get_type_hints(SharedOptions, include_extras=True)
    shared = [inspect.Parameter(item.name, _KEYWORD, default=item.default, annotation=hints[item.name]) for item in fields(SharedOptions)]
    parameters = [*(parameter.replace(kind=_KEYWORD) for parameter in own), *shared]

    def command(**values: Any) -> None:
        chosen = SharedOptions(**{item.name: values.pop(item.name) for item in fields(SharedOptions)})
        function(**values, shared=chosen)

    command.__doc__ = function.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class ImportGroup(TyperGroup):
    """The commands of ``metahp import``: one for each registered importer, besides those of the app."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names, importers first."""
        from store.importers.registry import IMPORTERS

        return [*IMPORTERS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a name, None for an unknown one."""
        from store.importers.registry import IMPORTERS

        return command_of(cmd_name) if cmd_name in IMPORTERS else super().get_command(ctx, cmd_name)


def command_of(name: str) -> Any:
    """Return the command of an importer."""
    from store.importers.registry import options_of, source_class

    source = source_class(name)
    about, options = source.about, list(options_of(source))
    place = Annotated[str, typer.Argument(metavar=about.metavar, help=f"{about.place[:1].upper()}{about.place[1:]}.")]
    own = [inspect.Parameter("place", _KEYWORD, annotation=place)]
    for item in options:
        words = typer.Option(item.metadata["flag"], metavar=item.metadata["metavar"], help=item.metadata["help"])
        kind: Any = Annotated[list[str] | None, words] if item.metadata["is_repeated"] else Annotated[str | None, words]
        own.append(inspect.Parameter(item.name, _KEYWORD, default=None, annotation=kind))

    def run(place: str, shared: SharedOptions, **given: Any) -> None:
        values = {}
        for item in options:
            text, parse = given[item.name], item.metadata["parse"]
            if text:
                values[item.name] = tuple(map(parse, text)) if item.metadata["is_repeated"] else parse(text)
        if "objective" in {item.name for item in fields(source)}:  # it must ask for the metric, or know its column
            values["objective"] = shared.objective
        import_runs(source(place, **values), shared)

    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    text = f"Import {about.title}: {about.reads}.\n\nExample: metahp import {name} {about.example}"
    single.command(name, help=text)(with_shared_options(run, own))
    return typer.main.get_command(single)


app = typer.Typer(cls=ImportGroup, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def import_() -> None:
    """Import what was recorded elsewhere."""


def import_runs(source: RunSource, shared: SharedOptions) -> None:
    """Import a source and print what was imported."""
    from store import History
    from store.importers.pipeline import import_source
    from store.paths import resolve_path

    options = shared.import_options()
    if shared.is_look and not resolve_path(shared.history).exists():  # a look leaves nothing behind, not even an empty history
        with output.progress("reading") as report:
            found = import_source(None, source, options, dry_run=True, progress=report)
    else:
        with History(shared.history, create=not shared.is_look) as opened, output.progress("reading") as report:
            found = import_source(opened, source, options, dry_run=shared.is_look, progress=report)
    print_report(found, shared)


def pairs(text: str | None, option: str) -> dict[str, str]:
    """Split ``NAME=VALUE,...``.

    Raises:
        InvalidArgumentError: If a part is no pair.
    """
    from store import InvalidArgumentError
    from store.importers.registry import words

    found = {}
    for part in words(text or ""):
        name, separator, value = part.rpartition("=")
        if not separator or not name or not value:
            raise InvalidArgumentError(f"{option} must be given as NAME=VALUE, several with commas, but got {part!r}.")
        found[name] = value
    return found


def print_report(found: SourceReport, shared: SharedOptions) -> None:
    """Print what an import did or would do; with the mapping of names where it was asked for."""
    if shared.format is Format.JSON:
        counts = output.record_dict(found, leave_out=("left_out", "names"))
        left_out = [{"reason": reason, "count": count, "examples": where} for reason, count, where in found.left_out]
        output.print_json({**counts, "left_out": left_out, "readings": [output.record_dict(item) for item in found.names]})
        return
    if shared.explain:
        print_names(found.names)
    output.print_fields(summary(found))
    if found.left_out:
        rows = [(count, reason, ", ".join(where)) for reason, count, where in found.left_out]
        output.print_table(("left out", "because it", "for example"), rows, title="\nLeft out")
    for line in found.notes:
        output.note(f"Note: {line}.")
    print_questions(found.questions, is_written=found.is_written)


def print_names(names: Sequence[NameMapping]) -> None:
    """Print how every name is read."""
    columns = ("in the source", "kind", "in the history", "read as", "because", "runs")
    rows = [(item.name, item.kind, item.becomes, item.meaning, item.because, item.n_runs) for item in names]
    output.print_table(columns, rows, title="Mapping")
    output.print_line("")


def print_questions(questions: Sequence[str], *, is_written: bool) -> None:
    """Print what is ambiguous, and that nothing was written."""
    for line in questions:
        output.note(f"Question: {line}.")
    if not is_written:
        rest = "The questions come first." if questions else "Leave out --dry-run and --explain to import."
        output.note(f"Nothing was written. {rest}")


def summary(found: SourceReport) -> Mapping[str, str | int | None]:
    """Return the first lines of the report: name -> value."""
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
