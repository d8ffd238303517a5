"""Dumps of OpenML, as its own client writes them and as published meta-data sets have them; with the qualities of the tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from store import History, InvalidArgumentError
from store.importers.mapping import ImportOptions
from store.importers.openml_runs import OpenmlSource
from store.importers.pipeline import import_source

# The columns of openml.evaluations.list_evaluations_setups(...).to_csv(index=False), openml-python 0.15
NAMES = "run_id,task_id,setup_id,flow_id,flow_name,data_id,data_name,function,upload_time,uploader,value,values,array_data,parameters"
EVALUATIONS = f"""{NAMES}
62,1,16,61,weka.J48,2,anneal,predictive_accuracy,2014-04-06,1,0.986,,,"{{'weka.J48(1)_C': '0.25', 'weka.J48(1)_M': '2'}}"
62,1,16,61,weka.J48,2,anneal,area_under_roc_curve,2014-04-06,1,0.99,,,"{{'weka.J48(1)_C': '0.25', 'weka.J48(1)_M': '2'}}"
63,1,17,61,weka.J48,2,anneal,predictive_accuracy,2014-04-06,1,0.95,,,"{{'weka.J48(1)_C': '0.5', 'weka.J48(1)_M': '2'}}"
64,3,17,61,weka.J48,3,kr-vs-kp,predictive_accuracy,2014-04-06,1,0.9,,,"{{'weka.J48(1)_C': '0.5', 'weka.J48(1)_M': '2'}}"
65,3,18,61,weka.J48,3,kr-vs-kp,predictive_accuracy,2014-04-06,1,0.8,,,"__import__('os').system('true')"
"""
ARFF = """% A published meta-data set
@relation 'svm'
@attribute task_id {31,37}
@attribute C numeric
@attribute kernel {rbf,linear}
@attribute predictive_accuracy numeric
@data
31,0.1,rbf,0.7
31,10,linear,?
37,1,rbf,0.8
"""


def test_an_evaluations_dump_gives_a_run_for_each_run_with_all_its_measures(history: History, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(EVALUATIONS)
    (tmp_path / "qualities.csv").write_text("task_id,NumberOfInstances,NumberOfClasses\n1,898,5\n3,3196,\n")
    source = OpenmlSource(str(tmp_path / "runs.csv"), str(tmp_path / "qualities.csv"), "predictive_accuracy")
    report = import_source(history, source, ImportOptions(objective="predictive_accuracy"))
    assert report.tasks == {"openml-1 anneal": 2, "openml-3 kr-vs-kp": 1}
    assert report.left_out == [("has no hyperparameters", 1, ("run/65",))]
    first = next(run for run in history.runs() if run.objective_best == 0.986)
    assert first.hparams == {"C": 0.25, "M": 2, "flow": "weka.J48"}
    assert set(history.metric_names(first.id)) == {"predictive_accuracy", "area_under_roc_curve"}
    assert (first.direction, first.description["origin"]["flow_name"]) == ("max", "weka.J48")
    assert history.task("openml-1 anneal").description["features"] == {"NumberOfInstances": 898.0, "NumberOfClasses": 5.0}
    assert history.task("openml-3 kr-vs-kp").description["features"] == {"NumberOfInstances": 3196.0}
    assert import_source(history, source, ImportOptions(objective="predictive_accuracy")).n_new == 0


def test_an_arff_table_gives_a_run_for_each_row(history: History, tmp_path: Path) -> None:
    pytest.importorskip("arff", reason="liac-arff is an extra")
    (tmp_path / "svm.arff").write_text(ARFF)
    report = import_source(history, OpenmlSource(str(tmp_path / "svm.arff")))
    assert report.statuses == {"completed": 2}
    assert report.left_out[0][0] == "has no value of 'predictive_accuracy'"
    assert sorted(run.task_name for run in history.runs()) == ["openml-31", "openml-37"]
    assert {run.hparams["kernel"] for run in history.runs()} == {"rbf"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("a,b\n1,2\n", "with a column task_id, but it has: a, b"), ("<html></html>", "a file is a web page"), ("", "column task_id")],
)
def test_a_dump_of_something_else_is_one_line(history: History, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "runs.csv").write_text(content)
    with pytest.raises(InvalidArgumentError, match=message):
        import_source(history, OpenmlSource(str(tmp_path / "runs.csv")))


def test_broken_arff_is_one_line(history: History, tmp_path: Path) -> None:
    pytest.importorskip("arff", reason="liac-arff is an extra")
    (tmp_path / "svm.arff").write_text("@relation x\n@attribute broken\n@data\n1\n")
    with pytest.raises(InvalidArgumentError, match="readable as ARFF"):
        import_source(history, OpenmlSource(str(tmp_path / "svm.arff")))


def test_a_measure_that_is_no_column_is_refused(history: History, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("task_id,C,auc\n1,2,0.5\n")
    with pytest.raises(InvalidArgumentError, match="no 'accuracy'; it has: task_id, C, auc"):
        import_source(history, OpenmlSource(str(tmp_path / "runs.csv"), objective="accuracy"))


def test_tasks_of_openml_itself_are_numbers(history: History) -> None:
    with pytest.raises(InvalidArgumentError, match="task:31,37"):
        import_source(history, OpenmlSource("task:iris"))
