from __future__ import annotations

import json

import pytest

from tests.compare_baselines.made_up_data import write_data


@pytest.mark.slow
def test_a_comparison_is_made_printed_and_recorded(call, tmp_path):
    data, path = write_data(tmp_path / "data"), tmp_path / "history.db"
    words = ("compare-baselines", "live", "--tasks", "tabular", "--methods", "default,random", "--budget", 2, "--data-dir", data)
    answer = call(*words, "--history", path, "--format", "json", "--comparison", "mine")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert [(search["method"], len(search["evaluations"])) for search in result["searches"]] == [("default", 1), ("random", 2)]
    assert answer.err.splitlines()[0].endswith("2 of 2 searches to do.")
    again = call(*words, "--history", path, "--comparison", "mine", "--picture", tmp_path / "regret.png")
    assert again.code == 0, again.err
    assert "0 of 2 searches to do." in again.err
    assert "Over all tasks: regret" in again.out
    assert (tmp_path / "regret.png").exists()


def test_what_is_wrong_is_one_line(call, tmp_path):
    answer = call("compare-baselines", "live", "--tasks", "txt", "--history", tmp_path / "history.db")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("Error: A task must be known, but got 'txt'; did you mean 'text'?")
    missing = call("compare-baselines", "live", "--tasks", "tabular", "--methods", "random", "--data-dir", tmp_path)
    assert missing.err.startswith("Error: A data folder must hold imdb.parquet")
