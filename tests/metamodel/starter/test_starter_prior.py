import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from optuna.distributions import FloatDistribution

from metahp_tuning.task_description import parameter_count
from metamodel import Decision, TaskDescription, Unit, recommend
from metamodel.starter import starter_prior
from metamodel.starter.scope import FAMILIES, LARGEST, MAX_OTHER_TASKS_FOR_STARTER, family_of, optimizer_of, why_out_of_scope
from metamodel.starter.starter_prior import FOLDER as DATA
from metamodel.starter.starter_prior import StarterFiles, shipped
from studies.starter.networks import build
from studies.starter.pack import learning_tasks, outcome, pack, read

FOLDER = Path(starter_prior.__file__).parent / DATA
SPACE = {"learning_rate": FloatDistribution(1e-5, 1e-1, log=True), "weight_decay": FloatDistribution(1e-6, 1e-1, log=True)}
OWN = {"learning_rate": 3e-5, "weight_decay": 0.0, "optimizer": "Adam", "batch_size": 32}
OWN |= {"num_layers": 2, "hidden_size": 16, "num_epochs": 10}


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.delenv("METAHP_STARTER")


def task(**changes):
    known = {"name": "mine", "n_train": 800, "n_classes": 3, "model_family": "mlp", "n_parameters": 5_000, "is_pretrained": False}
    return TaskDescription(**{**known, "objective": "val_acc", "direction": "max", **changes})


def record(history, name, rate, accuracy, **more):
    description = {"model_family": "mlp", "is_pretrained": False, "n_train": 800}
    hparams = {**OWN, "learning_rate": rate, **more}
    with history.start_run(
        task=name, hparams=hparams, objective="val_acc", direction="max", description=description, model_family="mlp"
    ) as run:
        run.log({"val_acc": accuracy}, step=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_history_is_answered_from_the_starter_and_it_says_so(history, family):
    (found,) = recommend(history, task(model_family=family), SPACE, current=OWN)
    assert found.decision is Decision.APPLY
    assert "from the starter history, not from your runs" in found.reason
    assert 1e-4 < found.config["learning_rate"] <= 0.1  # 3e-5 trains next to nothing in ten epochs
    assert found.unit is Unit.RANK
    assert found.interval[0] < found.prediction < found.interval[1]
    assert found.evidence.n_runs == found.evidence.n_other_runs == found.evidence.n_tasks == 0
    assert found.evidence.n_starter_runs >= 16 * found.evidence.n_starter_tasks > 0


def test_without_a_space_only_what_is_safe_changes(history):
    current = {**OWN, "dropout": 0.1, "momentum": 0.5}
    (found,) = recommend(history, task(), current=current, allowed=["learning_rate", "dropout", "weight_decay", "batch_size"])
    assert found.decision is Decision.APPLY
    assert {"learning_rate"} <= set(found.config) <= {"learning_rate", "dropout", "weight_decay"}


@pytest.mark.parametrize("switch", ["0", "off", "false"])
def test_a_switch_turns_it_off(history, monkeypatch, switch):
    monkeypatch.setenv("METAHP_STARTER", switch)
    (found,) = recommend(history, task(), SPACE, current=OWN)
    assert found.decision is Decision.ABSTAIN
    assert "starter" not in found.reason


@pytest.mark.parametrize(
    ("description", "current", "reason"),
    [
        ({"is_pretrained": True, "model_family": "transformer"}, {}, "starts from trained weights"),
        ({}, {"backbone": "resnet50"}, "starts from trained weights (as 'backbone' says)"),
        ({}, {"model_name_or_path": "bert-base-uncased"}, "starts from trained weights"),
        (
            {"n_parameters": 559_863},
            {},
            "mlp has 559,862 parameters and a width of 512, and this one has 559,863 parameters and a width of 16",
        ),
        ({"width": 513}, {}, "this one has 5,000 parameters and a width of 513"),
        (
            {"model_family": "cnn", "n_parameters": None},
            {"hidden_size": 64},
            "parameters and a width of 24, and this one has a width of 64",
        ),
        ({"model_family": "rnn", "width": 33}, {}, "a width of 33"),
        ({"model_family": "other"}, {}, "this one's is other"),
        ({"model_family": None}, {}, "this one's is unknown"),
        ({}, {"optimizer": "Lion"}, "it knows SGD, Adam and AdamW, and this optimizer is Lion"),
        ({"n_train": 10_000_000}, {}, "steps of mlp networks are in scope, and this one takes 3,125,000"),
        ({}, {"max_steps": 900_000}, "this one takes 900,000"),
        ({"model_family": None, "model_class": "BigTransformer", "n_parameters": 0, "n_train": None}, {}, "its size is not known"),
    ],
)
def test_what_it_was_not_trained_on_is_out_of_scope(history, description, current, reason):
    (found,) = recommend(history, task(**description), SPACE, current={**OWN, **current})
    assert found.decision is Decision.ABSTAIN
    assert "the starter history does not apply" in found.reason
    assert reason in found.reason


def test_an_unknown_hyperparameter_stays_as_it_is(history):
    (found,) = recommend(history, task(), {**SPACE, "temperature": [0.5, 1.0, 2.0]}, current={**OWN, "temperature": 2.0})
    assert found.evidence.untuned == ("temperature",)
    assert found.config["temperature"] == 2.0
    (found,) = recommend(history, task(), {"temperature": [0.5, 1.0, 2.0]}, current={**OWN, "temperature": 2.0})
    assert found.decision is Decision.ABSTAIN
    assert "temperature" in found.reason


def test_sgd_and_adam_get_different_rates(history):
    rates = {
        name: recommend(history, task(), SPACE, current={**OWN, "optimizer": name})[0].config["learning_rate"]
        for name in ("torch.optim.SGD", "adamw_torch_fused")
    }
    assert rates["torch.optim.SGD"] > rates["adamw_torch_fused"]


def test_intervals_are_wider_than_among_its_own_tasks():
    family = shipped("mlp")
    starter = starter_prior.load_starter_prior(task(), OWN)
    assert starter.model.calibration.half_width(0) == pytest.approx(
        starter_prior.INTERVAL_INFLATION * family.model.calibration.half_width(0)
    )
    assert starter_prior.INTERVAL_INFLATION > 1


def test_runs_of_the_task_itself_move_the_answer(history):
    first = recommend(history, task(), SPACE, current=OWN)[0].config["learning_rate"]
    for rate in np.geomspace(1e-5, 1e-1, 12):
        record(history, "mine", float(rate), 0.9 - 0.1 * abs(np.log10(rate) + 4.5))  # here the best is far lower than usual
    (found,) = recommend(history, task(), SPACE, current={**OWN, "learning_rate": 0.01})
    assert found.config["learning_rate"] < first / 5
    assert found.evidence.n_runs == 12
    assert "12 runs of this task; prior from the starter history" in found.reason


def record_others(history, n_tasks, low):
    """Other tasks, numbered from ``low`` on, whose best learning rate is far lower than usual."""
    for number in range(low, low + n_tasks):
        for rate in np.geomspace(1e-5, 1e-1, 12):
            record(history, f"other {number}", float(rate), 0.9 - 0.1 * abs(np.log10(rate) + 4.5), dropout=number / 20)


def test_one_other_task_is_not_mixed_with_it(history):
    record_others(history, 1, 1)
    (found,) = recommend(history, task(), SPACE, current=OWN, max_fit_s=5)
    assert (found.evidence.n_tasks, found.evidence.n_other_runs) == (0, 0)
    assert found.evidence.left_out == {"too few other tasks to mix with the starter history": 12}
    assert "not from your runs" in found.reason


def test_where_runs_of_one_other_task_failed_is_known_all_the_same(history):
    for rate in np.geomspace(1e-5, 1e-1, 16):
        record(history, "other", float(rate), 0.7 if rate < 2e-3 else float("nan"))
    (found,) = recommend(history, task(), SPACE, current=OWN, max_fit_s=5)
    assert found.evidence.n_failed == 7
    assert found.config["learning_rate"] < 3e-3
    assert found.finish_probability > 0.7


def test_other_tasks_without_a_model_of_them_are_named(history, monkeypatch):
    monkeypatch.setenv("METAHP_REFIT", "off")
    record_others(history, 3, 1)
    (found,) = recommend(history, task(), SPACE, current=OWN)
    assert found.evidence.left_out == {"other tasks without a meta-model of them": 36}
    assert found.evidence.n_tasks == 0


def test_an_optimizer_that_only_ones_own_tasks_know_is_told_from_others(history):
    for number in (1, 2, 3):
        for rate, optimizer in itertools.product(np.geomspace(1e-4, 1e-2, 4), ("Adam", "RMSprop", "Adagrad")):
            record(history, f"other {number}", float(rate), 0.5 + 0.3 * (optimizer == "RMSprop"), optimizer=optimizer)
    candidates = [{"learning_rate": 1e-3, "optimizer": name} for name in ("Adam", "Adagrad", "RMSprop")]
    found = recommend(history, task(), candidates=candidates, k=3, current=OWN, max_fit_s=5)
    assert found[0].evidence.n_starter_tasks
    assert found[0].config["optimizer"] == "RMSprop"
    assert found[0].prediction > found[1].prediction


@pytest.mark.parametrize("switch", ["1", "0"])
def test_fine_tuning_is_no_source_for_training_from_scratch(history, monkeypatch, switch):
    monkeypatch.setenv("METAHP_STARTER", switch)
    for number in (1, 2):
        for rate in np.geomspace(1e-5, 1e-1, 12):
            record(history, f"other {number}", float(rate), 0.9 - 0.1 * abs(np.log10(rate) + 2.5))
    before = recommend(history, task(), SPACE, current=OWN, max_fit_s=5)[0].config["learning_rate"]
    for number in range(5):
        description = {"model_family": "mlp", "is_pretrained": True, "n_train": 800}
        for rate in np.geomspace(1e-6, 1e-3, 12):
            hparams, accuracy = {**OWN, "learning_rate": float(rate)}, 0.9 - 0.1 * abs(np.log10(rate) + 5)
            with history.start_run(
                task=f"tuned {number}", hparams=hparams, objective="val_acc", direction="max", description=description
            ) as run:
                run.log({"val_acc": accuracy}, step=1)
    (found,) = recommend(history, task(), SPACE, current=OWN, max_fit_s=5)
    assert found.evidence.left_out == {"task starts from other weights (pre-trained or not)": 60}
    assert found.config["learning_rate"] > before / 4


def test_other_tasks_of_ones_own_outweigh_it_and_then_replace_it(history):
    def answer():
        return recommend(history, task(), SPACE, current={**OWN, "learning_rate": 0.01}, max_fit_s=5)[0]

    before = answer().config["learning_rate"]
    record_others(history, 2, 1)
    mixed = answer()
    assert (mixed.evidence.n_tasks, mixed.evidence.n_other_runs) == (2, 24)
    assert mixed.evidence.n_starter_tasks
    assert "24 runs of 2 other tasks; prior from the starter history" in mixed.reason
    assert mixed.config["learning_rate"] < before / 2
    record_others(history, MAX_OTHER_TASKS_FOR_STARTER - 1, 3)
    found = answer()
    assert found.evidence.n_tasks == MAX_OTHER_TASKS_FOR_STARTER + 1
    assert found.config["learning_rate"] < before / 5
    assert "starter" not in found.reason


def test_mixed_with_the_users_tasks_it_answers_about_what_only_they_have_tuned(history):
    for number in (1, 2):
        for rate, temperature in itertools.product(np.geomspace(1e-4, 1e-2, 6), (0.5, 1.0, 2.0)):
            record(
                history,
                f"other {number}",
                float(rate),
                0.9 - 0.2 * abs(temperature - 2.0),
                temperature=temperature,
                optimizer="torch.optim.Adam",
            )
    space = {**SPACE, "temperature": [0.5, 1.0, 2.0]}
    (found,) = recommend(history, task(), space, current={**OWN, "temperature": 0.5}, max_fit_s=5)
    assert found.evidence.n_starter_tasks
    assert found.evidence.n_tasks == 2
    assert found.config["temperature"] == 2.0
    for rate, temperature in itertools.product(np.geomspace(1e-4, 1e-2, 4), (0.5, 1.0)):
        record(history, "mine", float(rate), 0.9 - 0.2 * temperature, temperature=temperature)
    (found,) = recommend(history, task(), space, current={**OWN, "temperature": 2.0}, max_fit_s=5)
    assert found.config["temperature"] == 0.5


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("Adam", "Adam"),
        ("adamw_torch", "AdamW"),
        ("paged_adamw_32bit", "AdamW"),
        ("torch.optim.SGD", "SGD"),
        ("sgd", "SGD"),
        ("NAdam", None),
        ("adamax", None),
        ("adafactor", None),
        (None, None),
    ],
)
def test_an_optimizer_is_known_under_its_usual_spellings(written, known):
    assert optimizer_of(written) == known


def test_a_network_that_is_built_later_is_known_by_its_name():
    unbuilt = {"model_family": "other", "n_parameters": 0, "n_train": 500}
    assert family_of(task(**unbuilt, model_class="LitLSTM"), {}) == "rnn"
    assert family_of(task(**unbuilt, model_class="ConvNet"), {}) == "cnn"
    assert family_of(task(**unbuilt, model_class="MyModel"), {}) is None
    assert family_of(task(model_family="other", n_parameters=5_000, model_class="LitLSTM"), {}) is None
    assert why_out_of_scope(task(**unbuilt, model_class="LitLSTM"), {}) == ""


def test_damaged_files_cost_a_warning_and_no_run(history, tmp_path, monkeypatch, caplog):
    (tmp_path / starter_prior.TASKS).write_text("{")
    monkeypatch.setattr(starter_prior, "files", lambda package: tmp_path)
    monkeypatch.setattr(starter_prior, "FOLDER", ".")
    for cached in (starter_prior._files, starter_prior.shipped):
        cached.cache_clear()
    try:
        (found,) = recommend(history, task(), SPACE, current=OWN)
    finally:
        for cached in (starter_prior._files, starter_prior.shipped):
            cached.cache_clear()
    assert found.decision is Decision.ABSTAIN
    assert "The starter history cannot be used" in caplog.text


def test_what_ships_is_small_and_says_where_it_comes_from(tmp_path):
    folder = starter_prior.Path(starter_prior.__file__).parent / starter_prior.FOLDER
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    assert (tmp_path / "all.zip").stat().st_size < 3_000_000
    about = json.loads((folder / starter_prior.TASKS).read_text())
    assert about["provenance"]["n_tasks"] >= 60
    assert about["provenance"]["n_runs"] >= 60 * about["provenance"]["n_tasks"]
    assert about["provenance"]["n_diverged"] > 0
    assert {"seed", "versions", "licence", "made_by", "data"} <= about["provenance"].keys()
    assert not {"digits", "wine"} & {str(spec["options"].get("which")) for spec in about["data"].values()}


def test_the_runs_shipped_with_the_models_have_full_curves():
    from pyarrow import parquet

    folder = starter_prior.Path(starter_prior.__file__).parent / starter_prior.FOLDER
    table = parquet.read_table(folder / "runs.parquet")
    about = json.loads((folder / starter_prior.TASKS).read_text())
    assert table.num_rows == about["provenance"]["n_runs"]
    rows = table.slice(0, 200).to_pylist()
    assert all(len(row["val_loss"]) == len(row["train_loss"]) == row["num_epochs"] for row in rows)
    assert set(table["status"].unique().to_pylist()) == {"completed", "diverged"}
    rates = table["learning_rate"].to_numpy()
    assert rates.min() < 2e-5
    assert rates.max() > 5e-2


def trained(name, n_runs):
    rng = np.random.default_rng(len(name))
    runs = []
    for i in range(n_runs):
        hparams = {"learning_rate": float(10 ** rng.uniform(-5, -1)), "weight_decay": 0.0, "dropout": 0.1, "warmup_ratio": 0.0}
        hparams |= {"lr_scheduler": "cosine", "optimizer": "SGD" if i % 2 else "Adam", "momentum": 0.9 if i % 2 else None}
        hparams |= {"num_layers": 1 + i % 3, "hidden_size": 8, "batch_size": 16, "num_epochs": 4}
        loss = [1.0, abs(np.log10(hparams["learning_rate"]) + 2), 0.5, abs(np.log10(hparams["learning_rate"]) + 2)]
        if i == 1:
            loss[-1] = float("nan")
        runs.append({"hparams": hparams, "seed": i, "group_seed": 0, "val_loss": loss, "train_loss": loss, "val_accuracy": None})
    description = {"name": name, "n_train": 100, "model_family": "mlp", "objective": "val_loss", "direction": "min"}
    return {"description": description, "data": {"options": {}}, "cpu_seconds": 1.0, "runs": runs}


def test_packing_and_reading_give_back_what_was_trained(tmp_path):
    source, target = tmp_path / "trained", tmp_path / "packed"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / f"{name}.json").write_text(json.dumps(trained(name, 40)))
    about = pack(source, target)
    assert (about["n_tasks"], about["n_runs"], about["n_diverged"]) == (3, 120, 3)
    family = StarterFiles(target).family("mlp")
    learned = learning_tasks(read(source))
    for i, expected in enumerate(learned):
        found = family.task(i)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)
        assert found.is_diverged.tolist() == expected.is_diverged.tolist()
        for mine, theirs in zip(found.configs, expected.configs, strict=True):
            assert mine.keys() == theirs.keys()
            assert mine["learning_rate"] == pytest.approx(theirs["learning_rate"], rel=1e-5)
            assert {k: v for k, v in mine.items() if k != "learning_rate"} == pytest.approx(
                {k: v for k, v in theirs.items() if k != "learning_rate"}
            )
    assert family.task_weights("SGD").tolist() == [1, 0, 1, 0, 1, 0]


def test_a_run_is_judged_by_where_it_ended_not_by_its_best_moment():
    run = {"val_loss": [1.0, 0.1, 0.9, 0.8, 0.7], "train_loss": [1.0] * 5}
    assert outcome(run, "val_loss") == (pytest.approx(0.8), False)
    assert outcome({**run, "train_loss": [1.0, float("inf")]}, "val_loss")[1]


def test_a_size_that_is_not_known_is_judged_by_what_is():
    without = {name: value for name, value in OWN.items() if name != "hidden_size"}
    for family, (most, widest) in LARGEST.items():
        assert why_out_of_scope(task(model_family=family, n_parameters=most), without) == ""
        assert f"this one has {most + 1:,} parameters" in why_out_of_scope(task(model_family=family, n_parameters=most + 1), without)
        assert why_out_of_scope(task(model_family=family, width=widest), OWN) == ""
        assert (
            why_out_of_scope(task(model_family=family, width=16), {**OWN, "hidden_size": 10_000}) == ""
        )  # the layers themselves are known


def test_the_largest_networks_are_those_that_were_trained():
    runs = pq.read_table(FOLDER / "runs.parquet", columns=["task", "num_layers", "hidden_size"]).to_pylist()
    sizes = {(run["task"], run["num_layers"], run["hidden_size"]) for run in runs}
    known = json.loads((FOLDER / "tasks.json").read_text())["families"]
    for family, tasks in known.items():
        largest, widest = 0, 0
        described = {about["description"]["name"]: about["description"] for about in tasks}
        for name, num_layers, width in sizes:
            if name in described:
                shape, n_classes = tuple(described[name]["input_shape"]), described[name].get("n_classes", 1)
                network = build(family, shape, n_classes, num_layers, width, 0)
                largest, widest = max(largest, parameter_count(network)), max(widest, width)
        assert LARGEST[family] == (largest, widest)
