import lightning as L
import pytest
import torch
from torch import nn

from compare_baselines.live.families import LIVE_FAMILIES
from compare_baselines.live.sklearn_data import DemoData
from metahp_tuning.task_description import model_family
from studies.demo.runs import quiet


class Rewriter(L.Callback):
    """Rewrites hyperparameters where a recommendation does it: in setup, before configure_model."""

    def setup(self, trainer, pl_module, stage):
        pl_module.hparams.update(num_layers=4, dropout=0.37)


def fit(family, dataset, callbacks=()):
    data = DemoData(dataset)
    module = LIVE_FAMILIES[family](data.data.input_shape, data.data.n_classes)
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=2,
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with quiet():
        trainer.fit(module, datamodule=data)
    return module, trainer


def depth(module):
    kinds = {"mlp": nn.Linear, "cnn": (nn.Conv1d, nn.Conv2d), "transformer": nn.TransformerEncoderLayer}
    if module.family == "rnn":
        return module.net.recurrent.num_layers
    layers = sum(isinstance(part, kinds[module.family]) for part in module.modules())
    return layers - 1 if module.family == "mlp" else layers


@pytest.mark.parametrize("family", LIVE_FAMILIES)
def test_depth_and_dropout_rewritten_in_setup_are_what_is_built(family):
    module, _ = fit(family, "iris", [Rewriter()])
    module.family = family
    assert depth(module) == 4
    assert {part.p for part in module.modules() if isinstance(part, nn.Dropout)} == {0.37}


@pytest.mark.parametrize("family", LIVE_FAMILIES)
@pytest.mark.parametrize(("shape", "n_classes"), [((8, 8), 10), ((30,), 2), ((10,), None)])
def test_every_family_maps_images_and_tables_to_one_output_per_class(family, shape, n_classes):
    module = LIVE_FAMILIES[family](shape, n_classes)
    assert module(torch.randn(5, *shape)).shape == (5, n_classes or 1)


@pytest.mark.parametrize("family", LIVE_FAMILIES)
def test_the_family_is_recognised_from_the_modules(family):
    module = LIVE_FAMILIES[family]((8, 8), 10)
    module.configure_model()
    assert model_family(module) == family


def test_a_second_configure_model_keeps_the_network():
    module = LIVE_FAMILIES["mlp"]((4,), 3)
    module.configure_model()
    net = module.net
    module.configure_model()
    assert module.net is net


def test_regression_logs_the_squared_error_and_no_accuracy():
    module, trainer = fit("mlp", "diabetes")
    assert set(trainer.callback_metrics) == {"train_loss", "val_loss"}
    assert module.loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0])).item() == pytest.approx(2.5)


def test_the_optimizer_takes_the_learning_rate_now_in_force():
    module = LIVE_FAMILIES["cnn"]((8, 8), 10)
    module.configure_model()
    module.hparams["learning_rate"] = 0.02
    assert module.configure_optimizers().param_groups[0]["lr"] == 0.02
