"""Tables as spreadsheets and trackers write them: separators, decimal commas, encodings and statuses are found, or the option is named."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store import History, InvalidArgumentError
from store.importers.decimal_marks import decimal_options, number_in
from store.importers.mapping import ImportOptions
from store.importers.table import TableColumns, TableReport, import_table
from store.importers.table_dialect import TableDialect, dialect_options
from store.importers.table_files import read_table

COLUMNS = TableColumns("", "Name", ("lr",), "val_acc")
ROWS = [["Name", "lr", "val_acc"], ["r1", "0,001", "0,912"], ["r2", "0,01", "0,881"], ["r3", "0,003", "0,904"]]
FOUND = [(0.001, 0.912), (0.003, 0.904), (0.01, 0.881)]


def text_of(delimiter: str, *, quoted: bool = False) -> str:
    return "".join(delimiter.join(f'"{cell}"' if quoted else cell for cell in row) + "\n" for row in ROWS)


def imported(history: History, path: Path, columns: TableColumns = COLUMNS, **given: Any) -> TableReport:
    return import_table(history, path, columns, task="sheet", options=given.pop("options", ImportOptions()), **given)


def values(history: History, name: str = "learning_rate") -> list[Any]:
    return sorted((run.hparams.get(name), run.objective_best) for run in history.runs())


@pytest.mark.parametrize(
    "content",
    [
        text_of(";"),
        text_of(",", quoted=True),
        text_of("\t"),
        text_of("|"),
        "sep=;\n" + text_of(";"),
        text_of(";").replace("\n", "\r\n"),
        text_of(";", quoted=True),
        text_of(";").replace("0,001", "1E-03"),
        text_of(";").replace(",", "."),
        text_of("\t").replace(",", "."),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_separators_and_decimal_commas_are_found(history: History, tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(content.encode()) if suffix.endswith("gz") else content.encode())
    report = imported(history, path)
    assert values(history) == FOUND
    assert report.notes == ()
    assert imported(history, path).n_new == 0


NAMES = "Größe;lr;val_acc\nÄ;0,001;0,912\nß;0,01;0,881\n\u2013;0,003;0,904\n"
"""With characters that Latin-1 and Windows-1252 have."""
READ_AS = " is not UTF-8 and was read as Windows-1252 (Latin-1); --encoding NAME sets another"


@pytest.mark.parametrize(
    ("content", "is_noted"),
    [
        (NAMES.encode(), False),
        (codecs.BOM_UTF8 + NAMES.encode(), False),
        (NAMES.encode("utf-16"), False),
        (codecs.BOM_UTF16_BE + NAMES.encode("utf-16-be"), False),
        (NAMES.encode("cp1252"), True),
        (NAMES.replace("\u2013", "é").encode("latin-1"), True),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16", "utf-16-be", "cp1252", "latin-1"],
)
def test_encodings_are_found_and_give_the_same_runs(history: History, tmp_path: Path, content: bytes, is_noted: bool) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    report = imported(history, tmp_path / "t.csv", TableColumns("", "Größe", ("lr",), "val_acc"))
    assert {run.description["origin"]["run"] for run in history.runs()} >= {"Ä", "ß"}
    assert values(history) == FOUND
    assert report.notes == ((f"{str(tmp_path / 't.csv')!r}{READ_AS}",) if is_noted else ())


def test_another_encoding_or_separator_can_be_set(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text_of("~").replace("r1", "Ё").replace("r2", "и").replace("r3", "Ж").encode("koi8-r"))
    imported(history, tmp_path / "t.csv", dialect=dialect_options("koi8-r", "~", None))
    assert {run.description["origin"]["run"] for run in history.runs()} == {"Ё", "и", "Ж"}
    for words, message in (
        (("utf-9", None, None), "but got 'utf-9'"),
        ((None, ";;", None), "one character"),
        ((None, None, "dot"), "but got 'dot'"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            dialect_options(*words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NAMES.encode("utf-16-le"), "UTF-16 without a byte order mark. Save it as UTF-8, or pass --encoding"),
        (b"\x89PNG\r\n\x1a\n\x01\x02\xff" * 50, "neither UTF-8 nor Windows-1252"),
        (b"Name;lr;val_acc\nr1;0,1;0,5\nr2;0,2\n", "Read as utf-8 with ';' between the cells: pass --encoding or --delimiter"),
        (b"Name:lr:val_acc\nr1:0,1:0,5\n", "Read as utf-8 with ',' between the cells: pass --encoding or --delimiter"),
        (b"Name:lr:val_acc\nr1:0.1:0.5\n", "What stands between the cells is set by --delimiter"),
    ],
)
def test_what_cannot_be_read_names_the_option(history: History, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=message):
        imported(history, tmp_path / "t.csv")
    assert history.runs() == []


@pytest.mark.parametrize(
    ("text", "comma", "point"),
    [
        ("0,5", 0.5, None), ("0.5", None, 0.5), ("0,001", 0.001, None), ("1,234", 1.234, 1234), ("1.234", 1234, 1.234), ("12", 12, 12),
        ("1.234,5", 1234.5, None), ("1,234.5", None, 1234.5), ("1.234.567", 1234567, None), ("1,234,567", None, 1234567),
        ("1 234,5", 1234.5, None), ("1\u00a0234", 1234, 1234), ("1'234.5", None, 1234.5), ("64,32", 64.32, None), ("64,32,16", None, None),
        ("1e-3", 0.001, 0.001), ("1,5E-3", 0.0015, None), ("-,5", -0.5, None), ("1.2.3", None, None), ("1.234 567", None, None),
        ("adam", None, None), ("", None, None), ("1_000", None, None), ("0.123.456", None, None),
    ],
)  # fmt: skip
def test_a_cell_is_a_number_with_one_mark_with_both_or_with_none(text: str, comma: float | None, point: float | None) -> None:
    assert (number_in(text, "comma"), number_in(text, "point")) == (comma, point)


def test_a_point_in_a_table_of_decimal_commas_is_never_read_in_silence(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Name;lr;steps;val_acc\nr1;0,1;1.234;0,5\nr2;0,2;2.500;0,6\n")
    columns = TableColumns("", "Name", ("lr", "steps"), "val_acc")
    with pytest.raises(
        InvalidArgumentError, match=r"Pass --decimal steps=point if that is 1\.234, or --decimal steps=comma if it is 1234\."
    ):
        imported(history, tmp_path / "t.csv", columns)
    imported(history, tmp_path / "t.csv", columns, dialect=TableDialect(decimals=decimal_options("steps=comma")))
    assert sorted(run.hparams["steps"] for run in history.runs()) == [1234, 2500]
    with History(tmp_path / "2.db") as other:
        imported(other, tmp_path / "t.csv", columns, dialect=TableDialect(decimals=decimal_options("steps=point")))
        assert sorted(run.hparams["steps"] for run in other.runs()) == [1.234, 2.5]
        assert sorted(run.hparams["learning_rate"] for run in other.runs()) == [0.1, 0.2]


def test_thousands_are_read_where_other_cells_of_the_column_show_what_the_point_is(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Name;lr;n;val_acc\nr1;0,1;1.234.567;0,5\nr2;0,2;2.500;0,6\nr3;0,3;999;0,7\n")
    imported(history, tmp_path / "t.csv", TableColumns("", "Name", ("lr", "n"), "val_acc"))
    assert sorted(run.hparams["n"] for run in history.runs()) == [999, 2500, 1234567]


def test_an_ordinary_table_keeps_its_points_and_its_lists(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('Name,lr,sizes,budget,val_acc\nr1,1.234,"64,32","12,500",0.5\nr2,2.5,"128,64","1,000",0.25\n')
    report = imported(history, tmp_path / "t.csv", TableColumns("", "Name", ("lr", "sizes", "budget"), "val_acc"))
    assert {(run.hparams["learning_rate"], run.hparams["sizes"], run.hparams["budget"]) for run in history.runs()} == {
        (1.234, "64,32", "12,500"),
        (2.5, "128,64", "1,000"),
    }
    place = repr(str(tmp_path / "t.csv"))
    assert report.notes == (
        f"column 'sizes' of {place} holds '64,32', which stays a word: pass --decimal sizes=comma if it is 64.32",
        f"column 'budget' of {place} holds '12,500', which stays a word: pass --decimal budget=comma if it is 12.5, or --decimal "
        "budget=point if it is 12500",
    )
    imported(
        history, tmp_path / "t.csv", TableColumns("", "Name", ("budget",), "val_acc"), dialect=dialect_options(None, None, "budget=point")
    )
    assert {run.hparams["budget"] for run in history.runs() if len(run.hparams) == 1} == {12500, 1000}


def test_an_objective_with_a_comma_in_a_table_of_points_names_the_option(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('Name,lr,val_acc\nr1,0.5,"0,5"\nr2,0.25,"0,6"\n')
    with pytest.raises(InvalidArgumentError, match="Pass --decimal val_acc=comma if its comma is a decimal mark"):
        imported(history, tmp_path / "t.csv")
    imported(history, tmp_path / "t.csv", dialect=dialect_options(None, None, "comma"))
    assert values(history) == [(0.25, 0.6), (0.5, 0.5)]


def test_words_among_numbers_with_decimal_commas_stay_words(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Name;lr;val_acc\nr1;0,1;0,5\nr2;auto;0,6\nr3;0,2;nan\nr4;0,4;\n")
    report = imported(history, tmp_path / "t.csv")
    assert {run.hparams["learning_rate"] for run in history.runs()} == {0.1, "auto", 0.2}
    assert (report.statuses, report.n_empty) == ({"completed": 2, "diverged": 1}, 1)


def test_labels_of_runs_and_tasks_are_never_numbers_with_a_comma(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Name;task;lr;val_acc\n1,5;2,5;0,1;0,5\n1.500;2,5;0,2;0,6\n")
    import_table(history, tmp_path / "t.csv", TableColumns("task", "Name", ("lr",), "val_acc"), options=ImportOptions())
    assert {(run.task_name, run.description["origin"]["run"]) for run in history.runs()} == {("2,5", "1,5"), ("2,5", "1.500")}


def test_joined_tables_and_columns_of_other_formats_are_read_alike(history: History, tmp_path: Path) -> None:
    (tmp_path / "configs.csv").write_text("key;lr\na;0,001\nb;0,01\n")
    pq.write_table(pa.table({"Name": ["a", "b"], "key": ["a", "b"], "val_acc": ["0,912", "0,881"]}), tmp_path / "t.parquet")
    imported(history, tmp_path / "t.parquet", join=(tmp_path / "configs.csv", "key"))
    assert values(history) == [(0.001, 0.912), (0.01, 0.881)]
    assert read_table(tmp_path / "configs.csv").column_names == ["key", "lr"]


STATES = (
    "Name,State,lr,val_acc\nr1,finished,0.1,0.9\nr2,crashed,0.2,0.1\nr3,running,0.3,0.4\nr4,failed,0.4,\nr5,killed,0.5,0.5\nr6,,0.6,0.6\n"
)


def statuses(history: History) -> dict[float, str]:
    return {run.hparams["learning_rate"]: str(run.status) for run in history.runs()}


def test_a_column_with_states_says_how_the_runs_ended(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(STATES)
    report = imported(history, tmp_path / "t.csv")
    ended = {0.1: "completed", 0.2: "failed", 0.4: "failed", 0.5: "interrupted", 0.6: "completed"}
    assert statuses(history) == ended
    assert (report.n_unfinished, report.n_empty) == (1, 0)
    assert report.notes[1] == "1 run has no end: if the process is gone, --unfinished interrupted (or failed) imports what was recorded"
    assert imported(history, tmp_path / "t.csv").n_updated == 0
    report = imported(history, tmp_path / "t.csv", options=ImportOptions(unfinished="interrupted"))
    assert (report.n_new, report.n_updated) == (1, 0)
    assert statuses(history) == {**ended, 0.3: "interrupted"}


def test_runs_that_an_earlier_version_took_for_completed_are_corrected(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(STATES.replace("State", "note"))
    imported(history, tmp_path / "t.csv")
    assert set(statuses(history).values()) == {"completed"}
    (tmp_path / "t.csv").write_text(STATES)
    report = imported(history, tmp_path / "t.csv")
    assert (report.n_new, report.n_updated) == (1, 2)  # the new one failed without a value
    assert statuses(history)[0.2] == "failed"


@pytest.mark.parametrize("name", ["state", "Status", "run_state", "trial_status", "TrialState", "sys/state"])
def test_the_names_of_status_columns_are_known(history: History, tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text(STATES.replace("State", name))
    imported(history, tmp_path / "t.csv")
    assert statuses(history)[0.2] == "failed"


def test_a_column_of_another_meaning_is_no_status(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Name,state,lr,val_acc\nr1,Utah,0.1,0.9\nr2,Ohio,0.2,0.1\n")
    assert imported(history, tmp_path / "t.csv").notes == ()
    (tmp_path / "t.csv").write_text("Name,state,lr,val_acc\nr1,finished,0.1,0.9\nr2,Ohio,0.2,0.1\n")
    note = "column 'state' is not read as how the runs ended, since it holds 'Ohio'; --status-col state reads it"
    assert note in imported(history, tmp_path / "t.csv").notes
    with pytest.raises(InvalidArgumentError, match=r"'r2' of task 'sheet' has 'Ohio' in column 'state'. Known are completed: finished"):
        imported(history, tmp_path / "t.csv", TableColumns("", "Name", ("lr",), "val_acc", status="state"))
    (tmp_path / "t.csv").write_text("Name,lr,val_acc,how\nr1,0.1,0.9,ok\nr2,0.2,0.1,error\n")
    imported(history, tmp_path / "t.csv", TableColumns("", "Name", ("lr",), "val_acc", status="how"), options=ImportOptions())
    assert statuses(history)[0.2] == "failed"


def test_of_a_run_with_several_rows_the_last_status_counts_and_the_last_value_can(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "Name,step,status,lr,val_acc\na,1,running,0.1,0.9\na,2,failed,0.1,0.5\nb,1,running,0.2,0.8\nb,2,done,0.2,0.6\n"
    )
    columns = TableColumns("", "Name", ("lr",), "val_acc", step="step")
    imported(history, tmp_path / "t.csv", columns)
    assert {(str(run.status), run.objective_best) for run in history.runs()} == {("failed", 0.9), ("completed", 0.8)}
    imported(history, tmp_path / "t.csv", columns, options=ImportOptions(outcome="last"))
    assert {(str(run.status), run.objective_best) for run in history.runs()} == {("failed", 0.5), ("completed", 0.6)}
