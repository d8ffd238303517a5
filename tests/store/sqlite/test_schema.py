from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from store import History
from store.records import RunRecord
from store.sqlite import schema


@pytest.fixture
def raw(history: History) -> sqlite3.Connection:
    connection = sqlite3.connect(history.path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def table_names(raw: sqlite3.Connection) -> set[str]:
    return {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def columns(raw: sqlite3.Connection, table: str) -> list[str]:
    return [row["name"] for row in raw.execute(f"PRAGMA table_info({table})")]


def test_the_tables_and_their_names_stay_queryable(raw: sqlite3.Connection) -> None:
    assert {"tasks", "runs", "hparams", "metrics", "resources", "recommendations", "models"} <= table_names(raw)
    assert columns(raw, "hparams") == ["run_id", "name", "raw_name", "value_json", "source", "requested_json", "observed_json"]
    assert columns(raw, "metrics") == ["run_id", "name", "attempt", "step", "epoch", "value", "kind", "elapsed_s"]
    assert columns(raw, "models") == ["id", "created_utc", "kind", "file", "n_runs", "n_tasks", "info_json"]


def test_what_the_code_writes_is_what_the_tables_have(raw: sqlite3.Connection) -> None:
    assert columns(raw, "tasks") == list(schema.TASK_COLUMNS)
    assert columns(raw, "runs") == list(schema.RUN_COLUMNS)
    assert columns(raw, "hparams") == list(schema.HPARAM_COLUMNS)
    assert columns(raw, "metrics") == list(schema.METRIC_COLUMNS)


def test_every_field_of_a_run_record_has_a_column(raw: sqlite3.Connection) -> None:
    elsewhere = {"task_name", "versions", "description", "provenance"}
    assert set(RunRecord.__dataclass_fields__) - elsewhere <= set(columns(raw, "runs"))


def test_metrics_has_no_rowid_after_every_migration(raw: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such column: rowid"):
        raw.execute("SELECT rowid FROM metrics")
    keys = [row["name"] for row in sorted(raw.execute("PRAGMA table_info(metrics)"), key=lambda row: row["pk"]) if row["pk"]]
    assert keys == ["run_id", "name", "attempt", "step"]


def test_the_header_says_what_the_file_is(raw: sqlite3.Connection) -> None:
    assert raw.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID
    assert raw.execute("PRAGMA user_version").fetchone()[0] == schema.SCHEMA_VERSION == len(schema.MIGRATIONS)


def test_migrating_twice_changes_nothing(raw: sqlite3.Connection) -> None:
    before = list(map(tuple, raw.execute("SELECT * FROM sqlite_master")))
    raw.execute("BEGIN IMMEDIATE")
    schema.migrate(raw)
    raw.execute("COMMIT")
    assert list(map(tuple, raw.execute("SELECT * FROM sqlite_master"))) == before


def test_a_failing_migration_leaves_nothing_behind(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def m999_broken(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half_done (a)")
        raise RuntimeError("broken")

    path = tmp_path / "history.db"
    History(path).close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, m999_broken))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    with pytest.raises(RuntimeError, match="broken"):
        History(path)
    monkeypatch.undo()
    with History(path) as history, history.start_run(task="t"):
        pass
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA user_version").fetchone()[0] == schema.SCHEMA_VERSION
        assert "half_done" not in table_names(raw)


def test_an_older_history_is_migrated_with_its_rows(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def m999_note(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE runs ADD COLUMN note TEXT")

    path = tmp_path / "history.db"
    with History(path) as history, history.start_run(task="t", hparams={"lr": 0.1}) as run:
        run.log(loss=float("nan"))
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, m999_note))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    with History(path) as history:
        assert history.run(run.id).hparams == {"learning_rate": 0.1}
        assert len(history.metrics(run.id)) == 1
    with sqlite3.connect(path) as raw:
        assert "note" in columns_of(raw)


def test_a_new_history_notes_the_migrations_that_made_it(raw: sqlite3.Connection) -> None:
    noted = raw.execute("SELECT migration_set, name FROM _sqlite_migrations ORDER BY id")
    assert list(map(tuple, noted)) == [("metahp", step.__name__) for step in schema.MIGRATIONS]


def columns_of(raw: sqlite3.Connection) -> list[str]:
    return [row[1] for row in raw.execute("PRAGMA table_info(runs)")]


@pytest.mark.parametrize("dump", sorted((Path(__file__).parents[1] / "released").glob("schema_*.sql")), ids=lambda dump: dump.stem)
def test_a_history_of_every_released_schema_is_read_and_written(dump: Path, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    raw = sqlite3.connect(path)
    raw.executescript(dump.read_text(encoding="utf-8"))
    raw.close()
    with History(path) as history:
        first, second = history.runs("digits")
        assert first.hparams == {"learning_rate": 0.1, "betas": (0.9, 0.999), "clip": math.inf, "big": 2**70}
        assert (first.provenance["clip"].source, first.provenance["learning_rate"].observed) == ("default", 0.05)
        assert (first.objective_best, first.status, second.status, second.attempt) == (0.5, "completed", "diverged", 1)
        assert [math.isnan(record.value) for record in history.metrics(second.id)] == [True]
        assert history.recommendation("r1")["run_id"] == second.id
        assert [model["id"] for model in history.models()] == ["m1"]
        with history.start_run(task="digits", objective="val_acc") as run:
            run.log(val_acc=0.9)
        assert history.task("digits").best == 0.9
    with sqlite3.connect(path) as raw, pytest.raises(sqlite3.OperationalError, match="no such column: rowid"):
        raw.execute("SELECT rowid FROM metrics")
    raw.close()


@pytest.mark.parametrize("dump", sorted((Path(__file__).parents[1] / "released").glob("schema_*.sql")), ids=lambda dump: dump.stem)
def test_upgrading_every_released_schema_keeps_each_value_of_each_row(dump: Path, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    raw = sqlite3.connect(path)
    raw.executescript(dump.read_text(encoding="utf-8"))
    raw.row_factory = sqlite3.Row

    def rows() -> dict[str, list[dict[str, object]]]:
        names = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> '_sqlite_migrations'")]
        return {name: [dict(row) for row in raw.execute(f"SELECT * FROM {name} ORDER BY 1, 2")] for name in names}

    before = rows()
    assert set(before) >= {"tasks", "runs", "hparams", "metrics", "resources", "recommendations", "models"}
    History(path).close()
    after = rows()
    for name, table in before.items():
        assert [{column: row[column] for column in old} for old, row in zip(table, after[name], strict=True)] == table
    assert raw.execute("PRAGMA user_version").fetchone()[0] == schema.SCHEMA_VERSION
    raw.close()


def test_the_newest_released_schema_is_this_versions(raw: sqlite3.Connection, tmp_path: Path) -> None:
    newest = sorted((Path(__file__).parents[1] / "released").glob("schema_*.sql"))[-1]
    assert newest.stem == f"schema_{schema.SCHEMA_VERSION}"
    released = sqlite3.connect(tmp_path / "released.db")
    released.executescript(newest.read_text(encoding="utf-8"))
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    assert [tuple(" ".join(text.split()) for text in row) for row in released.execute(query)] == [
        tuple(" ".join(text.split()) for text in row) for row in raw.execute(query)
    ]
    released.close()
