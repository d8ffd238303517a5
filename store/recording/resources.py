"""The use of CPU, memory, GPUs and energy while runs are open, sampled by one thread per process, never by a training step.

Names in the table ``resources``: ``cpu_percent`` (of one core, so 800 is eight cores; for ``machine`` of all), ``cpu_time_s``,
``memory_bytes``, ``gpu_percent``, ``gpu_memory_bytes``, ``gpu_power_w``, and the joules since the run began: ``energy_counter_j``
from the device's own counter, ``energy_integrated_j`` from its power where it has none. What a device does for others counts too.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from dataclasses import dataclass, field
from typing import Protocol

from store.forks import call_in_child
from store.recording.run_state import RunState
from store.recording.sensors import MACHINE, PROCESS, SensorReading, Sensors
from store.sqlite.operations import Operation, resources_operation
from store.switches import OFF_WORDS, RESOURCES_VARIABLE

logger = logging.getLogger(__name__)

DEFAULT_INTERVAL_S = 5.0
FINAL_WAIT_S = 0.02
"""How long the end of a run waits for its last sample; one that takes longer is written a little later."""
_SHORTEST_SPAN_S = 0.01  # too short for a use per time


class Sink(Protocol):
    """Where samples go; a ``Writer``."""

    def add(self, operation: Operation) -> None:
        """Queue an operation."""


def interval_s() -> float | None:
    """Return the seconds between two samples from ``METAHP_RESOURCES_S``; None where it is ``off``."""
    text = os.environ.get(RESOURCES_VARIABLE, "").strip().lower()
    if not text:
        return DEFAULT_INTERVAL_S
    if text in OFF_WORDS:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        logger.warning("METAHP_RESOURCES_S must be seconds or 'off', but is %r. Sampling every %g s.", text, DEFAULT_INTERVAL_S)
        return DEFAULT_INTERVAL_S
    return max(seconds, 0.05)


@dataclass(slots=True)
class _Watched:
    """A run that is being sampled."""

    state: RunState
    sink: Sink
    interval_s: float
    first: SensorReading | None = None
    last: SensorReading | None = None
    integrated_j: dict[str, float] = field(default_factory=dict)
    is_ending: bool = False
    has_ended: threading.Event = field(default_factory=threading.Event)


class ResourceSampler:
    """Samples every open run of this process. Thread-safe; the thread lives as long as there is a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._sensors: Sensors | None = None
        self._runs: dict[RunState, _Watched] = {}

    def watch(self, state: RunState, sink: Sink) -> None:
        """Sample a run from now on; the first sample is taken at once, by the thread."""
        seconds = interval_s()
        if seconds is None:
            return
        with self._lock:
            self._runs[state] = _Watched(state, sink, seconds)
            self._ensure_thread()
        self._wake.set()

    def finish(self, state: RunState) -> None:
        """Have the thread take a last sample of a run; waits no longer than ``FINAL_WAIT_S``."""
        with self._lock:
            watched = self._runs.get(state)
            if watched is None:
                return
            watched.is_ending = True
            self._ensure_thread()
        self._wake.set()
        watched.has_ended.wait(FINAL_WAIT_S)

    def _ensure_thread(self) -> None:
        """Start the thread if there is none; the caller holds the lock."""
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._run, name="metahp-resources", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is shutting down, or there are too many threads
            logger.debug("No thread for samples: %s", error)
            return
        self._thread = thread

    def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                self._sample()
            except Exception as error:  # the edge: no sensor ends a training
                logger.debug("A sample failed.", exc_info=error)
            with self._lock:
                for state in [state for state, watched in self._runs.items() if watched.is_ending or state.is_finished]:
                    self._runs.pop(state).has_ended.set()
                if not self._runs:
                    self._thread = None
                    return
                pause = min(watched.interval_s for watched in self._runs.values())
            self._wake.wait(pause)

    def _sample(self) -> None:
        """Read the sensors once, for all runs."""
        with self._lock:
            watched = list(self._runs.values())
        if self._sensors is None:
            self._sensors = Sensors()
        if any(run.first is None for run in watched):
            self._sensors.find_gpus()
        reading = self._sensors.read()
        for run in watched:
            is_due = run.last is None or run.is_ending or reading.at_s - run.last.at_s >= 0.5 * run.interval_s
            if is_due:
                rows = _rows(run, reading)
                run.first, run.last = run.first or reading, reading
                run.sink.add(resources_operation(run.state.id, rows))


def _rows(run: _Watched, reading: SensorReading) -> list[list[object]]:
    """Return the rows of one sample of one run, in the order of ``RESOURCE_COLUMNS``."""
    values: dict[tuple[str, str], float] = dict(reading.levels)
    first, last = run.first or reading, run.last
    if last is not None and reading.at_s - last.at_s >= _SHORTEST_SPAN_S:
        span_s = reading.at_s - last.at_s
        if reading.cpu_s is not None and last.cpu_s is not None:
            values["cpu_percent", PROCESS] = 100 * max(0.0, reading.cpu_s - last.cpu_s) / span_s
        if reading.machine_cpu is not None and last.machine_cpu is not None:
            busy, total = (now - before for now, before in zip(reading.machine_cpu, last.machine_cpu, strict=True))
            if total > 0:
                values["cpu_percent", MACHINE] = 100 * min(1.0, max(0.0, busy / total))
        for (name, device), watts in reading.levels.items():
            if name == "gpu_power_w" and device not in reading.energy_j:
                before = last.levels.get((name, device), watts)
                run.integrated_j[device] = run.integrated_j.get(device, 0.0) + 0.5 * (before + watts) * span_s
    if reading.cpu_s is not None and first.cpu_s is not None:
        values["cpu_time_s", PROCESS] = max(0.0, reading.cpu_s - first.cpu_s)
    for device, joules in reading.energy_j.items():
        values["energy_counter_j", device] = max(0.0, joules - first.energy_j.get(device, joules))
    for device, joules in run.integrated_j.items():
        values["energy_integrated_j", device] = joules
    elapsed_s = max(0.0, reading.at_s - run.state.started)
    return [[run.state.id, name, device, elapsed_s, float(value)] for (name, device), value in values.items() if math.isfinite(value)]


_sampler = ResourceSampler()


def sampler() -> ResourceSampler:
    """Return this process's sampler."""
    return _sampler


def _forget_inherited() -> None:
    """After a fork: the runs are the parent's, and so are the thread and what the driver's library holds."""
    global _sampler
    _sampler = ResourceSampler()


call_in_child(_forget_inherited)
