"""Merging, exporting and importing: nothing is lost, nothing comes twice, what went on further stays."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import History, HistoryTooNewError, InvalidArgumentError, MetaHPError, UnknownTaskError
from store.importers.export import import_history
from store.recording import spool
from store.sqlite import schema
from store.sqlite.operations import metrics_operation
from store.upkeep.export import TABLES, export_history
from tests.store.polls import wait_until_at_rest

RELEASED = sorted((Path(__file__).parents[1] / "released").glob("schema_*.sql"))


def everything(history: History) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in an order that does not depend on when it came in."""
    with history._reading() as connection:
        return {name: sorted(map(tuple, connection.execute(f"SELECT * FROM {name}")), key=repr) for name in TABLES}


def add_run(history: History, task: str = "t", acc: float = 0.5, **hparams: object) -> str:
    with history.start_run(task=task, hparams=hparams, objective="acc") as run:
        run.log(acc=acc, loss=math.nan, step=1, epoch=0.5)
    return run.id


@pytest.fixture
def rich(tmp_path: Path) -> History:
    """A history with something in every table."""
    history = History(tmp_path / "rich.db")
    for name in "abc":
        add_run(history, name, lr=0.1, betas=(0.9, 0.999), weird=[math.inf, {"$type": "x"}, b"\x00", "☃\x00"])
    history.merge_tasks("a", "b")
    history.split_task([history.runs("c")[0].id], "split off")
    history.start_run(task="c", hparams={"big": 2**70}).finish("interrupted")
    history.save_recommendation({"id": "r1", "config": {"lr": 0.1}}, current={"lr": 0.5}, changes=[])
    history.start_run(task="a", recommendation_id="r1", objective="acc", parent_run_id=history.runs()[0].id).finish("stopped")
    first = history.runs()[0].id
    history.save_model({"id": "m1", "kind": "gp", "file": "m1", "n_runs": 2, "n_tasks": 1, "info": {"x": 1}})
    with history._writing() as connection:
        connection.execute("INSERT INTO resources (run_id, name, device, elapsed_s, value) VALUES ('r', 'gpu', '0', 0.1, 1e-300)")
        connection.execute("INSERT INTO compactions VALUES (?, '2025-01-01T00:00:00.000000Z', 'shape', 10, 20, 10)", (first,))
    return history


@pytest.mark.parametrize("target", ["runs.jsonl", "tables"])
def test_an_export_taken_in_again_gives_an_equal_history(rich: History, tmp_path: Path, target: str) -> None:
    report = export_history(rich, tmp_path / target)
    assert report.format == ("jsonl" if "." in target else "parquet")
    assert {name: len(rows) for name, rows in everything(rich).items()} == report.rows
    assert all(report.rows.values())
    with History(tmp_path / "copy.db") as copy:
        counts = import_history(copy, tmp_path / target)
        assert {name: counts[name] for name in TABLES} == report.rows
        assert everything(copy) == everything(rich)
        assert [run.hparams for run in copy.runs()] == [run.hparams for run in rich.runs()]
        assert set(import_history(copy, tmp_path / target).values()) == {0}
        assert everything(copy) == everything(rich)
        assert set(copy.merge(rich).values()) == {0}


names = st.text(min_size=1, max_size=12)
numbers = st.one_of(st.floats(), st.integers(-(2**80), 2**80), st.booleans())
generated_runs = st.lists(
    st.tuples(
        names,
        st.dictionaries(
            names, st.recursive(st.one_of(st.none(), numbers, st.text()), lambda inner: st.lists(inner, max_size=3)), max_size=4
        ),
        st.lists(st.tuples(names, st.integers(-5, 5), numbers), max_size=6),
    ),
    max_size=4,
)


@pytest.mark.filterwarnings("ignore::store.errors.ObjectiveWarning")
@given(generated_runs, st.sampled_from(["jsonl", "parquet"]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_was_recorded_comes_back_from_an_export(tmp_path: Path, runs: list[Any], kind: str) -> None:
    folder = tmp_path / os.urandom(4).hex()
    with History(folder / "a.db") as history, History(folder / "b.db") as copy:
        for task, hparams, values in runs:
            run = history.start_run(task=task, hparams=hparams, objective="acc")
            for name, step, value in values:
                run.log({name: value}, step=step)
            run.finish("completed" if values else "failed", error=None if values else task)
        export_history(history, folder / "out", to=kind)
        import_history(copy, folder / "out")
        assert everything(copy) == everything(history)


def test_one_task_can_be_exported_with_all_that_belongs_to_it(rich: History, tmp_path: Path) -> None:
    report = export_history(rich, tmp_path / "a.jsonl", task="a")
    with History(tmp_path / "copy.db") as copy:
        import_history(copy, report.path)
        assert [run.id for run in copy.runs()] == [run.id for run in rich.runs("a")]
        assert copy.task("b").name == "a"
        assert copy.recommendation("r1")["run_id"] == rich.recommendation("r1")["run_id"]
        assert [(m.name, m.step) for m in copy.metrics(copy.runs()[0].id)] == [("acc", 1), ("loss", 1)]
    with pytest.raises(UnknownTaskError, match="has no task 'zorp'"):
        export_history(rich, tmp_path / "zorp.jsonl", task="zorp")
    assert sorted(file.name for file in tmp_path.iterdir() if "jsonl" in file.name) == ["a.jsonl"]


def test_an_export_replaces_nothing_unless_told_so(rich: History, tmp_path: Path) -> None:
    export_history(rich, tmp_path / "out")
    with pytest.raises(InvalidArgumentError, match="exists; replace it with --overwrite"):
        export_history(rich, tmp_path / "out")
    export_history(rich, tmp_path / "out", overwrite=True)
    (tmp_path / "notes.jsonl").write_text("my notes")
    with pytest.raises(InvalidArgumentError, match="exists; it is no export of a history"):
        export_history(rich, tmp_path / "notes.jsonl", overwrite=True)
    assert (tmp_path / "notes.jsonl").read_text() == "my notes"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: text[: len(text) // 2], "is no row|was cut off"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "was cut off"),
        (lambda text: text.replace('"table":"runs"', '"table":"zorp"'), "it has a table 'zorp'"),
        (lambda text: text.replace('"task_id"', '"taskid"'), "runs has no column taskid"),
        (lambda text: "[]\n" + text, "it does not begin as one"),
        (lambda text: "", "it does not begin as one"),
        (lambda text: text.replace('"kind":"nan"', '"kind":"odd"'), "a row of metrics cannot be imported: CHECK"),
    ],
)
def test_a_damaged_export_is_one_error_and_changes_nothing(rich: History, tmp_path: Path, damage: Any, why: str) -> None:
    file = export_history(rich, tmp_path / "runs.jsonl").path
    file.write_text(damage(file.read_text()))
    with History(tmp_path / "copy.db") as copy:
        with pytest.raises(InvalidArgumentError, match=why):
            import_history(copy, file)
        assert not any(everything(copy).values())
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name.startswith("metahp-import")) == []


def test_an_export_of_a_newer_version_asks_for_an_upgrade_and_other_files_for_another_command(history: History, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text(json.dumps({"format": "metahp-history", "version": 1, "schema_version": 99}) + "\n")
    with pytest.raises(HistoryTooNewError, match="has schema version 99, but this version reads up to"):
        import_history(history, tmp_path / "new.jsonl")
    for source in (history.path, tmp_path, tmp_path / "none"):
        with pytest.raises(InvalidArgumentError, match="metahp export"):
            import_history(history, source)


@pytest.mark.parametrize("dump", RELEASED, ids=lambda dump: dump.stem)
def test_a_history_of_an_older_schema_is_merged_without_changing_it(history: History, dump: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    raw = sqlite3.connect(path)
    raw.executescript(dump.read_text(encoding="utf-8"))
    raw.close()
    before, files = path.read_bytes(), sorted(os.listdir(tmp_path))
    assert history.merge(path)["runs"] == 2
    assert set(history.merge(path).values()) == {0}
    assert (path.read_bytes(), sorted(os.listdir(tmp_path))) == (before, files)
    assert history.runs("digits")[0].hparams["big"] == 2**70


def test_a_history_of_a_later_schema_takes_in_an_older_file_and_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = History(tmp_path / "old.db")
    run_id = add_run(old, lr=0.1)
    export_history(old, tmp_path / "old.jsonl")
    old.close()
    wait_until_at_rest(tmp_path / "old.db")
    before = (tmp_path / "old.db").read_bytes()

    def m999_note(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE runs ADD COLUMN note TEXT")
        connection.execute("UPDATE runs SET note = 'from ' || framework")

    version = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, m999_note))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 1)
    for number, source in enumerate(("old.db", "old.jsonl")):
        with History(tmp_path / f"new-{number}.db") as new:
            counts = new.merge(tmp_path / source) if source.endswith("db") else import_history(new, tmp_path / source)
            assert counts["runs"] == 1
            assert new.run(run_id).hparams == {"learning_rate": 0.1}
    assert (tmp_path / "old.db").read_bytes() == before
    monkeypatch.undo()
    with History(tmp_path / "small.db") as small, pytest.raises(HistoryTooNewError, match=f"has schema version {version + 1}"):
        small.merge(tmp_path / "new-0.db")


def test_what_waits_in_the_others_spool_comes_along_and_stays_there(history: History, tmp_path: Path) -> None:
    with History(tmp_path / "other.db") as other:
        run_id = add_run(other)
    spool.append(other.path, [metrics_operation(run_id, [[run_id, "late", 0, 7, None, 1.5, "finite", 0.0]])])
    assert history.merge(other.path)["metrics"] == 3
    assert history.metrics(run_id, "late")[0].value == 1.5
    assert len(spool.waiting_files(other.path)) == 1
    assert set(history.merge(other.path).values()) == {0}


def test_of_a_run_that_went_on_elsewhere_the_further_state_stays(history: History, tmp_path: Path) -> None:
    with History(tmp_path / "laptop.db") as laptop:
        run = laptop.start_run(task="t", hparams={"lr": 0.1}, objective="acc")
        run.log(acc=0.1, step=1)
        history.merge(laptop)
        running = history.run(run.id)
        assert (str(running.status), running.objective_best) == ("running", 0.1)
        run.finish("interrupted")
        history.merge(laptop)
    with history.start_run(resume=run.id, hparams={"wd": 0.5}) as again:
        again.log(acc=0.9)
    assert set(history.merge(tmp_path / "laptop.db").values()) == {0}
    assert history.run(run.id).objective_best == 0.9
    with History(tmp_path / "laptop.db") as laptop:
        counts = {name: count for name, count in laptop.merge(history).items() if count}
        assert counts == {"runs": 1, "runs_updated": 1, "hparams": 2, "metrics": 1}
        assert everything(laptop)["runs"] == everything(history)["runs"]
        assert [(m.attempt, m.value) for m in laptop.metrics(run.id)] == [(0, 0.1), (1, 0.9)]


def test_a_split_made_elsewhere_travels_and_one_made_here_stands(history: History, tmp_path: Path) -> None:
    with History(tmp_path / "other.db") as other:
        first, second = add_run(other), add_run(other)
        history.merge(other)
        other.split_task([first], "theirs")
        history.split_task([second], "ours")
        assert history.merge(other)["runs_updated"] == 1
        assert [history.run(run).task_name for run in (first, second)] == ["theirs", "ours"]
        assert set(history.merge(other).values()) == {0}


def test_values_that_compacting_removed_here_do_not_come_back_but_a_later_attempt_does(history: History, tmp_path: Path) -> None:
    with History(tmp_path / "other.db") as other:
        run_id = add_run(other)
        history.merge(other)
        with history._writing() as connection:
            connection.execute("DELETE FROM metrics WHERE name = 'loss'")
            connection.execute("INSERT INTO compactions VALUES (?, '2025', 'shape', 10, 2, 1)", (run_id,))
        assert set(history.merge(other).values()) == {0}
        assert history.metric_names(run_id) == ["acc"]
        with other.start_run(resume=run_id) as again:
            again.log(acc=0.7, loss=0.1)
        assert history.merge(other)["metrics"] == 2
        assert other.merge(history)["compactions"] == 0


def test_merging_what_is_no_history_is_one_clear_error(history: History, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x" * 600)
    with sqlite3.connect(tmp_path / "other.db") as raw:
        raw.execute("CREATE TABLE runs (id TEXT)")
    raw.close()
    for name in ("text", "other.db", "none", ""):
        with pytest.raises(MetaHPError) as caught:
            history.merge(tmp_path / name)
        assert "\n" not in str(caught.value)
