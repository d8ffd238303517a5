from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.outcome import value_kind
from store.recording import spool, tensors
from store.recording.batch_events import Event, batch_events
from store.recording.run_state import RunState
from store.sqlite.connection import open_database
from store.sqlite.operations import Operation, apply_operations, series_operation, spooled

Row = tuple[Any, ...]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = open_database(tmp_path / "history.db")
    yield opened
    opened.close()


def state(run_id: str = "r1", attempt: int = 0) -> RunState:
    return RunState(run_id, "t", {"attempt": attempt, "objective": "loss", "direction": "min"}, None)


def event(
    run: RunState, metrics: dict[str, Any], step: int, epoch: float | None = None, elapsed_s: float = 0.0, is_partial: bool = False
) -> Event:
    return run, tuple(metrics), is_partial, list(metrics.values()), step, epoch, elapsed_s, None


def written(connection: sqlite3.Connection, operations: list[Operation]) -> list[Row]:
    connection.execute("DELETE FROM metrics")
    apply_operations(connection, operations)
    return [tuple(row) for row in connection.execute("SELECT * FROM metrics ORDER BY run_id, name, attempt, step")]


def value_by_value(events: list[Event]) -> list[Row]:
    """What must be stored, worked out without any batching."""
    rows: dict[Row, Row] = {}
    for run, names, _, values, step, epoch, elapsed_s, _ in events:
        for name, value in zip(names, values, strict=True):
            key = (run.id, name, run.attempt, step)
            if key not in rows or elapsed_s >= rows[key][-1]:
                rows[key] = (*key, epoch, value if math.isfinite(value) else None, value_kind(value), elapsed_s)
    return [rows[key] for key in sorted(rows)]


numbers = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1e308, -1e308, math.nan, math.inf])
logged = st.tuples(
    st.integers(0, 1),
    st.dictionaries(st.sampled_from(["loss", "acc", "größe", "a'; DROP TABLE runs"]), numbers, min_size=1),
    st.integers(0, 30),
    st.none() | st.floats(0, 9),
    st.booleans(),
)


@given(st.lists(logged, max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_what_is_written_together_is_what_would_be_written_value_by_value(connection: sqlite3.Connection, calls: list[Any]) -> None:
    runs = [state("r1"), state("r2", attempt=3)]
    events = [
        event(runs[which], metrics, step, epoch, float(number), is_partial)
        for number, (which, metrics, step, epoch, is_partial) in enumerate(calls)
    ]
    operations = batch_events(events)
    expected = value_by_value(events)
    assert written(connection, operations) == expected
    waiting = [json.loads(json.dumps(spooled(operation), allow_nan=False)) for operation in operations]
    assert written(connection, waiting) == expected


@pytest.mark.parametrize(("n_names", "n_steps"), [(1, 1), (1, 1300), (5, 699), (99, 7), (100, 5), (101, 4), (350, 3)])
def test_any_number_of_names_and_steps_fits_into_statements(connection: sqlite3.Connection, n_names: int, n_steps: int) -> None:
    run = state()
    events = [event(run, {f"m{name}": step + name / 1000 for name in range(n_names)}, step, step / 10, step / 5) for step in range(n_steps)]
    (operation,) = batch_events(events)
    assert operation["op"] == "series"
    assert written(connection, [operation]) == value_by_value(events)


def test_a_sqlite_that_takes_few_values_in_a_statement_gets_few(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 250)  # the lowest default of any SQLite is 999
    run = state()
    events = [event(run, {f"m{name}": float(step) for name in range(110)}, step) for step in range(9)]
    assert written(connection, batch_events(events)) == value_by_value(events)


def test_an_older_value_never_replaces_a_newer_one(connection: sqlite3.Connection) -> None:
    def one(value: float, elapsed_s: float) -> Operation:
        return series_operation("r1", 0, {"loss": [value]}, [7], [None], [elapsed_s])

    assert written(connection, [one(0.5, 2.0), one(9.0, 1.0)]) == [("r1", "loss", 0, 7, None, 0.5, "finite", 2.0)]
    assert written(connection, [one(0.5, 2.0), one(9.0, 2.0)]) == [("r1", "loss", 0, 7, None, 9.0, "finite", 2.0)]


def test_names_that_are_stored_alike_replace_each_other_in_their_order(connection: sqlite3.Connection) -> None:
    run = state()
    rows = written(connection, batch_events([event(run, {7: 4.0, "loss": 2.0, "7": step + 5.0}, step) for step in range(3)]))  # type: ignore[dict-item]
    assert [(row[1], row[5]) for row in rows] == [*(("7", step + 5.0) for step in range(3)), *(("loss", 2.0) for _ in range(3))]


def test_an_outcome_is_the_same_however_many_calls_come_together() -> None:
    together, alone = state(), state()
    losses = [0.9, 0.4, math.nan, 0.6, 0.3, math.inf, 0.5]
    batch_events([event(together, {"loss": loss}, step, step / 2) for step, loss in enumerate(losses)])
    for step, loss in enumerate(losses):
        batch_events([event(alone, {"loss": loss}, step, step / 2)])
    rows = [one["row"] for one in (together.take_operation(), alone.take_operation()) if one is not None]
    names = [name for name in rows[0] if name.startswith("objective") or name in {"steps_reached", "epochs_reached"}]
    assert [rows[0][name] for name in names] == [rows[1][name] for name in names]
    assert (rows[0]["objective_best"], rows[0]["objective_best_step"], rows[0]["epochs_reached"]) == (0.3, 4, 3.0)


def test_tensors_of_every_type_are_read_as_their_own_item_says() -> None:
    values: list[Any] = [torch.tensor(0.1, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)]
    values += [torch.tensor(2**53 + 1), torch.tensor(True), torch.tensor([3.5]), torch.tensor(2.0, requires_grad=True) * 2, 7, True]
    values += [torch.nn.Parameter(torch.tensor(1.5)), torch.tensor(4, dtype=torch.uint8), torch.tensor([[8.0]]), 0.25]
    expected = [float(value.item()) if isinstance(value, torch.Tensor) else float(value) for value in values]
    assert tensors.to_numbers(values) == (expected, {})
    assert tensors.to_numbers([value for value in values for _ in range(3)])[0] == [value for value in expected for _ in range(3)]


def test_what_is_no_number_costs_itself_alone() -> None:
    values = [torch.tensor(1.0), torch.ones(3), "high", None, torch.tensor(1j), torch.empty((), device="meta"), torch.tensor(2.0), object()]
    found, problems = tensors.to_numbers(values)
    assert found == [1.0, None, None, None, None, None, 2.0, None]
    assert sorted(problems) == [1, 2, 3, 4, 7]  # the meta tensor is a number, which nobody can read
    assert all(isinstance(problem, tensors.NotANumberError) for problem in problems.values())


def test_only_what_lies_in_the_memory_of_the_host_is_read_in_the_step() -> None:
    elsewhere, many, phase = torch.empty((), device="meta"), torch.ones(2), torch.tensor(1j)
    assert tensors.read_at_hand([torch.tensor(0.5), 3, "x", torch.tensor(7)]) == [0.5, 3, "x", 7]
    assert tensors.read_at_hand([elsewhere, many])[0] is elsewhere
    assert tensors.read_at_hand([elsewhere, many])[1] is many
    assert tensors.to_numbers(tensors.read_at_hand([phase]))[0] == [None]


def test_what_waits_in_a_spool_are_rows_that_every_version_reads(tmp_path: Path) -> None:
    run = state()
    place = spool.append(
        tmp_path / "history.db", batch_events([event(run, {"loss": 0.5, "acc": 0.25}, step, 0.5, 1.0) for step in range(2)])
    )
    (file,) = place.iterdir()
    (line,) = [json.loads(text) for text in file.read_text().splitlines()]
    assert set(line) == {"op", "run_id", "rows"}
    assert line["op"] == "metrics"
    assert sorted(line["rows"]) == [
        ["r1", name, 0, step, 0.5, value, "finite", 1.0] for name, value in (("acc", 0.25), ("loss", 0.5)) for step in range(2)
    ]
