from __future__ import annotations

import math

import pytest

from store import Direction, ObjectiveError, canonical_name, infer_direction, resolve_direction
from store.hyperparameters import REGISTRY
from store.names import base_metric_name, canonical_names, is_secret_name, natural_bounds


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("lr", "learning_rate"),
        ("LR", "learning_rate"),
        ("wd", "weight_decay"),
        ("per_device_train_batch_size", "per_device_batch_size"),
        ("max-epochs", "num_epochs"),
        ("n_layers", "num_layers"),
        ("my_own_knob", "my_own_knob"),
        ("optimizer.lr", "optimizer.lr"),
    ],
)
def test_spellings_of_a_knob_share_one_canonical_name(raw: str, name: str) -> None:
    assert canonical_name(raw) == name


def test_no_alias_belongs_to_two_names() -> None:
    spellings = [alias for row in REGISTRY for alias in (row.name, *row.aliases)]
    assert len(spellings) == len(set(spellings))


def test_two_spellings_in_one_run_do_not_collide() -> None:
    assert canonical_names(["lr", "learning_rate", "wd"]) == {"lr": "lr", "learning_rate": "learning_rate", "wd": "weight_decay"}
    assert canonical_names(["base_lr", "max_lr"]) == {"base_lr": "learning_rate", "max_lr": "max_lr"}


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("val_acc", Direction.MAX),
        ("val/accuracy", Direction.MAX),
        ("ValAUROC", Direction.MAX),
        ("valAuroc", Direction.MAX),
        ("eval_loss", Direction.MIN),
        ("accuracy_loss", Direction.MIN),
        ("rmse", Direction.MIN),
        ("perplexity", Direction.MIN),
        ("zorp", None),
        ("", None),
    ],
)
def test_well_known_names_say_their_direction(metric: str, direction: Direction | None) -> None:
    assert infer_direction(metric) is direction


def test_an_unknown_name_asks_for_a_direction() -> None:
    with pytest.raises(ObjectiveError, match=r"'zorp' does not imply it; possible are 'min' and 'max'\. Pass direction='min' or"):
        resolve_direction("zorp", None)
    with pytest.raises(ObjectiveError, match=r"must be 'min' or 'max', but got 'up' for the objective 'zorp'"):
        resolve_direction("zorp", "up")
    assert resolve_direction("zorp", "maximize") is Direction.MAX
    assert resolve_direction("val_loss", "max") is Direction.MAX


SECRET = "token hf_token HF_TOKEN hub.token accessToken use_auth_token api_key openai_apikey secret client_secret password credentials"
TEXT = "tokens num_tokens max_new_tokens pad_token_id eos_token tokenizer_name token_type_ids tokens_per_batch key num_keys secretary"


@pytest.mark.parametrize("name", SECRET.split())
def test_names_of_credentials_are_recognised(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", TEXT.split())
def test_names_about_text_are_no_credentials(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("metric", "values", "bounds"),
    [
        ("val_acc", [0.2, 0.9], (0.0, 1.0)),
        ("val/F1", [20.0, 90.0], (0.0, 100.0)),
        ("val_loss", [0.5, 3.0], (0.0, math.inf)),
        ("val_loss", [-0.5, 3.0], (-math.inf, math.inf)),
        ("reward", [1.0], (-math.inf, math.inf)),
    ],
)
def test_a_share_and_a_loss_have_bounds_no_prediction_may_leave(metric: str, values: list[float], bounds: tuple[float, float]) -> None:
    assert natural_bounds(metric, values) == bounds


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("neg_mean_squared_error", "max"),
        ("negative_mse", "max"),
        ("neg_log_likelihood", "min"),
        ("val_acc1", "max"),
        ("exact_match", "max"),
    ],
)
def test_negated_and_numbered_metrics_are_understood(metric: str, direction: str) -> None:
    assert infer_direction(metric) == direction


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("val_loss", "val_loss"),
        ("val_loss_epoch", "val_loss"),
        ("val_loss_step", "val_loss"),
        ("val_loss/dataloader_idx_1", "val_loss"),
        ("val_loss_epoch/dataloader_idx_0", "val_loss"),
        ("val/acc", "val/acc"),
        ("_epoch", "_epoch"),
        ("eval_nll_loss", "eval_nll_loss"),
    ],
)
def test_the_base_name_of_a_metric_leaves_out_how_it_was_logged(name: str, base: str) -> None:
    assert base_metric_name(name) == base


def test_one_of_several_evaluation_sets_gives_the_metric_its_plain_name() -> None:
    assert base_metric_name("eval_books_loss", ["news", "books"]) == "eval_loss"


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("val_acurracy", "val_accuracy"),
        ("eval_lsos", "eval_loss"),
        ("val_los", "val_loss"),
        ("eval_a_acccuracy", "eval_a_accuracy"),
        ("test/perplexty", "test/perplexity"),
        ("zorp", None),
        ("epoch_time", None),
        ("val_quality", None),
        ("lr", None),
        ("top3", None),
        ("val_arc", None),
    ],
)
def test_a_mistyped_objective_is_answered_with_the_name_that_is_near(mistyped: str, meant: str | None) -> None:
    with pytest.raises(ObjectiveError) as caught:
        resolve_direction(mistyped, None)
    end = "direction='max'." if meant is None else f"direction='max', or objective={meant!r} if that is meant."
    assert str(caught.value).endswith(end)
