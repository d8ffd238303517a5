"""What is the matter with a history: looked at from outside, nothing is opened for writing, taken in or repaired.

Works on a history that is fine, locked, damaged, too new, no history at all, or not there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from store import environment, package_shadow
from store.errors import HistoryTooNewError, MetaHPError, StorageError
from store.paths import resolve_path
from store.recording import spool
from store.records import FINISHED, OUTDATED_BY, RunStatus
from store.sqlite import filesystem, schema
from store.sqlite.connection import HistoryConnection, is_current, opened_for_reading
from store.sqlite.lock import lock_path
from store.sqlite.lock_probe import find_writer
from store.sqlite.row_reader import read_runs
from store.switches import ENABLED, PIN_VARIABLE, RECORD_PATHS, REFIT

_MIN_FREE_BYTES = 100 * 2**20
_LARGE_WAL_BYTES = 64 * 2**20
_SHOWN = 5

Progress = Callable[[float, str], None]


class Level(StrEnum):
    """Whether something needs doing."""

    OK = "ok"
    NOTE = "note"
    ACTION = "action"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        level: Whether it needs doing.
        text: What was found.
        advice: What to do about it, None where nothing is to be done.
    """

    check: str
    level: Level
    text: str
    advice: str | None = None


def examine(path: str | os.PathLike[str] | None = None, *, full: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Examine a history; return what needs doing.

    Args:
        path: The history; default as for ``History``.
        full: Whether every index is compared with its table, too, which reads everything twice.
        progress: Called with the share done, in [0, 1], and what is being looked at.

    Raises:
        HistoryPathError: If the path is no path at all.
    """
    file = resolve_path(path)
    report = progress or _ignore
    report(0.05, "file")
    findings = [*_file(file), *_place(file)]
    if file.is_file():
        findings += _database(file, full, report)
        findings += _permissions(file)
    report(0.9, "surroundings")
    findings += [*_spools(file), *_installation(), *_switches()]
    return findings


def _fine(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def _note(check: str, text: str, advice: str) -> Finding:
    return Finding(check, Level.NOTE, text, advice)


def _action(check: str, text: str, advice: str) -> Finding:
    return Finding(check, Level.ACTION, text, advice)


def _ignore(share: float, text: str) -> None:
    """Report nothing."""


def _file(path: Path) -> Iterator[Finding]:
    if path.is_dir():
        yield _action("file", f"{path} is a directory", f"Name a file in it, such as {path / 'history.db'}.")
    elif not path.exists():
        yield _action("file", f"{path} does not exist", "Train a run with the callback, or name another path (METAHP_HISTORY).")
    else:
        sizes = {suffix: _size(Path(f"{path}{suffix}")) for suffix in ("", "-wal", "-shm", ".models")}
        beside = [f"{_mib(size)} {name}" for name, size in (("journal", sizes["-wal"]), ("models", sizes[".models"])) if size]
        yield _fine("file", f"{path}, {_mib(sizes[''])}" + (f" and {', '.join(beside)}" if beside else ""))
        if sizes["-wal"] > max(_LARGE_WAL_BYTES, sizes[""]):
            yield _note(
                "journal",
                f"the journal is larger than the history: {_mib(sizes['-wal'])}",
                "A program that only reads keeps it from being taken in. Close what has the history open for long.",
            )


def _place(path: Path) -> Iterator[Finding]:
    mount = filesystem.mount_of(path)
    kind = "unknown" if mount is None else f"{mount[1]} at {mount[0]}"
    if filesystem.is_on_network(path):
        yield _note(
            "file system",
            f"{kind}, a network file system: no write-ahead log, runs go through their own spool",
            "Many processes at once are faster with a history on a local disk (METAHP_HISTORY); merge it later with 'metahp merge'.",
        )
        yield from _lock_file(path)
    else:
        yield _fine("file system", kind)
    free = filesystem.free_bytes(path)
    if free is not None:
        is_low = free < _MIN_FREE_BYTES
        advice = "Free some space; until then runs may have to wait in the spool." if is_low else None
        yield Finding("disk space", Level.ACTION if is_low else Level.OK, f"{_mib(free)} free", advice)


def _lock_file(path: Path) -> Iterator[Finding]:
    lock = lock_path(path)
    with contextlib.suppress(FileNotFoundError):
        age_s = time.time() - lock.stat().st_mtime
        if age_s > 60:
            yield _action(
                "lock",
                f"{lock} is {age_s / 60:.0f} minutes old",
                "If no process of any machine writes into the history now, delete this file.",
            )


def _database(path: Path, full: bool, report: Progress) -> Iterator[Finding]:
    try:
        connection = opened_for_reading(path)
    except HistoryTooNewError as error:
        yield _action("opening", str(error), "Upgrade with: pip install --upgrade lightning-metahp")
        return
    except StorageError as error:
        yield _action("opening", str(error), "Close the program that holds it, then look again.")
        return
    except MetaHPError as error:
        yield _action("opening", str(error), f"Name another path. If it was a history: {_recovery(path)}")
        return
    try:
        report(0.1, "header")
        if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
            yield _note("opening", "the history can be read, but not written", "Check the permissions of file and folder.")
        else:
            yield _fine("opening", "can be read")
        yield from _schema(connection, path)
        yield from _integrity(connection, path, full, report)
        report(0.8, "runs")
        yield from _runs(connection)
        yield from _models(connection, path)
    except (sqlite3.Error, MetaHPError) as error:
        yield _action("reading", f"reading stopped: {error}", _recovery(path))
    finally:
        connection.close()
    yield from _writer(path)


def _recovery(path: Path) -> str:
    return (
        f"Move the file away, and save what can be read: sqlite3 {path.name} .recover | sqlite3 recovered.db; then "
        "'metahp merge recovered.db' into a new history."
    )


def _schema(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if not is_current(connection, path):
        what = "no tables yet" if version == 0 else f"schema version {version}"
        yield _note("schema", f"{what}; this version's is {schema.SCHEMA_VERSION}", "The next opening brings it up to date.")
    else:
        yield _fine("schema", f"version {version}, journal {journal}")
    if journal == "wal" and filesystem.is_on_network(path):
        yield _action(
            "journal",
            "the file has a write-ahead log, which a network file system cannot share",
            "Close every program that has it open, on every machine; the next opening then does without.",
        )
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("SELECT rowid FROM metrics LIMIT 1")
        yield _action("schema", "the table metrics was rebuilt by another program", "Export the history and import it anew.")


def _integrity(connection: HistoryConnection, path: Path, full: bool, report: Progress) -> Iterator[Finding]:
    name = "integrity_check" if full else "quick_check"
    steps = 0

    def tick() -> int:
        nonlocal steps
        steps += 1
        report(0.1 + 0.7 * (1 - 0.98**steps), "integrity")  # nobody knows how long it takes
        return 0

    connection.set_progress_handler(tick, 2_000_000)
    try:
        found = [str(row[0]) for row in connection.execute(f"PRAGMA {name}(20)")]
    except sqlite3.DatabaseError as error:
        found = [str(error)]
    finally:
        connection.set_progress_handler(None, 0)
    if found != ["ok"] and "immutable" in connection.opened_as and os.path.exists(f"{path}-wal"):
        # somebody has begun to write since, which looks like damage to who reads past the locks
        with contextlib.closing(opened_for_reading(path)) as again:
            yield from _integrity(again, path, full, report)
        return
    if found == ["ok"]:
        yield _fine("integrity", f"{name}: ok")
    else:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield _action("integrity", f"damaged: {'; '.join(found[:3])}{more}", _recovery(path))
        return
    if full:
        for table in ("hparams", "metrics"):
            query = f"SELECT count(*) FROM (SELECT DISTINCT run_id FROM {table}) WHERE run_id NOT IN (SELECT id FROM runs)"
            lost = connection.execute(query).fetchone()[0]
            if lost:
                yield _note("integrity", f"{table} of {lost} runs whose row is not there", "It may still wait in a spool.")


def _runs(connection: sqlite3.Connection) -> Iterator[Finding]:
    if not connection.execute("PRAGMA user_version").fetchone()[0]:
        return
    counts = {row[0]: row[1] for row in connection.execute("SELECT status, count(*) FROM runs GROUP BY status")}
    shown = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none yet"
    yield _fine("runs", shown)
    stale = read_runs(connection, statuses=frozenset({RunStatus.STALE}), with_hparams=False)
    if stale:
        ids = ", ".join(run.id for run in stale[-_SHOWN:])
        yield _note(
            "stale runs",
            f"{len(stale)} run(s) stopped reporting and did not end: {ids}",
            "Killed, or the machine is gone: nothing is learned from them. Go on with start_run(resume=ID) or from a checkpoint.",
        )


def _models(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    rows = connection.execute("SELECT id, file, n_runs FROM models ORDER BY id").fetchall() if _has_table(connection, "models") else []
    statuses = ", ".join(f"'{status}'" for status in FINISHED)
    n_finished = connection.execute(f"SELECT count(*) FROM runs WHERE status IN ({statuses})").fetchone()[0] if rows else 0
    if not rows:
        return
    folder = Path(f"{path}.models")
    newest = rows[-1]
    if newest["file"] and not (folder / newest["file"]).exists():  # an absolute path stays as it is
        yield _note("model", f"the files of the newest meta-model, {newest['id']}, are missing", "Run 'metahp refit'.")
    elif n_finished >= OUTDATED_BY * (newest["n_runs"] or 0):
        text = f"the newest meta-model saw {newest['n_runs']} of {n_finished} finished runs"
        yield _note("model", text, "The next recommendation renews it by itself; 'metahp refit' does so now.")
    else:
        yield _fine("model", f"{newest['id']}, of {newest['n_runs']} runs")


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


def _writer(path: Path) -> Iterator[Finding]:
    holder = find_writer(path)
    if holder is None:
        yield _fine("lock", "nobody is writing")
    else:
        who = f"process {holder}" if holder > 0 else "another process"
        yield _note(
            "lock",
            f"{who} is writing just now",
            "If this stays so for minutes, that process holds a transaction open: what is recorded meanwhile waits in the spool.",
        )


def _permissions(path: Path) -> Iterator[Finding]:
    if not hasattr(os, "getuid"):
        return
    wrong = []
    for found in (path, *(Path(f"{path}{suffix}") for suffix in ("-wal", "-shm", "-journal", ".models", ".spool"))):
        with contextlib.suppress(OSError):  # not there
            status = found.stat()
            if stat.S_IMODE(status.st_mode) & 0o077:
                wrong.append((found, f"{stat.S_IMODE(status.st_mode):o}"))
    if not wrong:
        yield _fine("permissions", "readable by the owner only")
        return
    shown = ", ".join(f"{found.name} ({mode})" for found, mode in wrong)
    folder = path.parent
    yield _action("permissions", f"others may read {shown}", f"Unless they should: chmod -R go-rwx {folder / path.name}*")


def _spools(path: Path) -> Iterator[Finding]:
    files = spool.waiting_files(path)
    waiting = [file for file in files if not file.name.endswith(spool.REJECTED)]
    rejected = [file for file in files if file.name.endswith(spool.REJECTED)]
    for folder in sorted({file.parent for file in waiting}):
        here = [file for file in waiting if file.parent == folder]
        yield _action(
            "spool",
            f"{len(here)} file(s), {_mib(sum(map(_size, here)))}, wait in {folder}",
            "They could not be written into the history. Any opening takes them in, once it can be written: 'metahp runs'.",
        )
    if rejected:
        yield _action(
            "spool",
            f"{len(rejected)} file(s) in {rejected[0].parent} could not be understood in whole",
            "They are JSON lines: look at them, and delete them when nothing in them is missed.",
        )
    if not files:
        yield _fine("spool", "nothing waits")
    others = [
        folder for folder in _folders(spool.state_directory()) if folder not in spool.spool_directories(path) and any(folder.iterdir())
    ]
    if others:
        yield _note(
            "spool",
            f"runs of {len(others)} other histories wait in {spool.state_directory()}",
            "Opening these histories takes them in.",
        )


def _installation() -> Iterator[Finding]:
    versions = {**environment.package_versions(), "sqlite": sqlite3.sqlite_version}
    yield _fine("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if name != "platform"))
    hidden = {name: file for name in package_shadow.PACKAGES if (file := package_shadow.hiding_file(name)) is not None}
    here = Path.cwd()
    if here.resolve() != Path(package_shadow.PACKAGES_FOLDER).resolve():
        here_files = [(name, file) for name in package_shadow.PACKAGES for file in (here / f"{name}.py", here / name / "__init__.py")]
        hidden |= {name: str(file) for name, file in here_files if file.is_file()}
    for name, file in hidden.items():
        yield _action("names", f"{file} hides the package {name!r} from scripts of its folder", "Rename the file.")


def _switches() -> Iterator[Finding]:
    for name in (ENABLED.name, REFIT.name, PIN_VARIABLE, RECORD_PATHS.name):
        if os.environ.get(name):
            yield _note("switches", f"{name}={os.environ[name]} is set", f"Intended? Else: unset {name}")


def _folders(path: Path) -> list[Path]:
    try:
        return [folder for folder in path.iterdir() if folder.is_dir()]
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except OSError:
        return 0


def _mib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
