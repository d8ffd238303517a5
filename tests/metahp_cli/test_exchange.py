from __future__ import annotations

import json
from pathlib import Path

import pytest

from metahp_cli.main import main
from store import History
from store.recording import spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "history.db"
    with History(path) as history:
        for name in "ab":
            with history.start_run(task=name, hparams={"lr": 0.1}, objective="acc") as run:
                run.log(acc=0.5)
    return path


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def test_an_export_is_imported_and_merged_into_another_history(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new.db"
    assert call("export", tmp_path / "runs.jsonl", "--task", "a", "--history", path) == 0
    assert "Written to" in capsys.readouterr().err
    assert call("import", "history", tmp_path / "runs.jsonl", "--history", new, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 1
    assert call("merge", path, "--history", new, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) | {"tasks": 1, "runs": 1, "metrics": 1} == json.loads(
        '{"tasks": 1, "runs": 1, "runs_updated": 0, "hparams": 1, "metrics": 1, "resources": 0, "recommendations": 0, "compactions": 0}'
    )
    assert call("merge", path, "--history", new) == 0
    assert "has everything" in capsys.readouterr().err
    with History(new) as history:
        assert len(history.runs()) == 2


def test_parquet_is_a_folder_of_tables(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", tmp_path / "tables", "--history", path, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == "parquet"
    assert (tmp_path / "tables" / "metrics.parquet").is_file()
    assert call("export", tmp_path / "tables", "--history", path) == 1
    assert capsys.readouterr().err.startswith("Error: An export goes to a new file or folder")
    assert call("export", tmp_path / "tables", "--overwrite", "--to", "parquet", "--history", path) == 0


def test_what_is_no_history_or_export_is_one_line(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("merge", tmp_path / "none"), ("import", "history", path), ("import", "history", tmp_path)):
        assert call(*words, "--history", tmp_path / "new.db") == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert error.count("\n") == 1


def test_the_doctor_shows_what_needs_doing_by_its_exit_code(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor", "--history", path, "--full") == 0
    assert "integrity_check: ok" in capsys.readouterr().out
    spool.append(path, [{"op": "metrics", "run_id": "r", "rows": []}])
    assert call("doctor", "--history", path, "--format", "json") == 1
    findings = json.loads(capsys.readouterr().out)
    assert {item["level"] for item in findings} == {"ok", "action"}
    assert [item["advice"] for item in findings if item["check"] == "spool"] == [
        "They could not be written into the history. Any opening takes them in, once it can be written: 'metahp runs'."
    ]
    assert call("doctor", "--history", path.parent / "none.db") == 1
