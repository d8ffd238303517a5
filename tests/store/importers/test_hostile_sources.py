"""Sources that are damaged or made to do harm: nothing is executed, followed or let grow, and what is whole beside them comes in."""

from __future__ import annotations

import gzip
import json
import os
import random
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from store import History, InvalidArgumentError
from store.importers.bounded_files import UnreadableRecordError, files_below, parse_json, read_bytes, read_text
from store.importers.foreign import RunSource
from store.importers.hf_trainer import HuggingFaceSource
from store.importers.hyperparameterhunter import HyperparameterHunterSource
from store.importers.lightning_csv import LightningSource
from store.importers.mapping import ImportOptions
from store.importers.mlflow_tracking import MlflowSource
from store.importers.optuna_storage import OptunaSource
from store.importers.pipeline import import_source
from store.importers.registry import IMPORTERS, source_class
from store.importers.tensorboard_events import TensorBoardSource
from store.importers.trackio_sqlite import TrackioSource
from store.importers.yaml_text import parse_yaml_mapping

Unpack = Callable[[str], Path]
MAKERS: list[Callable[[str], RunSource]] = [source_class(name) for name in IMPORTERS]
NOISE = random.Random(0).randbytes(3_000)
SOMETHING_ELSE = {
    "a web page": b"<!doctype html><html>Not found</html>",
    "noise": NOISE,
    "nothing": b"",
    "the head of a database": b"SQLite format 3\0" + bytes(500),
}


@pytest.mark.parametrize("make", MAKERS, ids=IMPORTERS)
def test_a_place_that_is_not_there_is_one_line(history: History, tmp_path: Path, make: Callable[[str], RunSource]) -> None:
    with pytest.raises(InvalidArgumentError, match="there is nothing at") as caught:
        import_source(history, make(str(tmp_path / "nowhere")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", MAKERS, ids=IMPORTERS)
@pytest.mark.parametrize("content", SOMETHING_ELSE.values(), ids=SOMETHING_ELSE.keys())
def test_a_file_of_something_else_changes_nothing(
    history: History, tmp_path: Path, make: Callable[[str], RunSource], content: bytes
) -> None:
    pytest.importorskip("tensorboard")
    path = tmp_path / "source.tfevents.db"
    path.write_bytes(content)
    with suppress(InvalidArgumentError):  # or a report that counts it as damaged
        report = import_source(history, make(str(path)))
        assert (report.n_new, report.n_left_out) == (0, report.n_found)
    assert history.runs() == []
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith("source")] == ["source.tfevents.db"]


@pytest.mark.parametrize("make", MAKERS, ids=IMPORTERS)
def test_an_empty_folder_is_one_line(history: History, tmp_path: Path, make: Callable[[str], RunSource]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgumentError):
        import_source(history, make(str(tmp_path / "empty")))


@pytest.mark.parametrize("make", [OptunaSource, MlflowSource, TrackioSource])
def test_a_database_of_something_else_is_an_error_and_stays_as_it_is(
    history: History, tmp_path: Path, make: Callable[[str], RunSource]
) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE metrics (a TEXT)")
    before = path.read_bytes()
    with pytest.raises(InvalidArgumentError, match=r"other\.db"):
        import_source(history, make(str(path)))
    assert path.read_bytes() == before


@pytest.mark.parametrize("address", ["redis://localhost", "rediss://localhost"])
def test_journals_with_pickles_in_them_are_refused(history: History, address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="pickled snapshots, which are never opened here"):
        import_source(history, OptunaSource(address))


def test_a_database_server_that_is_not_there_is_named_without_its_password(history: History) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        import_source(history, OptunaSource("postgresql://me:hidden@localhost:1/x"))
    assert "hidden" not in str(caught.value)


def test_a_journal_that_was_cut_in_the_middle_is_one_line(history: History, fixture: Unpack) -> None:
    path = fixture("optuna.journal.log.gz")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + '{"op_code": 5, "tri\n' + "".join(lines[6:]))
    with pytest.raises(InvalidArgumentError, match="its journal is damaged"):
        import_source(history, OptunaSource(str(path)))


def test_of_mlflow_folders_the_damaged_are_counted_and_the_others_are_imported(history: History, fixture: Unpack) -> None:
    place = fixture("mlruns.tar.gz")
    metas = [meta for meta in sorted(place.glob("*/*/meta.yaml")) if "FINISHED" in meta.read_text() or "status: 3" in meta.read_text()]
    runs = [meta.parent for meta in sorted(place.glob("*/*/meta.yaml"))]
    assert len(metas) == 2
    metas[0].write_text("!!python/object/apply:os.system ['touch /nowhere']")
    whole = [run for run in runs if run not in {metas[0].parent}]
    (whole[0] / "metrics" / "train_loss").write_text("1 2 3\n<html>\n")
    report = import_source(history, MlflowSource(str(place)), ImportOptions(objective="val/acc"))
    assert report.n_bad >= 1
    assert report.n_new + report.n_left_out == 6
    assert report.n_new >= 2


def test_links_out_of_a_folder_are_not_followed(history: History, fixture: Unpack, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "metrics.csv").write_text("step,val_acc\n0,0.5\n")
    place = fixture("csv_logs")
    (place / "link").symlink_to(secret, target_is_directory=True)
    (place / "tiny" / "version_9").mkdir()
    (place / "tiny" / "version_9" / "metrics.csv").symlink_to(secret / "metrics.csv")
    (place / "tiny" / "version_0" / "hparams.yaml").unlink()
    (place / "tiny" / "version_0" / "hparams.yaml").symlink_to("/etc/hostname")
    report = import_source(history, LightningSource(str(place)), ImportOptions(objective="val_acc"))
    assert (report.n_found, report.n_new) == (2, 1)
    assert report.left_out == [("a file is a link or no ordinary file", 1, ("tiny/version_0",))]


def test_yaml_makes_nothing_and_does_not_explode() -> None:
    text = "lr: 0.1\nsizes: !!python/tuple [4, 2]\nkind: !!python/object/apply:os.system ['true']\nf: !!python/name:os.system ''\nn: ~\n"
    assert parse_yaml_mapping(text) == {"lr": 0.1, "sizes": [4, 2], "kind": "true", "f": "os.system", "n": None}
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 20))
    with pytest.raises(UnreadableRecordError, match="too large or too deep"):
        parse_yaml_mapping(bomb)
    with pytest.raises(UnreadableRecordError):
        parse_yaml_mapping("a: &a [*a]")
    with pytest.raises(UnreadableRecordError, match="not YAML"):
        parse_yaml_mapping("{" * 100_000)


@pytest.mark.parametrize("text", ["", "step,val_acc\nx,0.5\n", "<html></html>", "val_acc\n0.5\n", 'step,val_acc\n"0,0.5\n' + "9" * 200_000])
def test_damaged_metrics_are_left_out_or_have_no_values(history: History, fixture: Unpack, text: str) -> None:
    place = fixture("csv_logs")
    (place / "tiny" / "version_0" / "metrics.csv").write_text(text)
    report = import_source(history, LightningSource(str(place)), ImportOptions(objective="val_acc"))
    assert (report.n_new, report.n_left_out) == (1, 1)


def event_file(path: Path, *records: bytes) -> None:
    tensorboard = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    written = b""
    for record in records:
        head = struct.pack("<Q", len(record))
        written += head + struct.pack("<I", tensorboard.masked_crc32c(head)) + record + struct.pack("<I", tensorboard.masked_crc32c(record))
    path.write_bytes(written)


def test_event_files_with_absurd_records_are_passed_over(history: History, fixture: Unpack) -> None:
    crc = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow").masked_crc32c
    place = fixture("tensorboard_logs")
    whole = next((place / "tiny" / "version_0").glob("events*"))
    head = struct.pack("<Q", 2**62)
    whole.write_bytes(whole.read_bytes() + head + struct.pack("<I", crc(head)) + b"short")
    event_file(place / "tiny" / "version_1" / "a.tfevents.1", b"\xff" * 50, bytes(400_000))
    (place / "tiny" / "version_2").mkdir()
    (place / "tiny" / "version_2" / "b.tfevents.1").write_bytes(NOISE)
    report = import_source(history, TensorBoardSource(str(place)), ImportOptions(objective="val_acc"))
    assert (report.n_found, report.n_new, report.n_bad) == (3, 2, 1)
    assert report.left_out == [("an event file is damaged, or none", 1, ("tiny/version_2",))]
    origins = {run.description["origin"]["folder"]: run.description["origin"] for run in history.runs()}
    assert origins["tiny/version_1"]["damaged_records"] == 2


def test_an_event_file_that_was_cut_off_gives_what_it_has(history: History, fixture: Unpack) -> None:
    pytest.importorskip("tensorboard")
    place = fixture("tensorboard_logs")
    whole = next((place / "tiny" / "version_0").glob("events*"))
    whole.write_bytes(whole.read_bytes()[:-200])
    assert import_source(history, TensorBoardSource(str(place)), ImportOptions(objective="val_acc")).n_new == 2


@pytest.mark.parametrize("state", ["", "[]", '{"log_history": 5}', "{" * 100_000, "<html>", '{"log_history": [1, null, {"step": "x"}]}'])
def test_damaged_trainer_states_are_counted_and_the_others_are_imported(history: History, fixture: Unpack, state: str) -> None:
    place = fixture("hf_out")
    for path in (place / "run-0").rglob("trainer_state.json"):
        path.write_text(state)
    report = import_source(history, HuggingFaceSource(str(place)))
    assert (report.n_new, report.n_left_out) == (1, 1)


def test_damaged_descriptions_are_counted_and_the_others_are_imported(history: History, fixture: Unpack) -> None:
    place = fixture("HyperparameterHunterAssets")
    first, second, _ = sorted((place / "Experiments" / "Descriptions").glob("*.json"))
    first.write_text("{broken")
    second.write_text(json.dumps({"experiment_id": 5, "hyperparameters": []}))
    (place / "Leaderboards" / "GlobalLeaderboard.csv").write_bytes(b"\xff\xfe\x00")
    report = import_source(history, HyperparameterHunterSource(str(place)), ImportOptions(objective="oof_roc_auc_score"))
    assert (report.n_new, report.n_bad) == (1, 2)


def test_trackio_rows_that_are_no_json_are_counted_with_their_run(history: History, fixture: Unpack) -> None:
    path = fixture("trackio.db.gz")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE metrics SET metrics = ? WHERE id = 1", ("[" * 5000,))
        connection.execute("UPDATE metrics SET timestamp = 'never' WHERE id = 2")
        connection.execute("UPDATE configs SET config = '<html>' WHERE id = 2")
    report = import_source(history, TrackioSource(str(path)), ImportOptions(objective="val_acc"))
    assert report.n_new == 3
    assert [run.description["origin"].get("damaged_rows") for run in history.runs()].count(1) == 1


def test_a_packed_table_that_grows_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from store.importers import table_files

    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 3_000_000))
    monkeypatch.setattr(table_files, "MAX_TABLE_BYTES", 2**20)
    with pytest.raises(InvalidArgumentError, match="once it is unpacked"):
        table_files.read_table(path)


def test_files_too_large_no_text_or_no_files_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(100))
    (tmp_path / "latin").write_bytes(b"\xe4")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("large", "larger than"), ("pipe", "no ordinary file"), ("absent", "no ordinary file")):
        with pytest.raises(UnreadableRecordError, match=reason):
            read_bytes(tmp_path / name, 50)
    with pytest.raises(UnreadableRecordError, match="not UTF-8"):
        read_text(tmp_path / "latin", 50)
    with pytest.raises(UnreadableRecordError, match="not JSON"):
        parse_json("[" * 1_000_000)


def test_a_folder_of_too_many_files_or_levels_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from store.importers import bounded_files

    deep = tmp_path.joinpath(*["d"] * 20)
    deep.mkdir(parents=True)
    (deep / "x").touch()
    assert list(files_below(tmp_path)) == []
    for index in range(12):
        (tmp_path / f"f{index}").touch()
    monkeypatch.setattr(bounded_files, "MAX_FILES", 10)
    with pytest.raises(InvalidArgumentError, match="may hold 10 files"):
        list(files_below(tmp_path))
