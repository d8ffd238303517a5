"""What can be changed when: one test for each cell of the table in docs/huggingface.md.

Where the host does not take a value, the test shows that it does not: should a release change that, the test fails and the table
with it. Each test ends with what the optimizer, the loader or the loop really used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import transformers
from transformers import Trainer, TrainerCallback

from hf_callbacks import MetaHPCallback, apply
from hf_callbacks.trainer_host import set_train_batch_size
from metamodel.explanation import format_value
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from store import History

WANTED: dict[str, Any] = {
    "learning_rate": 0.02,
    "weight_decay": 0.3,
    "max_grad_norm": 0.25,
    "warmup_steps": 3,
    "lr_scheduler_type": "cosine",
    "optim": "sgd",
    "gradient_accumulation_steps": 2,
    "per_device_train_batch_size": 4,
    "num_train_epochs": 2,
}
"""Field -> a value that is not the default; 16 samples, batches of 8 and one epoch otherwise."""


class Observer(TrainerCallback):
    """Notes what is in force, and may change an argument in an event of its own."""

    def __init__(self, event: str | None = None, change: Callable[[Any], None] | None = None) -> None:
        self.event, self.change, self.seen = event, change, {}

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.event == "on_init_end" and self.change:
            self.change(args)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.event == "on_train_begin" and self.change:
            self.change(args)
        optimizer, scheduler = kwargs["optimizer"], kwargs["lr_scheduler"]
        optimizer, scheduler = getattr(optimizer, "optimizer", optimizer), getattr(scheduler, "scheduler", scheduler)
        schedule = scheduler.lr_lambdas[0]
        self.optimizer, self.model = optimizer, kwargs["model"]
        self.seen |= {
            "learning_rate": optimizer.param_groups[0]["initial_lr"],
            "weight_decay": optimizer.param_groups[0]["weight_decay"],
            "optim": type(optimizer).__name__.lower(),
            "warmup_steps": schedule.keywords.get("num_warmup_steps"),
            "lr_scheduler_type": "cosine" if "cosine" in schedule.func.__name__ else "linear",
            "per_device_train_batch_size": kwargs["train_dataloader"].batch_sampler.batch_size
            if kwargs["train_dataloader"].batch_sampler is not None
            else kwargs["train_dataloader"].batch_size,
        }

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        norm = sum(float(p.grad.norm()) ** 2 for p in kwargs["model"].parameters() if p.grad is not None) ** 0.5
        self.seen["clipped to"] = max(norm, self.seen.get("clipped to", 0.0))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen["steps"] = state.global_step
        self.seen["epochs"] = state.epoch


def run(trainer: Trainer, observer: Observer) -> dict[str, Any]:
    trainer.train()
    return observer.seen


def is_in_force(name: str, seen: dict[str, Any]) -> bool:
    if name == "max_grad_norm":
        return bool(seen["clipped to"] <= 0.2501)
    if name == "gradient_accumulation_steps":
        return bool(seen["steps"] == 1)
    if name == "num_train_epochs":
        return bool(seen["epochs"] == 2.0)
    return bool(seen[name] == WANTED[name])


@pytest.fixture
def loud_model(make_model: Any) -> Any:
    """A model whose gradients are far above any bound, so that clipping shows."""
    model = make_model()
    forward = model.forward

    def loud(**kwargs: Any) -> Any:
        output = forward(**kwargs)
        output.loss = output.loss * 1000
        return output

    model.forward = lambda input_ids=None, labels=None, **kwargs: loud(input_ids=input_ids, labels=labels, **kwargs)
    return model


@pytest.fixture
def build(make_trainer: Any, loud_model: Any) -> Callable[..., tuple[Trainer, Observer]]:
    def make(observer: Observer | None = None, *callbacks: Any, **changes: Any) -> tuple[Trainer, Observer]:
        observer = observer or Observer()
        return make_trainer([observer, *callbacks], model=loud_model, eval_strategy="no", seed=1, **changes), observer

    return make


def test_nothing_of_it_is_in_force_by_default(build: Any) -> None:
    seen = run(*build())
    assert not [name for name in WANTED if is_in_force(name, seen)]


def test_before_the_trainer_everything_can_be_changed(build: Any) -> None:
    together = {name: value for name, value in WANTED.items() if name not in ("gradient_accumulation_steps", "num_train_epochs")}
    seen = run(*build(**together))
    assert [name for name in together if not is_in_force(name, seen)] == []
    seen = run(*build(gradient_accumulation_steps=2))
    assert is_in_force("gradient_accumulation_steps", seen)
    seen = run(*build(num_train_epochs=2))
    assert is_in_force("num_train_epochs", seen)


# transformers 5.0 still took the batch size from there; the newest keeps the copy its constructor made.
AT_INIT_END = {**dict.fromkeys(WANTED, True), "per_device_train_batch_size": transformers.__version__.startswith("5.0.")}


@pytest.mark.parametrize("name", WANTED)
def test_at_on_init_end(build: Any, name: str) -> None:
    observer = Observer("on_init_end", lambda args: setattr(args, name, WANTED[name]))
    assert is_in_force(name, run(*build(observer))) is AT_INIT_END[name]


AT_TRAIN_BEGIN = {**dict.fromkeys(WANTED, False), "max_grad_norm": True}


@pytest.mark.parametrize("name", [name for name in WANTED if name != "gradient_accumulation_steps"])
def test_at_on_train_begin(build: Any, name: str) -> None:
    observer = Observer("on_train_begin", lambda args: setattr(args, name, WANTED[name]))
    assert is_in_force(name, run(*build(observer))) is AT_TRAIN_BEGIN[name]


@pytest.mark.parametrize("name", WANTED)
def test_by_apply_between_the_trainer_and_train(build: Any, history: History, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (name, {name: WANTED[name]}, 0.1, (0.0, 0.2), 0.5, 0.9, 1.0, Unit.OBJECTIVE, Evidence(n_runs=9), Decision.APPLY, "better")
    save_recommendation(history, Recommendation(*answer))
    monkeypatch.setenv("METAHP_PIN", name)
    if name == "gradient_accumulation_steps":  # the meta-model speaks of global batches: 16 are 8 x 2
        save_recommendation(history, Recommendation(*(name, {"batch_size": 16}, *answer[2:])))
    callback = MetaHPCallback("loss", task="t", history=history)
    trainer, observer = build(None, callback)
    apply(trainer, space={name: [1, 2] if name == "gradient_accumulation_steps" else [WANTED[name]]})
    assert is_in_force(name, run(trainer, observer))
    known = history.run(callback.run_id or "").provenance
    found = next(item for item in known.values() if item.raw_name == name)
    assert found.value == WANTED[name]
    assert found.requested is not None
    if name not in ("lr_scheduler_type", "optim"):
        assert found.observed == WANTED[name]


def test_the_batch_size_of_a_built_trainer_needs_its_private_copy(make_trainer: Any) -> None:
    trainer = make_trainer()
    trainer.args.per_device_train_batch_size = 4
    assert len(trainer.get_train_dataloader()) == 2
    set_train_batch_size(trainer)
    assert len(trainer.get_train_dataloader()) == 4


@pytest.mark.parametrize(("name", "value"), [("label_smoothing_factor", 0.2), ("bf16", True), ("neftune_noise_alpha", 5.0)])
def test_what_the_constructor_consumes_is_refused_by_apply(
    build: Any, history: History, name: str, value: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer, _ = build(None, MetaHPCallback("loss", task="t", history=history))
    before = getattr(trainer.args, name)
    apply(trainer, space={name: [value]})
    assert getattr(trainer.args, name) == before
    assert f"{name} stays {format_value(before)}: the Trainer used it when it was built" in capfd.readouterr().err


def test_a_label_smoother_is_made_once_by_the_constructor(make_trainer: Any) -> None:
    trainer = make_trainer()
    trainer.args.label_smoothing_factor = 0.2
    trainer.train()
    assert trainer.label_smoother is None


def test_the_global_batch_is_the_hosts_own(history: History, make_trainer: Any) -> None:
    callback = MetaHPCallback(history=history)
    trainer = make_trainer(callback, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    trainer.train()
    assert history.run(callback.run_id or "").hparams["global_batch_size"] == trainer.get_total_train_batch_size(trainer.args) == 8


def test_a_loader_says_its_batch_size_in_force(history: History, logged: Any) -> None:
    assert logged(per_device_train_batch_size=4).provenance["batch_size"].observed == 4


def test_a_model_is_built_anew_by_train_where_there_is_a_model_init(make_trainer: Any, make_model: Any) -> None:
    trainer = make_trainer(model_init=lambda: make_model())
    trainer.model.bert.embeddings.dropout.p = 0.9
    trainer.train()
    assert trainer.model.bert.embeddings.dropout.p == 0.1
