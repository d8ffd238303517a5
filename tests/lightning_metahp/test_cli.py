"""``MetaHPCLI`` rewrites the parsed configuration before anything is built, and logs the run."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from torch import nn

from lightning_metahp import MetaHPCallback, MetaHPCLI
from lightning_metahp.cli_config import tunable_arguments
from lightning_metahp.configuration_host import ConfigurationHost
from metahp_tuning.host import check_request
from store import History, Source, UnknownHyperparameterError
from store.errors import MetaHPWarning
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, only_run

pytest.importorskip("jsonargparse")

QUIET = ["--trainer.enable_checkpointing=false", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
ARGUMENTS = ["--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.enable_model_summary=false", *QUIET]


class Deep(TinyModel):
    """Layers that are built in ``__init__``, and no optimizer of its own."""

    def __init__(self, num_layers: int = 1, dropout: float = 0.1, samples: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Dropout(dropout), *(nn.Linear(4, 4) for _ in range(num_layers)), nn.Linear(4, 3))

    configure_optimizers: Any = None


class Linked(MetaHPCLI):
    """The model is told the batch size of the data."""

    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.link_arguments("data.batch_size", "model.samples")


def run(*arguments: str, cli: type[MetaHPCLI] = MetaHPCLI, model: type = Deep, **options: Any) -> MetaHPCLI:
    optimizer = ["--optimizer=Adam"] if model is Deep else []
    return cli(model, TinyData, args=["fit", *ARGUMENTS, *optimizer, *arguments], **{"save_config_callback": None, **options})


def test_it_is_a_lightning_cli_whose_runs_are_logged(isolated_history: Path) -> None:
    assert issubclass(MetaHPCLI, LightningCLI)
    run("--model.lr=0.02", model=TinyModel)
    with History(isolated_history) as history:
        assert only_run(history).hparams["learning_rate"] == 0.02


def test_a_callback_in_the_configuration_is_not_doubled() -> None:
    callbacks = ["--trainer.callbacks+=lightning_metahp.callback.MetaHPCallback", "--trainer.callbacks.objective=val_acc"]
    cli = MetaHPCLI(TinyModel, TinyData, args=[*ARGUMENTS, *callbacks], save_config_callback=None, run=False)
    found = [callback for callback in cli.trainer.callbacks if isinstance(callback, MetaHPCallback)]
    assert [callback.run_log.objective for callback in found] == ["val_acc"]


def test_layers_optimizer_and_data_are_rewritten_and_the_saved_configuration_is_what_ran(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = pin(history, monkeypatch, lr=0.03, num_layers=3, batch_size=32, dropout=0.3, max_epochs=2)
    space = {"lr": [0.03], "num_layers": [1, 3], "batch_size": [16, 32], "dropout": [0.3], "max_epochs": [1, 2]}
    from lightning.pytorch.cli import SaveConfigCallback

    arguments = [f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    cli = run(*arguments, cli=Linked, space=space, objective="val_acc", history=history, save_config_callback=SaveConfigCallback)
    assert len([layer for layer in cli.model.net if isinstance(layer, nn.Linear)]) == 4
    assert (cli.model.net[0].p, cli.trainer.optimizers[0].param_groups[0]["lr"], cli.trainer.current_epoch) == (0.3, 0.03, 2)
    assert (cli.trainer.train_dataloader.batch_size, cli.model.hparams.samples) == (32, 32), "both ends of a link"
    saved = yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())
    assert (saved["model"]["num_layers"], saved["data"]["batch_size"], saved["trainer"]["max_epochs"]) == (3, 32, 2)
    assert saved["optimizer"]["init_args"]["lr"] == 0.03
    row = newest(history)
    assert row.recommendation_id == identity
    for name, old, new in (("learning_rate", 0.001, 0.03), ("num_layers", 1, 3), ("batch_size", 16, 32), ("dropout", 0.1, 0.3)):
        param = row.provenance[name]
        assert (param.requested, param.value, param.source) == (old, new, Source.METAHP), name
    assert "num_layers 1 -> 3" in capsys.readouterr().err


def test_the_arguments_of_a_schedule_can_be_tuned(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, gamma=0.5)
    cli = run("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.9", space={"gamma": [0.5, 0.9]}, objective="val_acc", history=history)
    assert cli.trainer.lr_scheduler_configs[0].scheduler.gamma == 0.5


def test_what_stands_on_the_command_line_or_in_a_file_stays(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pin(history, monkeypatch, lr=0.03, batch_size=32, dropout=0.3)
    config = tmp_path / "mine.yaml"
    config.write_text("data:\n  batch_size: 8\n")
    cli = run(f"--config={config}", "--optimizer.lr=0.001", objective="val_acc", history=history)
    assert (cli.trainer.train_dataloader.batch_size, cli.trainer.optimizers[0].param_groups[0]["lr"]) == (8, 0.001)
    assert cli.model.net[0].p == 0.3, "a default is nobody's wish"
    said = capsys.readouterr().err
    assert "batch_size stays 8: set by you" in said
    assert "lr stays 0.001: set by you" in said, "also where it equals the default"


def test_arguments_of_a_logger_hide_nobodys_wishes(history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pin(history, monkeypatch, lr=0.03, dropout=0.3)
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetaHPWarning)
        cli = run("--optimizer.lr=0.001", *logger, objective="val_acc", history=history)
    assert (cli.trainer.optimizers[0].param_groups[0]["lr"], cli.model.net[0].p) == (0.001, 0.3)


def test_only_arguments_that_could_be_rewritten_are_read_again() -> None:
    given = ["fit", "--config", "a.yaml", "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir=x", "--model.lr", "-1"]
    given += ["--trainer.max_epochs=3", "--trainer.callbacks+=EarlyStopping", "--data=Mine"]
    assert tunable_arguments(given) == ["fit", "--config", "a.yaml", "--model.lr", "-1", "--trainer.max_epochs=3", "--data=Mine"]


def test_a_checkpoint_path_means_hands_off(history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pin(history, monkeypatch, num_layers=3)
    options: dict[str, Any] = {"space": {"num_layers": [1, 3]}, "objective": "val_acc", "history": history}
    monkeypatch.setenv("METAHP", "off")
    first = run("--model.num_layers=1", **options)
    first.trainer.save_checkpoint(tmp_path / "some.ckpt")
    monkeypatch.delenv("METAHP")
    again = run(f"--ckpt_path={tmp_path / 'some.ckpt'}", "--trainer.max_epochs=2", **options)
    assert (again.model.hparams.num_layers, len(again.model.net)) == (1, 3)


def test_it_recommends_for_the_very_task_that_the_run_then_has(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    for rate in (0.001, 0.003, 0.03, 0.1):
        run(f"--optimizer.lr={rate}", objective="val_acc", history=history)
    capsys.readouterr()
    run(objective="val_acc", history=history)
    assert "from 4 runs of this task" in capsys.readouterr().err
    assert len(history.tasks()) == 1


def test_a_name_that_the_configuration_does_not_have_is_answered(history: History) -> None:
    with pytest.raises(UnknownHyperparameterError, match=r"hyperparameter of the configuration, but got 'num_layer'.* mean 'num_layers'"):
        run(space={"num_layer": [1, 2]}, objective="val_acc", history=history)


def test_under_torchrun_each_process_would_decide_alone_so_only_a_pinned_one_is_followed(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightning_metahp.cli_config import why_ranks_cannot_agree

    assert why_ranks_cannot_agree() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert why_ranks_cannot_agree() == "torchrun starts all processes at once"


def test_a_process_that_lightning_started_follows_the_first_one(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_metahp.configuration_host import DECISION_VARIABLE

    pin(history, monkeypatch, num_layers=3)
    options: dict[str, Any] = {"space": {"num_layers": [1, 3]}, "objective": "val_acc", "history": history}
    arguments = [*ARGUMENTS, "--optimizer=Adam"]
    MetaHPCLI(Deep, TinyData, args=arguments, run=False, save_config_callback=None, **options)
    monkeypatch.setenv(DECISION_VARIABLE, os.environ[DECISION_VARIABLE])
    monkeypatch.delenv("METAHP_PIN")
    monkeypatch.setenv("LOCAL_RANK", "1")
    cli = MetaHPCLI(Deep, TinyData, args=arguments, run=False, save_config_callback=None, **options)
    assert cli.model.hparams.num_layers == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--trainer.limit_train_batches=3"], 0.5),
        (["--trainer.limit_train_batches=0.5"], 0.5),
        (["--trainer.max_steps=2"], 1 / 3),
        ([], 1.0),
    ],
)
def test_the_length_and_the_limit_of_validation_are_known_before_anything_is_built(arguments: list[str], expected: float) -> None:
    given = [*ARGUMENTS, "--trainer.limit_val_batches=2", *arguments]
    cli = MetaHPCLI(TinyModel, TinyData, args=given, save_config_callback=None, run=False)
    host = ConfigurationHost(cli, check_request(objective="val_loss_epoch"), frozenset())
    description = host.describe()
    assert (description.objective, description.comparability) == ("val_loss", {"validation": "2 batches"})
    assert host.planned_epochs(description) == pytest.approx(expected)
