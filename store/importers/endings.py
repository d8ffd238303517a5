"""How a run of another tool ended: the words of trackers and schedulers, and what becomes of runs whose end nobody recorded."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from store.errors import InvalidArgumentError
from store.importers.foreign import ForeignRun, SkippedRecord, moment_of
from store.statuses import RunStatus

UNFINISHED: Mapping[str, RunStatus | None] = {"skip": None, "interrupted": RunStatus.INTERRUPTED, "failed": RunStatus.FAILED}
"""What ``--unfinished`` may be -> the status of a run whose process is gone; None: it is left out."""
DEAD_AFTER_S = 24 * 3600.0
"""A run that wrote nothing for so long is not expected to go on."""
STATUS_COLUMNS = ("state", "status", "runstate", "runstatus", "trialstate", "trialstatus")
"""Names of a column with the status of a run, in lower case and without what separates words."""
_WORDS = {
    RunStatus.COMPLETED: "finished complete completed done success succeeded successful ok terminated ended published",
    RunStatus.FAILED: "failed fail failure crashed crash error errored exception node_fail",
    RunStatus.INTERRUPTED: "killed interrupted cancelled canceled aborted preempted preempting timeout timed_out",
    RunStatus.STOPPED: "pruned stopped early_stopped",
    RunStatus.DIVERGED: "diverged",
    RunStatus.OOM: "oom out_of_memory",
    RunStatus.RUNNING: "running pending queued waiting scheduled created paused starting started initializing in_progress active",
}
_STATUS_OF_WORD = {word: status for status, words in _WORDS.items() for word in words.split()}
_STILL_RUNNING = "is still running; import it again once it has ended"
_NEVER_ENDED = "did not end, and wrote nothing for a day or more"


def status_of_word(word: object) -> RunStatus | None:
    """Return the status that a tool's word stands for, None for a word that is none."""
    text = str(word).strip().rpartition(".")[2]  # TrialState.COMPLETE
    key = re.sub(r"[^a-z]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()).strip("_")
    return _STATUS_OF_WORD.get(key)


def known_words() -> str:
    """Return the words for each status, for a message."""
    return "; ".join(f"{status}: {words.replace(' ', ', ')}" for status, words in _WORDS.items())


def check_unfinished(given: str) -> str:
    """Return what to do with unfinished runs, checked.

    Raises:
        InvalidArgumentError: If it is none of ``UNFINISHED``.
    """
    if given not in UNFINISHED:
        raise InvalidArgumentError(f"Unfinished runs must be {', '.join(UNFINISHED)}, but got {given!r}. Pass one of these.")
    return given


@dataclass(slots=True)
class UnfinishedRuns:
    """What becomes of the runs that did not end, by their age.

    Attributes:
        treatment: One of ``UNFINISHED``.
        n_skipped: Runs left out that ``--unfinished`` would import.
        now_s: Seconds since the Unix epoch.
    """

    treatment: str = "skip"
    n_skipped: int = 0
    now_s: float = field(default_factory=time.time)

    def ended(self, run: ForeignRun) -> ForeignRun | SkippedRecord:
        """Return a run that has a status, or why it is left out: it goes on, or nobody set what to do with it."""
        if run.status is not RunStatus.RUNNING:
            return run
        sign_s = last_sign_s(run)
        status = UNFINISHED[self.treatment]
        where = "/".join(run.key)
        if sign_s is not None and self.now_s - sign_s < DEAD_AFTER_S:
            return SkippedRecord(_STILL_RUNNING, where, is_bad=False)
        if status is None:
            self.n_skipped += 1
            return SkippedRecord(_STILL_RUNNING if sign_s is None else _NEVER_ENDED, where, is_bad=False)
        run.status = status
        return run

    def note(self) -> str | None:
        """Return the note that names the option, None where it would change nothing."""
        if not self.n_skipped:
            return None
        runs = "1 run has" if self.n_skipped == 1 else f"{self.n_skipped} runs have"
        return f"{runs} no end: if the process is gone, --unfinished interrupted (or failed) imports what was recorded"


def last_sign_s(run: ForeignRun) -> float | None:
    """Return when a run last wrote something, in seconds since the Unix epoch; None if unknown."""
    started = moment_of(run.started_utc)
    ended = moment_of(run.ended_utc)
    signs = [] if ended is None else [ended.timestamp()]
    if started is not None:
        elapsed = [time for curve in run.curves.values() for time in curve.elapsed_s or () if time is not None]
        signs.append(started.timestamp() + max(elapsed, default=0.0))
    return max(signs, default=None)
