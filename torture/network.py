"""A history on a network file system whose locks do nothing, as some mounts have it (``nolock``, Lustre without ``flock``).

The mount table is faked inside the processes; the missing locks are real. Either SQLite's own file layer without locks
(``unix-none``) is used, or, where there is a C compiler, every lock call of the whole process is made to succeed and do nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from store import History
from store.recording import spool
from store.sqlite import filesystem
from torture.kills import is_sound
from torture.trials import Trials

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
static int passed_on(const char *name, int fd, int command, void *argument) {
    int (*next)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, name);
    if (command == F_SETLK || command == F_SETLKW) return 0;
    if (command == F_GETLK) { ((struct flock *)argument)->l_type = F_UNLCK; return 0; }
    return next(fd, command, argument);
}
int fcntl(int fd, int command, ...) {
    va_list list; va_start(list, command); void *argument = va_arg(list, void *); va_end(list);
    return passed_on("fcntl", fd, command, argument);
}
int fcntl64(int fd, int command, ...) {
    va_list list; va_start(list, command); void *argument = va_arg(list, void *); va_end(list);
    return passed_on("fcntl64", fd, command, argument);
}
int flock(int fd, int operation) { return 0; }
"""

_NETWORK_WRITER = """
import sys
import store.sqlite.connection, store.sqlite.filesystem, store.recording.spool
store.sqlite.filesystem.mount_of = lambda path, *_: ("/", "nfs4")
if sys.argv[4] == "none":
    store.sqlite.connection.EXTRA_URI_OPTIONS = "&vfs=unix-none"
    store.recording.spool.fcntl = None
from store import History
path, number, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with History(path) as history:
    for index in range(runs):
        with history.start_run(task="t", hparams={"lr": 0.1, "worker": number}, objective="acc") as run:
            for step in range(10):
                run.log(acc=step / 10, step=step)
        history.runs(limit=5, newest_first=True)
"""


def build_shim(folder: Path) -> Path | None:
    """Compile the library that makes every lock call succeed and do nothing; None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    source, library = folder / "nolock.c", folder / "nolock.so"
    source.write_text(_SHIM)
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], capture_output=True)
    return library if done.returncode == 0 else None


def without_locks(folder: Path, *, processes: int = 4, runs: int = 5, with_shim: bool = False) -> Trials:
    """Let processes write and read a history at once while no lock of the system does anything."""
    how = "every lock call switched off" if with_shim else "SQLite's files without locks"
    outcome = Trials(f"network file system, {how}: {processes} processes write", "no WAL, nothing lost, integrity_check ok", 1)
    environment = dict(os.environ)
    if with_shim:
        library = build_shim(folder)
        if library is None:
            outcome.skipped = "no C compiler"
            return outcome
        environment["LD_PRELOAD"] = str(library)
    path = folder / "history.db"
    words = [sys.executable, "-c", _NETWORK_WRITER, str(path)]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            [*words, str(number), str(runs), "shim" if with_shim else "none"],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=environment,
        )
        for number in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended already; its output is checked below
            process.stdin.write("go\n")
            process.stdin.flush()
    errors = [process.communicate(timeout=600)[1] for process in started]
    if any(process.returncode for process in started):
        outcome.failures += [error[-3000:] for error in errors if error]
        return outcome
    outcome.expect(not any(errors), f"complaints: {[error[-3000:] for error in errors if error]}")
    connection = sqlite3.connect(path)
    journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    counts = [connection.execute(query).fetchone()[0] for query in _NETWORK_COUNTS]
    connection.close()
    outcome.expect(journal == "delete", f"the journal is {journal}")
    outcome.expect(counts == [processes * runs, processes * runs * 10], f"{counts}")
    outcome.expect(is_sound(path), "integrity_check")
    outcome.expect(not spool.has_waiting(path) and not Path(f"{path}.lock").exists(), "a spool or a lock is left")
    outcome.figures = f"{processes * runs} runs"
    return outcome


_NETWORK_COUNTS = ("SELECT count(*) FROM runs WHERE status = 'completed'", "SELECT count(*) FROM metrics")

_LOCAL = """
import os, sys
from store import History
history = History(sys.argv[1])
with history.start_run(task="t", hparams={"lr": 0.1}, objective="acc") as run:
    run.log(acc=0.5)
os._exit(9)
"""


def journal_of_a_local_opening(folder: Path) -> Trials:
    """Leave a write-ahead log behind by a killed local process, then open the file as if it lay on a network file system."""
    outcome = Trials("network file system, a WAL of an earlier local opening", "taken in, no WAL any more", 1)
    path = folder / "history.db"
    subprocess.run([sys.executable, "-c", _LOCAL, str(path)], check=False)
    outcome.expect(Path(f"{path}-wal").stat().st_size > 0, "no write-ahead log was left")
    real = filesystem.mount_of
    try:
        filesystem.mount_of = lambda path, *_: ("/", "nfs4")
        with History(path) as first, History(path) as second:
            outcome.expect([run.objective_best for run in first.runs()] == [0.5], "the run is gone")
            with second.start_run(task="t", objective="acc") as run:
                run.log(acc=0.75)
            outcome.expect(len(first.runs()) == 2, "several openings do not see each other's runs")
    finally:
        filesystem.mount_of = real
    with sqlite3.connect(path) as connection:
        outcome.expect(connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete", "the file has a WAL still")
    connection.close()
    outcome.expect(is_sound(path), "integrity_check")
    return outcome
