"""``python -m torture``: try everything, print the table; ``--write`` puts it into docs/robustness.md.

``--quick`` tries each a few times, ``--only WORD`` only what has the word in its name; with ``--write`` that replaces its rows alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import re
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torture import crowd, disks, kills, network
from torture.trials import Trials

PAGE = Path(__file__).resolve().parent.parent / "docs" / "robustness.md"
BEGIN, END = "<!-- begin: written by make torture -->", "<!-- end: written by make torture -->"

Scenario = tuple[str, int, Callable[[Path], Trials]]
"""Words to pick it by, how often it is repeated, and what is done in a folder of its own."""


def scenarios(*, is_quick: bool) -> Iterator[Scenario]:
    """Give every scenario, with the repetitions of a long or of a quick run."""
    few = 1 if is_quick else 5
    yield "kill writing", 1, lambda folder: kills.kill_while_writing(folder, 10 if is_quick else 200)
    yield "kill creating", 1, lambda folder: kills.kill_while_creating(folder, 5 if is_quick else 50)
    yield "kill ingesting", 1, lambda folder: kills.kill_while_ingesting(folder, 3 if is_quick else 30)
    yield "crowd", 1, lambda folder: crowd.crowd(folder, runs=160 if is_quick else 1_000, with_refit=not is_quick)
    yield "network nolock", few, lambda folder: network.without_locks(folder)
    yield "network nolock shim", few, lambda folder: network.without_locks(folder, runs=20, with_shim=True)
    yield "network wal", few, network.journal_of_a_local_opening
    yield from _fits(few, is_quick=is_quick)


def _fits(few: int, *, is_quick: bool) -> Iterator[Scenario]:
    from torture import fits

    yield "fit locked", few, fits.lock
    if not is_quick:
        yield "fit locked minute", 1, lambda folder: fits.lock(folder, held_s=60)
    yield "fit locked nowal", few, fits.locked_without_wal
    yield "fit removed", few, fits.removed
    yield "fit full", few, _full
    yield "fit limit", few, fits.limited_size
    yield "fit readonly", few, _read_only
    for table in (None, "runs", "metrics"):
        yield f"fit corrupted {table}", few, lambda folder, table=table: fits.corrupted(folder, table=table)
    for number in (signal.SIGTERM, signal.SIGINT):
        yield f"fit {number.name}", few, lambda folder, number=number: fits.signalled(folder, number)
    for context in ("fork", "spawn"):
        yield f"fit workers {context}", 1, lambda folder, context=context: fits.loader_workers(folder, context)
    yield "fit clock", few, fits.clock
    yield "fit exit", 1, fits.exit_without_teardown


def _full(folder: Path) -> Trials:
    from torture import fits

    if not disks.can_mount():
        return Trials("disk full", "one warning, spooled elsewhere, taken in when there is room", skipped="no file system can be mounted")
    with disks.small_disk(folder / "disk") as disk:
        return fits.full_disk(folder, disk)


def _read_only(folder: Path) -> Trials:
    from store import History
    from torture import fits

    if not disks.can_mount():
        return Trials("read-only file system", "can be read; one warning, spooled elsewhere", skipped="no file system can be mounted")
    with disks.small_disk(folder / "disk") as disk:
        History(disk / "history.db").close()
        disks.remount(disk, "ro")
        return fits.read_only(disk / "history.db", lambda: disks.remount(disk, "rw"))


def run(scenario: Scenario) -> Trials:
    """Repeat a scenario; the outcomes together."""
    _, repeats, call = scenario
    total: Trials | None = None
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="metahp-torture-", ignore_cleanup_errors=True) as folder:
            os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")
            Path(folder, "here").mkdir()
            found = call(Path(folder, "here"))
        if total is None:
            total = found
        else:
            total.tries += found.tries
            total.failures += found.failures
            total.figures = found.figures
    assert total is not None
    return total


def table(outcomes: list[Trials]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = ["| what was done | how often | what must hold | result | figures |", "|---|---|---|---|---|"]
    for item in outcomes:
        figures = item.skipped or item.figures
        lines.append(f"| {item.name} | {item.tries} | {item.must} | {item.result} | {figures} |")
    return "\n".join(lines)


def write_page(text: str) -> None:
    """Put the table between the markers of the page."""
    page = PAGE.read_text(encoding="utf-8")
    new = re.sub(f"(?s){re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{text}\n{END}", page)
    PAGE.write_text(new, encoding="utf-8")


def write_rows(outcomes: list[Trials]) -> None:
    """Replace the rows of these outcomes in the page's table, and leave the others as they are."""
    rows = {line.split("|")[1].strip(): line for line in table(outcomes).splitlines()[2:]}
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    found = [rows.pop(line.split("|")[1].strip(), line) if line.startswith("| ") else line for line in lines]
    if rows:
        raise ValueError(f"{PAGE} must have a row for what was tried, but has none for: {'; '.join(rows)}. Try everything once.")
    PAGE.write_text("\n".join(found), encoding="utf-8")


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each a few times")
    parser.add_argument("--only", metavar="WORD", default="", help="only scenarios with this word")
    parser.add_argument("--write", action="store_true", help="write the table into docs/robustness.md")
    chosen = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    outcomes, started = [], time.perf_counter()
    for scenario in scenarios(is_quick=chosen.quick):
        if chosen.only not in scenario[0]:
            continue
        before = time.perf_counter()
        outcome = run(scenario)
        outcomes.append(outcome)
        note = "; ".join(outcome.failures[:3]) or outcome.skipped or outcome.figures
        sys.stderr.write(f"{outcome.result:10} {outcome.name} ({time.perf_counter() - before:.0f} s) {note}\n")
    took = f"{(time.perf_counter() - started) / 60:.0f} minutes"
    where = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    text = f"{table(outcomes)}\n\n{took} on {where}."
    sys.stdout.write(text + "\n")
    if chosen.write and chosen.only:
        write_rows(outcomes)
    elif chosen.write:
        write_page(text)
    return int(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
