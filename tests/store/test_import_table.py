from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store import FINISHED, History, InvalidArgumentError, MetaHPError, ObjectiveError, RunStatus, Source
from store.importers.table import TableColumns, import_table

SHARED = Path(os.environ.get("METAHP_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
CURVES = """task,run,epoch,seconds,val_acc,val_loss
a,10,1,1.5,0.5,0.9
a,10,2,3.0,0.7,0.8
a,2,1,1.0,0.4,0.7
a,2,2,2.0,0.3,0.6
b,2,1,1.0,0.2,0.5
b,2,2,2.5,nan,0.4
"""
CONFIGS = "run,lr,optimizer\n2,0.1,adam\n10,0.001,\n"
COLUMNS = TableColumns("task", "run", ("lr", "optimizer"), "val_acc", None, "epoch", "seconds")
FLAT = TableColumns("task", "run", ("lr",), "val_acc")


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    path = tmp_path / "curves.csv"
    path.write_text(CURVES)
    return path


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    path = tmp_path / "configs.csv"
    path.write_text(CONFIGS)
    return path


def test_a_table_of_curves_becomes_runs_with_metrics(history: History, curves: Path, configs: Path) -> None:
    report = import_table(history, curves, COLUMNS, join=(configs, "run"))
    assert (report.n_rows, report.n_tasks, report.n_runs, report.n_new, report.n_diverged) == (6, 2, 3, 3, 1)
    assert report.left_out == ("val_loss",)
    assert {task.name for task in history.tasks()} == {"a", "b"}
    first, second = history.runs("a")
    assert (first.hparams, second.hparams) == ({"learning_rate": 0.1, "optimizer": "adam"}, {"learning_rate": 0.001})
    assert (second.objective_best, second.objective_last, second.epochs_reached, second.wall_s) == (0.7, 0.7, 2.0, 3.0)
    assert (first.objective_best, first.objective_best_step, first.objective_last) == (0.4, 1, 0.3)
    assert second.provenance["learning_rate"].source is Source.USER
    assert [(m.step, m.value, m.elapsed_s, m.epoch) for m in history.metrics(second.id)] == [(1, 0.5, 1.5, 1.0), (2, 0.7, 3.0, 2.0)]


def test_runs_are_in_the_numerical_order_of_the_run_column(history: History, curves: Path, configs: Path) -> None:
    import_table(history, curves, COLUMNS, join=(configs, "run"))
    assert [run.hparams["learning_rate"] for run in history.runs("a")] == [0.1, 0.001]


def test_nan_comes_in_as_a_diverged_run_and_stays_nan(history: History, curves: Path, configs: Path) -> None:
    import_table(history, curves, COLUMNS, join=(configs, "run"))
    (run,) = history.runs("b")
    assert run.status is RunStatus.DIVERGED
    assert run.objective_best == 0.2
    assert math.isnan(run.objective_last or 0.0)
    assert math.isnan(history.metrics(run.id)[-1].value)


def test_importing_twice_changes_nothing(history: History, curves: Path, configs: Path) -> None:
    import_table(history, curves, COLUMNS, join=(configs, "run"))
    before = (history.state(), repr(history.runs()))
    report = import_table(history, curves, COLUMNS, join=(configs, "run"))
    assert (report.n_runs, report.n_new, report.n_values) == (3, 0, 0)
    assert (history.state(), repr(history.runs())) == before  # as text: NaN differs from itself


def test_every_format_gives_the_same_runs(tmp_path: Path) -> None:
    rows = [{"task": "a", "run": i, "lr": 10.0**-i, "val_acc": 0.1 * i} for i in range(4)]
    (tmp_path / "t.csv").write_text("task,run,lr,val_acc\n" + "".join(f"a,{r['run']},{r['lr']!r},{r['val_acc']!r}\n" for r in rows))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = []
    for kind in ("csv", "jsonl", "parquet"):
        with History(tmp_path / f"{kind}.db") as opened:
            import_table(opened, tmp_path / f"t.{kind}", FLAT)
            found.append([(run.id, run.hparams, run.objective_best) for run in opened.runs()])
    assert len(found[0]) == 4
    assert found[0] == found[1] == found[2]


def test_features_of_tasks_become_part_of_their_description(history: History, curves: Path, configs: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.csv").write_text("task,name,n_classes\na,iris,3\n")
    import_table(history, curves, COLUMNS, join=(configs, "run"), task_features=(tmp_path / "tasks.csv", "task"))
    assert history.task("a").description["features"] == {"n_classes": 3.0}
    assert "features" not in history.task("b").description


def test_further_metrics_are_kept_where_asked_for(history: History, curves: Path, configs: Path) -> None:
    columns = TableColumns("task", "run", ("lr",), "val_acc", None, "epoch", None, ("val_loss",))
    import_table(history, curves, columns, join=(configs, "run"))
    assert history.metric_names() == ["val_acc", "val_loss"]


def test_an_imported_run_is_finished_evidence(history: History, curves: Path, configs: Path) -> None:
    import_table(history, curves, COLUMNS, join=(configs, "run"))
    assert {run.status for run in history.runs()} <= FINISHED
    assert history.state()[0] == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (TableColumns("dataset", "run", (), "val_acc"), r"has no 'dataset'; it has: task, run, epoch"),
        (TableColumns("task", "run", ("depth",), "val_acc"), r"has no 'depth'"),
        (TableColumns("task", "run", (), "val_acc"), r"one row where no step column is named, but run 2 of task 'a' has 2\. .*--step-col"),
        (TableColumns("task", "run", (), "task", "max", "epoch"), r"Column 'task' must hold numbers"),
        (TableColumns("task", "task", (), "val_acc", None, "epoch"), r"Steps must be whole numbers, each once a run"),
        (TableColumns("task", "run", ("seconds",), "val_acc", None, "epoch"), r"must stay the same within a run, but 'seconds' changes"),
    ],
)
def test_a_wrong_column_is_named_and_nothing_is_written(history: History, curves: Path, columns: TableColumns, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        import_table(history, curves, columns)
    assert history.runs() == []


def test_a_direction_that_nobody_could_know_is_asked_for(history: History, curves: Path) -> None:
    with pytest.raises(ObjectiveError, match="Pass direction"):
        import_table(history, curves, TableColumns("task", "run", (), "seconds", None, "epoch"))


def test_a_key_without_partner_and_a_key_twice_are_refused(history: History, curves: Path, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("run,lr\n2,0.1\n")
    with pytest.raises(InvalidArgumentError, match="run=10 of task 'a' is not there"):
        import_table(history, curves, TableColumns("task", "run", ("lr",), "val_acc", None, "epoch"), join=(tmp_path / "few.csv", "run"))
    (tmp_path / "double.csv").write_text("run,lr\n2,0.1\n2,0.2\n")
    with pytest.raises(InvalidArgumentError, match="run=2 twice"):
        import_table(history, curves, FLAT, join=(tmp_path / "double.csv", "run"))
    assert history.runs() == []


@pytest.mark.parametrize(("name", "content"), [("missing.csv", None), ("t.xlsx", b"x"), ("t.parquet", b"no parquet"), ("t.csv", b"")])
def test_an_unreadable_file_is_one_line(history: History, tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MetaHPError, match=name):
        import_table(history, tmp_path / name, FLAT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task,run,lr,val_acc\n", "must have rows"),
        ("task,run,lr,val_acc\na,1,0.1,0.5\na,2,0.2\n", "Expected 4 columns, got 3"),
        ("task,run,lr,val_acc\na,1,0.1,0.5\na,2,0.2,oops\n", "'val_acc' must hold numbers, .* for example 'oops'"),
        ("task,task,run,lr,val_acc\na,b,1,0.1,0.5\n", "has 'task' several times"),
        ("task run lr val_acc\na 1 0.1 0.5\n", "What stands between the cells is set by --delimiter"),
        ("task,run,lr,val_acc\na,,0.1,0.5\n", "1 row without one"),
        ("task,run,lr,val_acc\na,1,0.1,0.5\na,1,0.1,0.5\n", "one row where no step column is named"),
        (b"task,run,lr,val_acc\n\xe4\x00,1,0.1,0.5\n", "UTF-8"),
    ],
)
def test_a_damaged_table_is_one_line(history: History, tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        import_table(history, tmp_path / "t.csv", FLAT)
    assert "\n" not in str(caught.value)
    assert history.runs() == []


@pytest.mark.parametrize("step", ["inf", "1e300", "1.5"])
def test_steps_that_are_no_whole_numbers_are_refused(history: History, tmp_path: Path, step: str) -> None:
    (tmp_path / "t.csv").write_text(f"task,run,lr,epoch,val_acc\na,1,0.1,{step},0.5\n")
    with pytest.raises(InvalidArgumentError, match="Steps must be whole numbers"):
        import_table(history, tmp_path / "t.csv", TableColumns("task", "run", ("lr",), "val_acc", None, "epoch"))


def test_a_byte_order_mark_is_no_part_of_a_name(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbftask,run,lr,val_acc\na,1,0.1,0.5\n")
    assert import_table(history, tmp_path / "t.csv", FLAT).n_new == 1


def test_one_word_among_numbers_does_not_make_words_of_the_numbers(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("task,run,lr,val_acc\n" + "".join(f"a,{i},0.{i},0.5\n" for i in range(1, 6)) + "a,9,auto,0.5\n")
    report = import_table(history, tmp_path / "t.csv", FLAT)
    assert report.notes[0].endswith("holds numbers and words; these stay words: 'auto'")
    assert [run.hparams["learning_rate"] for run in history.runs()] == [0.1, 0.2, 0.3, 0.4, 0.5, "auto"]


def test_run_numbers_too_large_for_a_float_stay_apart(history: History, tmp_path: Path) -> None:
    big = 10**25
    (tmp_path / "t.csv").write_text(f"task,run,lr,val_acc\na,{big},0.1,0.5\na,{big + 1},0.2,0.6\n")
    assert import_table(history, tmp_path / "t.csv", FLAT).n_new == 2


def test_a_key_written_as_text_finds_the_number(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("task,run,val_acc\na,1,0.5\n")
    (tmp_path / "configs.csv").write_text("run,lr\nx,0.2\n1,0.1\n")
    import_table(history, tmp_path / "t.csv", FLAT, join=(tmp_path / "configs.csv", "run"))
    assert history.runs()[0].hparams == {"learning_rate": 0.1}


def test_pyarrow_is_loaded_only_when_a_table_is_read() -> None:
    code = "import sys, store.importers.table, store; from store import History; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0


def test_runs_whose_objective_was_never_logged_are_refused(history: History) -> None:
    from store import Curve, FinishedRun

    with pytest.raises(InvalidArgumentError, match="for 'acc'; it has: loss"):
        history.add_finished_runs([FinishedRun("r", "t", {}, "acc", "max", {"loss": Curve([0], [1.0])})])
    assert history.runs() == []


@pytest.mark.skipif(not (SHARED / "hpobench_mlp.parquet").exists(), reason=f"the recorded tables are not in {SHARED}")
def test_a_real_table_comes_in_whole(history: History) -> None:
    hparams = ("alpha", "batch_size", "depth", "learning_rate_init", "width")
    report = import_table(history, SHARED / "hpobench_mlp.parquet", TableColumns("task", "config_id", hparams, "balanced_accuracy", "max"))
    assert (report.n_rows, report.n_tasks, report.n_new, report.n_diverged) == (32_000, 8, 32_000, 0)
    assert {task.n_finished for task in history.tasks()} == {4_000}
