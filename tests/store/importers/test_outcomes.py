"""The outcome of an imported run is what its tool gives as the outcome; what it logged on the way stays its curve."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from store import Curve, History, InvalidArgumentError, RunStatus
from store.importers.foreign import ForeignRun
from store.importers.hf_trainer import HuggingFaceSource
from store.importers.mapping import ImportOptions
from store.importers.mlflow_tracking import MlflowSource
from store.importers.optuna_storage import OptunaSource
from store.importers.pipeline import import_source
from tests.store.importers.test_pipeline import Listed

optuna.logging.set_verbosity(optuna.logging.ERROR)
Scores = Callable[[float], list[float]]


def study_of(path: Path, scores: Scores, value: Callable[[list[float]], float], direction: str = "maximize") -> optuna.Study:
    """Return a study whose trials report scores and return a value made of them."""

    def objective(trial: optuna.Trial) -> float:
        found = scores(trial.suggest_float("lr", 0.1, 1.0))
        for step, score in enumerate(found):
            trial.report(score, step)
        return value(found)

    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="s", direction=direction, sampler=optuna.samplers.RandomSampler(0))
    study.optimize(objective, n_trials=4)
    return study


def outcomes(history: History) -> dict[int, tuple[float | None, float | None]]:
    return {run.description["origin"]["trial"]: (run.objective_best, run.objective_last) for run in history.runs()}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


VALUES = {"mean": mean, "min": min, "last": lambda found: found[-1], "first": lambda found: found[0], "other": lambda found: 3.0}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_outcome_of_a_trial_is_what_it_returned(
    history: History, tmp_path: Path, value: Callable[[list[float]], float], direction: str
) -> None:
    study = study_of(tmp_path / "s.db", lambda lr: [0.7 + lr, 0.9 * lr, 0.8], value, direction)
    import_source(history, OptunaSource(str(tmp_path / "s.db")))
    assert outcomes(history) == {trial.number: (trial.value, trial.value) for trial in study.trials}


def test_folds_are_no_learning_curve_of_their_mean_and_stay_beside_it(history: History, tmp_path: Path) -> None:
    study = study_of(tmp_path / "s.db", lambda lr: [0.7, 0.9 - lr / 9, 0.6], mean)
    import_source(history, OptunaSource(str(tmp_path / "s.db")))
    run = next(run for run in history.runs() if run.description["origin"]["trial"] == 1)
    assert [point.value for point in history.metrics(run.id, "intermediate")] == list(study.trials[1].intermediate_values.values())
    assert [point.value for point in history.metrics(run.id, "objective")] == [study.trials[1].value]


def test_folds_are_known_as_such_where_most_trials_were_pruned(history: History, tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 's.db'}", study_name="s", direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 0.1, 1.0)
        trial.report(0.5, 0)
        if trial.number < 9:
            raise optuna.TrialPruned
        trial.report(0.9, 1)
        trial.report(0.6, 2)
        return 2.0 / 3

    study.optimize(objective, n_trials=10)
    import_source(history, OptunaSource(str(tmp_path / "s.db")))
    assert history.metric_names() == ["intermediate", "objective"]
    assert outcomes(history) == {trial.number: (trial.value, trial.value) for trial in study.trials}


def test_a_pruned_trial_has_the_value_that_optuna_gave_it_and_a_failed_one_has_none(history: History, tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 's.db'}", study_name="s", direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 0.1, 1.0)
        for step, score in enumerate((0.5, 0.9, 0.6)):
            trial.report(score, step)
        if trial.number == 1:
            raise optuna.TrialPruned
        if trial.number == 2:
            raise RuntimeError("no paper")
        return 0.6

    study.optimize(objective, n_trials=3, catch=(RuntimeError,))
    import_source(history, OptunaSource(str(tmp_path / "s.db")))
    assert outcomes(history) == {0: (0.6, 0.6), 1: (0.6, 0.6), 2: (None, 0.6)}
    assert {str(run.status) for run in history.runs()} == {"completed", "stopped", "failed"}


def test_trials_that_wait_to_be_started_are_left_out_with_that_reason(history: History, tmp_path: Path) -> None:
    study = study_of(tmp_path / "s.db", lambda lr: [lr], mean)
    study.enqueue_trial({"lr": 0.5})
    report = import_source(history, OptunaSource(str(tmp_path / "s.db")), ImportOptions(unfinished="failed"))
    assert report.left_out == [("waits to be started", 1, ("s/4",))]


def mlflow_store(path: Path, curves: dict[str, list[float]]) -> str:
    """Write into a store with MLflow's own client; return its file."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{path}")
    experiment = client.create_experiment("digits", artifact_location=str(path.parent / "artifacts"))
    for lr in (0.1, 0.2):
        run = client.create_run(experiment).info.run_id
        client.log_param(run, "lr", lr)
        for name, values in curves.items():
            for step, value in enumerate(values):
                client.log_metric(run, name, value, step=step)
        client.set_terminated(run)
    return str(path)


def test_the_outcome_of_an_mlflow_run_is_the_last_value_unless_the_best_is_asked_for(
    history: History, new_mlflow: Callable[[str], Path]
) -> None:
    source = MlflowSource(mlflow_store(new_mlflow("mlflow.db"), {"val_loss": [0.9, 0.2, 0.5]}))
    report = import_source(history, source)
    assert {(run.objective_best, run.objective_last) for run in history.runs()} == {(0.5, 0.5)}
    assert report.notes == [
        "task 'digits': the outcome is what the tool gives; 2 of 2 runs had a better 'val_loss' on the way, which --outcome best takes"
    ]
    again = import_source(history, source, ImportOptions(outcome="best"))
    assert (again.n_new, again.n_updated, again.notes) == (0, 2, [])
    assert {(run.objective_best, run.objective_last, run.objective_best_step) for run in history.runs()} == {(0.2, 0.5, 1)}
    assert [point.value for point in history.metrics(history.runs()[0].id, "val_loss")] == [0.9, 0.2, 0.5]


def test_the_outcome_of_a_trainer_is_the_metric_it_chose_its_best_model_by(history: History, fixture: Callable[[str], Path]) -> None:
    place = fixture("hf_out")
    for path in (place / "run-0").rglob("trainer_state.json"):
        state = json.loads(path.read_text())
        known = [entry["eval_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry]
        assert state["best_metric"] in known
        # an evaluation after training, on other data, is logged under the same name
        state["log_history"].append({"epoch": 4.0, "step": 99, "eval_accuracy": 1.0})
        path.write_text(json.dumps(state))
    best = state["best_metric"]
    import_source(history, HuggingFaceSource(str(place)))
    run = next(run for run in history.runs() if run.description["origin"]["folder"] == "run-0")
    assert (run.objective, run.objective_best, run.objective_last) == ("eval_accuracy", best, 1.0)
    assert run.objective_best_step == state["best_global_step"]
    import_source(history, HuggingFaceSource(str(place)), ImportOptions(objective="eval_loss"))
    assert next(run for run in history.runs() if run.description["origin"]["folder"] == "run-0").objective_best not in {best, None}


def test_without_its_arguments_a_state_still_tells_which_metric_its_best_one_is(history: History, fixture: Callable[[str], Path]) -> None:
    place = fixture("hf_out")
    for path in place.rglob("training_args.bin"):
        path.unlink()
    import_source(history, HuggingFaceSource(str(place)))
    states = [json.loads(path.read_text()) for path in place.rglob("checkpoint-8/trainer_state.json")]
    assert {run.objective for run in history.runs()} == {"eval_accuracy"}
    assert {run.objective_best for run in history.runs()} == {state["best_metric"] for state in states}


def test_the_metric_of_the_best_model_is_that_of_the_evaluation_also_where_training_logs_one_of_that_name(
    history: History, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.store.importers.tiny_transformer import TinyTransformer, rows

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_steps=1,
        load_best_model_at_end=True,  # by the loss of the evaluation
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(TinyTransformer(), arguments, train_dataset=rows(), eval_dataset=rows()[:3])
    trainer.train()
    import_source(history, HuggingFaceSource(str(tmp_path / "out")))
    assert [(run.objective, run.direction, run.objective_best) for run in history.runs()] == [
        ("eval_loss", "min", trainer.state.best_metric)
    ]


def test_the_last_value_of_a_curve_is_the_outcome_where_that_is_asked_for(history: History) -> None:
    record = ForeignRun(("1",), "t", {"lr": 0.1}, {"val_acc": Curve([0, 1], [0.9, 0.7])})
    import_source(history, Listed([record]))
    assert history.runs()[0].objective_best == 0.9
    import_source(history, Listed([record]), ImportOptions(outcome="last"))
    assert history.runs()[0].objective_best == 0.7
    with pytest.raises(InvalidArgumentError, match="best or last, but got 'mean'"):
        ImportOptions(outcome="mean")


def test_an_outcome_is_converted_with_its_curve(history: History) -> None:
    with history.start_run(task="t", hparams={"lr": 0.1}, objective="val_acc") as own:
        own.log(val_acc=0.8)
    record = ForeignRun(("1",), "t", {"lr": 0.1}, {"val_acc": Curve([0, 1], [90.0, 70.0])}, outcomes={"val_acc": Curve([1], [70.0])})
    import_source(history, Listed([record]))
    assert sorted(run.objective_best or 0.0 for run in history.runs()) == pytest.approx([0.7, 0.8])


def test_a_run_imported_with_its_best_intermediate_value_is_corrected_in_its_own_row(history: History, tmp_path: Path) -> None:
    study = study_of(tmp_path / "s.db", lambda lr: [0.9, 0.5], lambda found: found[-1])
    source = OptunaSource(str(tmp_path / "s.db"))
    import_source(history, source, ImportOptions(outcome="best"))  # as earlier versions read it
    assert {run.objective_best for run in history.runs()} == {0.9}
    report = import_source(history, source)
    assert (report.n_new, report.n_updated) == (0, len(study.trials))
    assert {run.objective_best for run in history.runs()} == {0.5}


def test_the_status_of_a_run_is_that_of_its_tool_also_where_its_outcome_is(history: History) -> None:
    record = ForeignRun(("1",), "t", {"lr": 0.1}, {"val_acc": Curve([0], [0.9])}, RunStatus.FAILED, outcomes={"val_acc": Curve([], [])})
    import_source(history, Listed([record]), ImportOptions(objective="val_acc"))
    assert [(run.status, run.objective_best) for run in history.runs()] == [(RunStatus.FAILED, None)]
