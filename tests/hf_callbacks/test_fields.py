"""Which fields may change, under which name, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from hf_callbacks import MetaHPCallback, apply, autoconfig
from hf_callbacks.arguments import warm_up_ratio
from hf_callbacks.fixed_fields import fixed_fields
from hf_callbacks.provenance import provenance_of
from metamodel import TaskDescription
from store import History, RunStatus, SpaceError, UnknownHyperparameterError


def teach(history: History, name: str, values: list[Any], **fixed: Any) -> History:
    """Write runs of the task "t" in which later values of a hyperparameter are better."""
    task = TaskDescription(name="t", objective="eval_loss", direction="min")
    for index, value in enumerate(values):
        with history.start_run(task=task, hparams={name: value, **fixed}, objective="eval_loss") as run:
            run.log({"eval_loss": 1.0 - 0.1 * index}, step=1, epoch=1.0)
    return history


@pytest.mark.parametrize(
    ("name", "values", "field"),
    [
        ("learning_rate", [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3], "learning_rate"),
        ("weight_decay", [0.0, 0.01, 0.02, 0.05, 0.1, 0.2], "weight_decay"),
        ("warmup_ratio", [0.0, 0.01, 0.03, 0.05, 0.1, 0.2], "warmup_steps"),
        ("max_grad_norm", [1.0, 0.8, 0.6, 0.4, 0.3, 0.2], "max_grad_norm"),
        ("global_batch_size", [8, 8, 16, 16, 32, 32], "per_device_train_batch_size"),
    ],
)
def test_without_a_space_the_safe_fields_change_where_the_user_has_not_spoken(
    history: History, make_args: Any, make_model: Any, sentences: Any, name: str, values: list[Any], field: str
) -> None:
    teach(history, name, values)
    own = make_args()
    given = {"model": make_model(), "train_dataset": sentences(64), "task": "t", "history": history}
    assert getattr(autoconfig(own, **given), field) != getattr(own, field)
    spoken = make_args(**{field: getattr(own, field)})
    provenance = autoconfig(spoken, **given, keep=(field,))
    assert getattr(provenance, field) == getattr(own, field)


def test_the_length_of_training_and_the_schedule_change_only_in_a_space(
    pinned: Any, make_args: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = {"num_train_epochs": 7, "lr_scheduler_type": "cosine", "optim": "sgd", "label_smoothing_factor": 0.1}
    history = pinned(**wanted)
    own = make_args()
    assert autoconfig(own, task="t", history=history).to_dict() == own.to_dict()
    printed = capfd.readouterr().err
    for name in wanted:
        assert f"{name} {wanted[name]} was not applied: without a space it is never rewritten; list it in space" in printed
    found = autoconfig(own, task="t", history=history, space={name: [value] for name, value in wanted.items()})
    assert (found.num_train_epochs, found.lr_scheduler_type.value, found.optim.value, found.label_smoothing_factor) == (
        7,
        "cosine",
        "sgd",
        0.1,
    )


@pytest.mark.parametrize(
    ("space", "accumulation", "expected"),
    [
        ({"per_device_train_batch_size": [2, 4, 8]}, 2, (4, 2)),  # per device: 4 x 2 are the 8 recommended
        ({"global_batch_size": [4, 8]}, 1, (8, 1)),
        ({"global_batch_size": [4, 8]}, 2, (8, 1)),  # both factors are ours: fewer accumulated batches are faster
        ({"per_device_train_batch_size": [2], "gradient_accumulation_steps": [1, 2, 4]}, 1, (2, 4)),
    ],
)
def test_a_global_batch_becomes_samples_per_device_times_accumulation(
    pinned: Any, make_args: Any, space: dict[str, Any], accumulation: int, expected: tuple[int, int]
) -> None:
    history = pinned(batch_size=8)
    found = autoconfig(make_args(gradient_accumulation_steps=accumulation), task="t", history=history, space=space)
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == expected


def test_a_batch_known_to_run_out_of_memory_is_not_recommended(
    history: History, make_args: Any, make_model: Any, sentences: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    with history.start_run(
        task="earlier", hparams={"batch_size": 8}, objective="eval_loss", model_class="BertForSequenceClassification"
    ) as run:
        run.finish(RunStatus.OOM)
    found = autoconfig(make_args(), model=model, train_dataset=sentences(64), history=history)
    assert found.per_device_train_batch_size == 7
    assert "a batch of 8 per device ran out of memory" in capfd.readouterr().err


def test_warm_up_is_a_share_below_one_and_steps_above(pinned: Any, make_args: Any) -> None:
    history = pinned(warmup_ratio=0.06)
    assert autoconfig(make_args(), task="t", history=history, space={"warmup_ratio": FloatDistribution(0, 0.2)}).warmup_steps == 0.06
    assert autoconfig(make_args(), task="t", history=history, space={"warmup_steps": [0.0, 0.06]}).warmup_steps == 0.06
    assert warm_up_ratio(make_args(warmup_steps=5), 50) == 0.1
    assert warm_up_ratio(make_args(warmup_steps=5)) is None, "without the length of training nobody knows"
    with pytest.raises(SpaceError, match="must name a field once"):
        autoconfig(make_args(), history=history, space={"warmup_steps": [10, 20], "warmup_ratio": [0.1]})


def test_warm_up_in_steps_stays_in_steps(pinned: Any, make_args: Any) -> None:
    assert autoconfig(make_args(), task="t", history=pinned(warmup_steps=20), space={"warmup_steps": [0, 20]}).warmup_steps == 20


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({"max_steps": 5}, "num_train_epochs", "max_steps=5 decides how long the training is"),
        ({"lr_scheduler_type": "constant"}, "warmup_ratio", "the schedule 'constant' has no warm-up"),
        ({"optim": "sgd"}, "adam_beta2", "the optimizer 'sgd' does not use it"),
    ],
)
def test_a_field_without_effect_is_refused(
    pinned: Any, make_args: Any, changes: dict[str, Any], name: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    own = make_args(**changes)
    found = autoconfig(own, task="t", history=pinned(**{name: 0.5}), space={name: [0.5]})
    assert found.to_dict() == own.to_dict()
    assert reason in capfd.readouterr().err


def test_values_that_contradict_each_other_never_reach_the_trainer(
    pinned: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    history = pinned(lr_scheduler_type="reduce_lr_on_plateau", learning_rate=0.01)
    trainer = make_trainer(MetaHPCallback(history=history, task="t"), eval_strategy="no")
    before = trainer.args.to_dict()
    apply(trainer, space={"lr_scheduler_type": ["reduce_lr_on_plateau"], "learning_rate": [0.01]})
    assert "reduce_lr_on_plateau requires an eval strategy" in caplog.text
    assert trainer.args.to_dict() == before
    trainer.train()


def test_several_near_names_are_offered(make_args: Any, history: History) -> None:
    with pytest.raises(UnknownHyperparameterError, match=r"nearest are 'adam_beta[12]', 'adam_beta[12]'"):
        autoconfig(make_args(), history=history, space={"adam_beta": [0.9]})


def test_a_field_about_logging_is_not_tuned(make_args: Any, history: History) -> None:
    with pytest.raises(UnknownHyperparameterError, match="'logging_steps' says where it runs, what is logged or saved"):
        autoconfig(make_args(), history=history, space={"logging_steps": [5]})


def test_a_name_like_nothing_is_answered_with_all(make_args: Any, history: History) -> None:
    with pytest.raises(UnknownHyperparameterError, match=r"'xyzzy'; possible are .*learning_rate.*weight_decay"):
        autoconfig(make_args(), history=history, space={"xyzzy": [5]})


DEEPSPEED = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": 4,
    "gradient_clipping": "auto",
    "optimizer": {"type": "AdamW", "params": {"lr": 3e-5, "weight_decay": "auto"}},
    "zero_optimization": {"stage": 2},
}


@pytest.mark.parametrize("as_file", [True, False])
def test_what_deepspeed_fixes_is_refused_and_what_it_leaves_open_is_not(make_args: Any, tmp_path: Path, as_file: bool) -> None:
    own = make_args()
    (tmp_path / "ds.json").write_text(json.dumps(DEEPSPEED))
    own.deepspeed = str(tmp_path / "ds.json") if as_file else DEEPSPEED
    fixed = fixed_fields(own)
    assert fixed["learning_rate"] == "DeepSpeed's configuration fixes optimizer.params.lr=3e-05"
    assert fixed["gradient_accumulation_steps"].endswith("gradient_accumulation_steps=4")
    assert not fixed.keys() & {"weight_decay", "per_device_batch_size", "max_grad_norm"}, "new arguments fill in its auto entries anew"
    built = fixed_fields(own, is_built=True)
    assert "was filled from it already" in built["weight_decay"]
    assert {"per_device_batch_size", "max_grad_norm"} <= built.keys()
    assert "warmup_steps" not in built, "its configuration has no schedule, so the Trainer makes one"


def test_accelerates_own_deepspeed_configuration_fixes_everything(make_args: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_args()  # built before: with the switch on, building needs the package
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert "Accelerate's own DeepSpeed configuration" in fixed_fields(own)["*"]


def test_fsdp_settings_survive_a_rewrite(pinned: Any, make_args: Any) -> None:
    own = make_args(fsdp="full_shard auto_wrap", fsdp_config={"transformer_layer_cls_to_wrap": ["BertLayer"]})
    found = autoconfig(own, task="t", history=pinned(learning_rate=0.01), space={"learning_rate": [0.01]})
    assert found.learning_rate == 0.01
    assert found.fsdp == own.fsdp
    assert found.fsdp_plugin_args == own.fsdp_plugin_args
    assert provenance_of(found).rewrites.keys() == {"learning_rate"}
