"""What a run used in all: CPU and GPU hours and joules, each with where the figure comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from store.sqlite import row_reader

if TYPE_CHECKING:
    import sqlite3

    from store.history import History

_SOURCES = {"energy_counter_j": "counter of the device", "energy_integrated_j": "its power, integrated"}


@dataclass(frozen=True, slots=True)
class Usage:
    """What one device was seen doing.

    Attributes:
        name: As in the table ``resources``, with its unit.
        device: ``process``, ``machine``, ``gpu0``, ``cpu0``, ...
        n_samples: How many samples there are.
        mean: Mean over the samples.
        highest: Largest sample.
    """

    name: str
    device: str
    n_samples: int
    mean: float
    highest: float


@dataclass(frozen=True, slots=True)
class ResourceTotals:
    """Totals of one run; None where unknown.

    Attributes:
        cpu_s: CPU time of the process and everything it started, in seconds.
        gpu_s: GPU time in seconds, summed over GPUs.
        gpu_source: Where ``gpu_s`` comes from.
        energy_j: Device -> joules used while the run was open, by the run or by others.
        energy_sources: Device -> where the joules come from.
        usage: Every sampled quantity.
    """

    cpu_s: float | None = None
    gpu_s: float | None = None
    gpu_source: str | None = None
    energy_j: dict[str, float] = field(default_factory=dict)
    energy_sources: dict[str, str] = field(default_factory=dict)
    usage: tuple[Usage, ...] = ()


def resource_totals(history: History, run_id: str) -> ResourceTotals:
    """Return what a run used in all.

    Args:
        history: The history.
        run_id: The run's id, or a unique beginning or end of it.

    Raises:
        UnknownRunError: If there is no such run.
    """
    with history._reading() as connection:
        return read_totals(connection, row_reader.find_run_id(connection, run_id))


def read_totals(connection: sqlite3.Connection, run_id: str) -> ResourceTotals:
    """Return what a run used in all, from its row and its samples."""
    run = connection.execute("SELECT cpu_s, gpu_s, wall_s FROM runs WHERE id = ?", (run_id,)).fetchone()
    rows = connection.execute(
        "SELECT name, device, count(*) AS n, avg(value) AS mean, max(value) AS highest FROM resources WHERE run_id = ? "
        "GROUP BY name, device ORDER BY name, device",
        (run_id,),
    ).fetchall()
    found = {(row["name"], row["device"]): row for row in rows}
    sampled = found.get(("cpu_time_s", "process"))
    cpu_s = max((value for value in (run["cpu_s"], sampled and sampled["highest"]) if value is not None), default=None)
    energy, sources = {}, {}
    for name, source in _SOURCES.items():
        for (found_name, device), row in found.items():
            if found_name == name and device not in energy:  # joules only grow, so the largest is the last
                energy[device], sources[device] = row["highest"], source
    gpu_s, gpu_source = run["gpu_s"], None if run["gpu_s"] is None else "wall time on the GPUs used"
    busy = [row["mean"] for (name, _), row in found.items() if name == "gpu_percent"]
    if gpu_s is None and any(busy) and run["wall_s"] is not None:
        gpu_s, gpu_source = run["wall_s"] * sum(busy) / 100, "utilisation of the visible GPUs"
    usage = tuple(
        Usage(row["name"], row["device"], row["n"], row["mean"], row["highest"])
        for row in rows
        if row["name"] not in _SOURCES and row["name"] != "cpu_time_s"
    )
    return ResourceTotals(cpu_s, gpu_s, gpu_source, energy, sources, usage)
