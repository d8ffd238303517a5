"""The app, and the one place where an expected error becomes one line on stderr."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from metahp_cli import advice, compact, doctor, exchange, imports, live, models, replay, report, runs, table_import, tasks
from metahp_cli.options import ListingCommand

INTERRUPTED = 128 + 2
"""Exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""

# Plain help texts: rich markup would cost start-up time and make the generated documentation depend on the terminal.
app = typer.Typer(
    name="metahp",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("refit", cls=ListingCommand)(models.refit)
app.command("recommend", cls=ListingCommand)(advice.recommend)
app.command("runs")(runs.runs)
app.command("show")(runs.show)
app.command("model")(models.model)
app.command("merge")(exchange.merge)
app.command("export")(exchange.export)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("compact")(compact.compact)
app.add_typer(tasks.app, name="tasks")
imports.app.command("table")(table_import.command)
imports.app.command("history")(exchange.import_history)
app.add_typer(imports.app, name="import")
replay.app.command("live", cls=ListingCommand)(live.live)
app.add_typer(replay.app, name="compare-baselines")


def print_version(is_asked: bool) -> None:
    """Print the version, and end."""
    if is_asked:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        try:
            found = version_of("lightning-metahp")
        except PackageNotFoundError:
            found = "(not installed)"
        sys.stdout.write(f"metahp {found}\n")
        raise typer.Exit


@app.callback()
def metahp(
    version: Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Look at the history of your training runs, and learn from it."""


def is_expected(error: BaseException) -> bool:
    """Whether an error is the user's to solve: one of ours, of the file system, or of SQLite."""
    # By name, since the root class may exist twice while a file hides `store`.
    is_ours = any(cls.__name__ == "MetaHPError" for cls in type(error).__mro__)
    sqlite3 = sys.modules.get("sqlite3")
    return is_ours or isinstance(error, OSError) or (sqlite3 is not None and isinstance(error, sqlite3.Error))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: Words after ``metahp``; those of the process if None.

    Raises:
        SystemExit: Always; code 0 for success, 1 for an expected error, 2 for wrong usage, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        runpy.run_path(str(Path(__file__).parents[1] / "store" / "package_shadow.py"), {"PACKAGE": "metahp_cli"})
        from store.extras import needed_for

        is_comparison = words[:1] == ["compare-baselines"]
        with needed_for(" ".join(["metahp", *words[:1]]), extra="bench" if is_comparison else None):
            app(args=words, prog_name="metahp")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            sys.stderr.write("Interrupted.\n")
        raise
    except Exception as error:
        if "--debug" in words or not is_expected(error):
            raise
        sys.stderr.write(f"Error: {' '.join(str(error).split()) or type(error).__name__}\n")
        raise SystemExit(1) from None
