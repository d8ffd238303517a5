"""Which event files are of one run: of a folder, of the folders that are made for its parts, and of what ``add_hparams`` writes beside it.

A file whose steps go on is of a run that was resumed; one whose steps begin anew, or which has other hyperparameters, is of another run.
What ``SummaryWriter.add_hparams`` writes into a folder below belongs to the run above that its process was at.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.importers.foreign import Point
from store.records import RunStatus

HP_METRIC = "hp_metric"
"""Lightning's placeholder, -1 unless it is logged."""
NOT_MATCHED = "has curves of several runs, which cannot be matched with the runs of the folder above"
_PARTS = frozenset({"train", "validation", "val", "eval", "test"})
"""Folders in which Keras and others write the curves of one run on each part of the data."""


@dataclass(slots=True, eq=False)
class EventSession:
    """A run in the event files of one folder: whole files, or a part of one.

    Attributes:
        names: Names of its files, the first one first.
        number: Its place in its first file.
        points: Metric -> values in the order they were written.
        hparams: Its hyperparameters, as far as these files have them.
        status: How it ended, if they say so.
        first_s: When something was written first, in seconds since the Unix epoch.
        last_s: When something was written last.
        n_damaged: Records that cannot be read.
        more_tags: Metrics beyond those whose values are kept.
    """

    names: list[str]
    number: int = 0
    points: dict[str, list[Point]] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    status: RunStatus | None = None
    first_s: float = math.inf
    last_s: float = -math.inf
    n_damaged: int = 0
    more_tags: dict[str, None] = field(default_factory=dict)

    @property
    def writer(self) -> str:
        """Return the host and the process in the name of its first file: events.out.tfevents.SECONDS.HOST.PID.NUMBER."""
        found = re.search(r"tfevents\.\d+\.(.*)\.(\d+)\.\d+", self.names[0])
        return "" if found is None else f"{found[1]}.{found[2]}"

    @property
    def is_note(self) -> bool:
        """Whether it is what ``add_hparams`` writes: hyperparameters, and of a metric at most one value."""
        return bool(self.hparams) and not any(map(_is_curve, self.points.values()))

    def saw(self, moment_s: float) -> None:
        """Note that something was written."""
        if moment_s > 0:
            self.first_s, self.last_s = min(self.first_s, moment_s), max(self.last_s, moment_s)

    def absorb(self, other: EventSession, prefix: str = "") -> None:
        """Take the curves of another session, named with a prefix; one that is known goes on."""
        for tag, points in other.points.items():
            self.points.setdefault(prefix + tag, []).extend(points)
        self.hparams = self.hparams or other.hparams
        self.status = other.status or self.status
        self.names += [prefix + name for name in other.names]
        self.first_s, self.last_s = min(self.first_s, other.first_s), max(self.last_s, other.last_s)
        self.n_damaged += other.n_damaged
        self.more_tags |= other.more_tags


def _is_curve(points: list[Point]) -> bool:
    return any(step != points[0][0] for step, *_ in points)


def _joined(sessions: list[EventSession], n_below: int) -> tuple[list[EventSession], list[EventSession]]:
    """Return the runs of one folder: files that go on are joined; and what was written beside them by ``add_hparams``.

    Args:
        sessions: What its files hold.
        n_below: Folders below it that ``add_hparams`` wrote: as many as there are parts of a file, and each part is a run.
    """
    runs: list[EventSession] = []
    has_runs = any(not session.is_note for session in sessions)
    notes = [session for session in sessions if has_runs and session.is_note]
    for session in sessions:
        if session in notes:
            continue
        is_part = session.number > 0
        if runs and (_goes_on(runs[-1], session) and n_below != len(sessions) if is_part else not _begins_anew(runs[-1], session)):
            runs[-1].absorb(session)
        else:
            runs.append(session)
    return runs, notes


def _goes_on(earlier: EventSession, session: EventSession) -> bool:
    """Say whether a part of a file is of the run before it: another metric goes on, so the steps that began anew count within an epoch."""
    if session.hparams and earlier.hparams and session.hparams != earlier.hparams:
        return False
    shared = [tag for tag in session.points if tag in earlier.points]
    return any(min(step for step, *_ in session.points[tag]) > max(step for step, *_ in earlier.points[tag]) for tag in shared)


def _begins_anew(earlier: EventSession, session: EventSession) -> bool:
    """Say whether a file is of another run than the files before it: other hyperparameters, or the steps of its curves begin anew."""
    if session.hparams and earlier.hparams and session.hparams != earlier.hparams:
        return True
    shared = [tag for tag in session.points if tag in earlier.points and tag != HP_METRIC]
    # a value that is logged once, at the start or the end, has the same step in a run that was resumed
    shared = [tag for tag in shared if _is_curve(earlier.points[tag]) or _is_curve(session.points[tag])] or shared
    n_anew = sum(min(step for step, *_ in session.points[tag]) <= min(step for step, *_ in earlier.points[tag]) for tag in shared)
    return 2 * n_anew > len(shared)


def _attach(notes: list[EventSession], runs: list[EventSession]) -> list[EventSession]:
    """Give each run the hyperparameters that its process wrote while it went on; return those that belong to no run."""
    rest = []
    by_writer: dict[str, list[EventSession]] = {}
    knows_writers = {note.writer for note in notes} <= {run.writer for run in runs}
    for note in notes:
        by_writer.setdefault(note.writer if knows_writers else "", []).append(note)
    for writer, found in by_writer.items():
        open_runs = [run for run in runs if not run.hparams and (not knows_writers or run.writer == writer)]
        found.sort(key=lambda note: note.first_s)
        if len(found) > len(open_runs):  # one run may note the same several times
            found = list({repr(note.hparams): note for note in reversed(found)}.values())[::-1]
            if len(found) > len(open_runs):
                rest += found
                continue
        open_runs.sort(key=lambda run: run.first_s)
        in_order = len(found) == len(open_runs)
        for index, note in enumerate(found):
            # of a file that holds several runs it is not known whether the note was written before or after each
            before = [run for run in open_runs if run.first_s <= note.first_s and not any(other.number for other in open_runs)]
            run = open_runs[index] if in_order else before[-1] if before else None
            if run is None or run.hparams:
                rest.append(note)
            else:
                run.hparams, run.status = note.hparams, note.status
                for tag, points in note.points.items():
                    run.points.setdefault(tag, points)
    return rest


def merged_sessions(read: Mapping[Path, list[EventSession]], root: Path) -> Iterator[tuple[Path, EventSession | None, bool]]:
    """Put the folders that Keras and ``SummaryWriter`` make for parts of a run to the runs above them.

    Args:
        read: Folder -> what its files hold, folders before those below them.
        root: The folder that was given.

    Yields:
        Folder, a run, and whether it is the only one of the folder; None for a folder whose parts cannot be matched with the runs above.
    """
    merged: dict[Path, list[EventSession]] = {}
    notes: dict[Path, list[tuple[Path, EventSession]]] = {}
    n_below = Counter(place.parent for place, sessions in read.items() if all(session.is_note for session in sessions))
    for place, sessions in read.items():
        runs, beside = _joined(sessions, n_below[place])
        notes.setdefault(place, []).extend((place, note) for note in beside)
        above = merged.get(place.parent, [])
        if any(run.hparams for run in [*runs, *beside]):
            if above and not beside and all(run.is_note for run in runs):
                notes.setdefault(place.parent, []).extend((place, run) for run in runs)
            else:
                merged[place] = runs
        elif place.name in _PARTS and place != root:
            whole = merged.setdefault(place.parent, [EventSession([], run.number) for run in runs])
            if not _add_parts(whole, runs, place.name):
                yield place, None, False
        elif above and all(_is_side_writer(place, run) for run in runs):
            if not _add_side_curves(above, runs, place.name.rpartition("_")[2]):
                yield place, None, False
        else:
            merged[place] = runs
    for place, runs in merged.items():
        rest = _attach([note for _, note in notes.get(place, [])], runs)
        yield from ((place, session, len(runs) == 1) for session in runs)
        yield from ((origin, note, False) for origin, note in notes.get(place, []) if note in rest)


def _add_parts(wholes: list[EventSession], parts: list[EventSession], name: str) -> bool:
    """Add the curves of a part of the data to the runs; return whether it is known which belongs to which."""
    if len(wholes) != len(parts):
        return False
    for whole, part in zip(wholes, parts, strict=True):
        names = list(whole.names)
        whole.absorb(part, f"{name}/")
        whole.names = names or whole.names  # the key of a run is that of its first folder
    return True


def _add_side_curves(wholes: list[EventSession], sides: list[EventSession], suffix: str) -> bool:
    if len(wholes) != len(sides):
        return False
    for whole, side in zip(wholes, sides, strict=True):
        for tag, points in side.points.items():
            whole.points.setdefault(f"{tag}/{suffix}", points)
    return True


def _is_side_writer(place: Path, found: EventSession) -> bool:
    """Say whether a folder is one that ``SummaryWriter.add_scalars`` makes: one for each curve, named after the curve."""
    return len(found.points) == 1 and place.name.startswith(next(iter(found.points)).replace("/", "_"))
