"""Real Lightning fits while something goes wrong with the history: the fit goes on, warns once, and loses nothing it logged."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_metahp import MetaHPCallback
from store import History, StorageWarning
from store.recording import spool
from torture.trials import Trials

STEPS = 40


class Model(L.LightningModule):
    """A single layer; one value logged a step, and a validation at the end."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Log the loss."""
        loss = self.layer(batch[0]).square().mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log an accuracy."""
        self.log("val_acc", torch.tensor(0.5))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


class At(L.Callback):
    """Calls something before a step of the training.

    Args:
        step: The step.
        call: What is called.
    """

    def __init__(self, step: int, call: Callable[[], object]) -> None:
        self.step, self.call = step, call

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Call it when it is due."""
        if trainer.global_step == self.step:
            self.call()


@dataclass
class Fit:
    """What came of a fit.

    Attributes:
        seconds: How long it took.
        warned: Text of each storage warning.
        steps: Steps it trained.
        error: What ended it, None if it finished.
    """

    seconds: float = 0.0
    warned: list[str] = field(default_factory=list)
    steps: int = 0
    error: BaseException | None = None


def fit(path: Path, *callbacks: L.Callback, steps: int = STEPS, pause_s: float = 0.0, **loader: Any) -> Fit:
    """Train for a number of steps, recorded into the history at a path."""
    data = TensorDataset(torch.ones(steps * 2, 2))
    train, val = DataLoader(data, batch_size=2, **loader), DataLoader(data, batch_size=steps * 2)
    pauses = [At(step, lambda: time.sleep(pause_s)) for step in range(steps)] if pause_s else []
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        callbacks=[MetaHPCallback("val_acc", history=path), *callbacks, *pauses],
        **quiet,
    )
    result = Fit()
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer.fit(Model(), train, val)
        except BaseException as error:
            result.error = error
    result.seconds, result.steps = time.perf_counter() - started, trainer.global_step
    ours = [warning for warning in caught if "metahp" in str(warning.message) or issubclass(warning.category, StorageWarning)]
    result.warned = [str(warning.message) for warning in ours]
    return result


def check(outcome: Trials, path: Path, result: Fit, *, warns: str | None, status: str = "completed", at_least: int = STEPS) -> None:
    """Compare a fit and what the next opening of its history finds with what must be.

    Args:
        outcome: Where complaints go.
        path: The history.
        result: The fit.
        warns: Cause that the one warning must name, None where there must be no warning.
        status: How the run must have ended.
        at_least: How many of the steps' values must be there.
    """
    outcome.tries += 1
    outcome.expect(result.error is None, f"the fit ended with {result.error!r}")
    outcome.expect(result.steps == STEPS, f"{result.steps} steps instead of {STEPS}")
    outcome.expect(len(result.warned) == (warns is not None), f"{len(result.warned)} warnings: {result.warned}")
    if warns is not None and result.warned:
        outcome.expect(warns in result.warned[0], f"the warning names no cause: {result.warned[0]}")
    check_stored(outcome, path, status, at_least)


def check_stored(outcome: Trials, path: Path, status: str, at_least: int) -> None:
    """Open a history once, and compare the only run in it with what must be; nothing may be left in a spool."""
    with History(path) as history:
        runs = history.runs()
        outcome.expect([run.status for run in runs] == [status], f"runs are {[(run.id, str(run.status)) for run in runs]}")
        if runs:
            steps = [record.step for record in history.metrics(runs[0].id, "train_loss")]
            outcome.expect(len(steps) == len(set(steps)) >= at_least, f"{len(steps)} values of {at_least}")
            outcome.expect(runs[0].hparams.get("learning_rate") == 0.1, "the hyperparameters are gone")
            if status == "completed":
                outcome.expect(runs[0].objective_best == 0.5, "the objective is gone")
    left = [file for folder in spool.spool_directories(path) if folder.is_dir() for file in folder.iterdir()]
    outcome.expect(not left, f"left in the spool: {left}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have another process hold the history locked."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE'); "
        "print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        yield
    finally:
        holder.communicate("go\n")


def lock(folder: Path, *, held_s: float = 0.0) -> Trials:
    """Fit while another process holds the history locked: all the time, or for so many seconds of a longer fit."""
    how_long = f"for {held_s:.0f} s of a fit" if held_s else "during the whole fit"
    outcome = Trials(f"locked by another process {how_long}", "one warning, all spooled and taken in")
    path = folder / "history.db"
    History(path).close()
    undisturbed = fit(folder / "other.db").seconds
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(path))
        if held_s:
            threading.Timer(held_s, stack.close).start()
        result = fit(path, pause_s=(held_s + 10) / STEPS if held_s else 0.0)
    check(outcome, path, result, warns="database is locked")
    if not held_s:
        outcome.expect(result.seconds < undisturbed + 5, f"{result.seconds:.1f} s instead of {undisturbed:.1f} s")
        outcome.figures = f"{result.seconds - undisturbed:.1f} s longer than undisturbed"
    else:
        outcome.figures = f"caught up with during the fit of {result.seconds:.0f} s"
    return outcome


def locked_without_wal(folder: Path) -> Trials:
    """Fit while a history without write-ahead log is locked, so that it cannot even be read."""
    outcome = Trials("locked by another process, no write-ahead log", "one warning, all spooled and taken in")
    path = folder / "history.db"
    History(path).close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
    with locked(path):
        result = fit(path)
    check(outcome, path, result, warns="locked")
    outcome.figures = f"the fit took {result.seconds:.1f} s"
    return outcome


def removed(folder: Path) -> Trials:
    """Remove the history's folder in the middle of a fit."""
    outcome = Trials("folder removed during a fit", "one warning; the run's row, hyperparameters, outcome and later values are kept")
    path = folder / "gone" / "history.db"
    History(path).close()
    result = fit(path, At(STEPS // 2, lambda: shutil.rmtree(path.parent)))
    check(outcome, path, result, warns="No such file", at_least=STEPS // 2 - 1)
    return outcome


def full_disk(folder: Path, disk: Path) -> Trials:
    """Fit on a file system without room; afterwards there is room again.

    Args:
        folder: Somewhere else.
        disk: A file system of its own.
    """
    outcome = Trials("disk full", "one warning, spooled elsewhere, taken in when there is room")
    path = disk / "history.db"
    History(path).close()
    filler = disk / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)

    result = fit(path, At(2, fill))
    where = result.warned[0] if result.warned else ""
    outcome.expect(str(spool.state_directory()) in where, f"the warning does not name the other place: {where}")
    filler.unlink()
    check(outcome, path, result, warns="full")
    return outcome


def limited_size(folder: Path) -> Trials:
    """Fit while no file of the process may grow: what a full disk looks like where none can be had."""
    import resource

    outcome = Trials("no file may grow (RLIMIT_FSIZE)", "one warning, nothing lost")
    path = folder / "history.db"
    History(path).close()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        result = fit(path, At(2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    with History(path) as history, history.start_run(task="the next run writes what waited in memory"):
        pass
    with History(path) as history:
        outcome.tries += 1
        outcome.expect(result.error is None, f"the fit ended with {result.error!r}")
        outcome.expect(len(result.warned) == 1, f"{len(result.warned)} warnings")
        found = history.metrics(history.runs(status="completed")[0].id, "train_loss")
        outcome.expect(len(found) == STEPS, f"{len(found)} values")
    return outcome


def read_only(path: Path, release: Callable[[], None]) -> Trials:
    """Fit with a history on a read-only file system, which can be read all the same.

    Args:
        path: An existing history there.
        release: Makes the file system writable again.
    """
    outcome = Trials("read-only file system", "can be read; one warning, spooled elsewhere, taken in once it is writable")
    with History(path) as history:
        outcome.expect(history.runs() == [], "runs are not readable")
    result = fit(path)
    with History(path) as history:
        outcome.expect(history.runs() == [], "a read-only history changed")
    release()
    check(outcome, path, result, warns="read")
    return outcome


def corrupted(folder: Path, *, table: str | None) -> Trials:
    """Fit with a damaged history; afterwards the undamaged file is put back.

    Args:
        folder: Where the history lies.
        table: The table whose first page is damaged, None for the first page of the file.
    """
    what = "first page of the file" if table is None else f"first page of the table {table}"
    outcome = Trials(f"{what} overwritten", "one warning, all spooled and taken in by the repaired file")
    path = folder / "history.db"
    History(path).close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        page = 1 if table is None else raw.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        size = raw.execute("PRAGMA page_size").fetchone()[0]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[(page - 1) * size : (page - 1) * size + size // 2] = os.urandom(size // 2)
    path.write_bytes(damaged)
    result = fit(path)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(whole)
    check(outcome, path, result, warns="")
    return outcome


def signalled(folder: Path, number: signal.Signals) -> Trials:
    """Send this process a signal in the middle of a fit."""
    outcome = Trials(f"{number.name} during a fit", "the run ends as interrupted, with its values", 1)
    path = folder / "history.db"
    # a program started in the background ignores Ctrl-C from the start on
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    result = fit(path, At(STEPS // 2, lambda: os.kill(os.getpid(), number)))
    signal.signal(number, before)
    outcome.expect(not result.warned, f"warnings: {result.warned}")
    check_stored(outcome, path, "interrupted", STEPS // 2 - 1)
    return outcome


def loader_workers(folder: Path, context: str) -> Trials:
    """Fit with data-loader workers that are forked or spawned."""
    outcome = Trials(f"data-loader workers by {context}", "only the training process writes")
    path = folder / "history.db"
    result = fit(path, num_workers=1 if context == "spawn" else 2, multiprocessing_context=context)
    check(outcome, path, result, warns=None)
    return outcome


def clock(folder: Path) -> Trials:
    """Set the clock back by an hour in the middle of a fit, as this process sees it."""
    outcome = Trials("clock jumps an hour back", "nothing lost, no negative durations")
    path = folder / "history.db"
    offset = [0.0]
    real_time, real_ns = time.time, time.time_ns
    try:
        time.time, time.time_ns = (lambda: real_time() + offset[0]), (lambda: real_ns() + int(offset[0] * 1e9))  # type: ignore[assignment]
        result = fit(path, At(STEPS // 2, lambda: offset.__setitem__(0, -3600.0)))
        with History(path) as history, history.start_run(task="later") as run:
            run.log(loss=1.0)
        with History(path) as history:
            first, second = history.runs()
            outcome.expect(first.id < second.id, "ids do not sort by their order any more")
            outcome.expect((first.wall_s or -1) > 0 and (second.wall_s or -1) >= 0, "a duration is negative")
            history.split_task([second.id], "later")
    finally:
        time.time, time.time_ns = real_time, real_ns
    outcome.tries += 1
    outcome.expect(result.error is None and not result.warned, f"{result.error!r} {result.warned}")
    with History(path) as history:
        found = history.runs()[0]
        outcome.expect(found.status == "completed" and len(history.metrics(found.id, "train_loss")) == STEPS, "values are missing")
    return outcome


_EXITING = """
import sys, threading, time
from pathlib import Path
from torture.fits import At, STEPS, fit
reached = threading.Event()
def wait():
    reached.set()
    time.sleep(60)
threading.Thread(target=fit, args=(Path(sys.argv[1]), At(STEPS // 2, wait)), daemon=True).start()
reached.wait()
"""


def exit_without_teardown(folder: Path) -> Trials:
    """Let the interpreter end while a fit is going on in a daemon thread."""
    outcome = Trials("interpreter exit without teardown", "the run ends as interrupted, with its values", 1)
    path = folder / "history.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    words = [sys.executable, "-W", "ignore", "-c", _EXITING, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)
    outcome.expect("StorageWarning" not in done.stderr, done.stderr[-500:])
    check_stored(outcome, path, "interrupted", STEPS // 2 - 1)
    return outcome
