"""Each row of the table in docs/tasks.md: which trainings are one task, siblings, others, or comparable only in order."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import gymnasium
import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from lightning_metahp import MetaHPCallback
from metahp_tuning.data_description import describe_dataset
from metamodel import TaskDescription, recommend
from metamodel.data.siblings import are_siblings, sibling_signs
from store import History

ROOT = Path(__file__).resolve().parent.parent
X = torch.randn(1400, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def rows(n: int = 1400, start: int = 0) -> TensorDataset:
    return TensorDataset(X[start:n], Y[start:n])


class Net(L.LightningModule):
    """A small model of anything: inputs of any shape, whole or real targets."""

    def __init__(
        self, lr: float = 1e-2, width: int = 4, layers: int = 1, dropout: float = 0.0, on_epoch: bool | None = None, **more: Any
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["made_loss"])
        hidden = [part for _ in range(layers) for part in (nn.LazyLinear(width), nn.ReLU(), nn.Dropout(dropout))]
        self.net = nn.Sequential(nn.Flatten(), *hidden, nn.LazyLinear(3))
        self.loss = more.get("made_loss") or nn.CrossEntropyLoss()

    def step(self, batch: Any) -> torch.Tensor:
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        target = batch[1] if isinstance(batch, tuple | list) else torch.zeros(len(inputs))
        out = self.net(inputs.float())
        if target.dtype.is_floating_point:
            return (out.mean(1) - target.reshape(len(out), -1).mean(1)).square().mean()
        return self.loss(out, target)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.step(batch)

    def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.step(batch), on_step=self.hparams.on_epoch, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.hparams.lr)


Fit = Callable[..., TaskDescription]


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "tasks.db") as opened:
        yield opened


@pytest.fixture
def fit(history: History, tmp_path: Path) -> Fit:
    def run(
        data: Any = None, module: L.LightningModule | None = None, *, objective: str | None = "val_loss", **options: Any
    ) -> TaskDescription:
        """Train for a batch and return what the run is recorded to be of."""
        quiet = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
        quiet |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path, "max_epochs": 1}
        callbacks = [*options.pop("callbacks", ()), MetaHPCallback(objective, history=history)]
        validation, workers = options.pop("validation", None), options.pop("workers", 0)
        data = rows(200) if data is None else data
        trainer = L.Trainer(**{**quiet, "limit_train_batches": 1, **options}, callbacks=callbacks)
        module = Net() if module is None else module
        if isinstance(data, L.LightningDataModule):
            trainer.fit(module, datamodule=data)
        else:
            seen = validation or (
                [DataLoader(rows(64), 64)] if data.__class__.__name__ == "TensorDataset" and data[0][0].shape == (6,) else []
            )
            seen = seen or [DataLoader(data, 64)]
            trainer.fit(module, DataLoader(data, 64, num_workers=workers), seen if len(seen) > 1 else seen[0])
        recorded = history.runs()[-1]
        assert recorded.status == "completed"
        return TaskDescription.from_dict(recorded.description)

    return run


def is_one_task(history: History) -> bool:
    return len({run.task_id for run in history.runs()}) == 1


# -- one task


@pytest.mark.parametrize(
    "change",
    [
        {"module": {"lr": 1.0}},
        {"module": {"width": 8}},
        {"module": {"layers": 2}},
        {"module": {"dropout": 0.5}},
        {"module": {"augmentation": "flip", "activation": "gelu", "optimizer": "adam", "tokenizer_name": "a"}},
        {"module": {"output_dir": "/tmp/a/results", "cache_dir": "/scratch/b", "run_name": "first", "api_key": "hidden"}},
        {"max_epochs": 2},
        {"workers": 1},
        {"precision": "bf16-mixed"},
    ],
    ids=lambda change: "-".join(str(key) for key in {**change, **change.get("module", {})}),
)
def test_what_can_be_tuned_keeps_the_task(fit: Fit, history: History, change: dict[str, Any]) -> None:
    fit()
    options = {name: value for name, value in change.items() if name != "module"}
    L.seed_everything(3, verbose=False)
    fit(module=Net(**change.get("module", {})), **options)
    assert is_one_task(history)


def test_all_names_of_one_metric_are_one_task(fit: Fit, history: History) -> None:
    fit(module=Net(on_epoch=True), objective=None)
    fit(module=Net(on_epoch=True), objective="val_loss")
    fit(module=Net(on_epoch=True), objective=None, callbacks=[ModelCheckpoint(monitor="val_loss")], enable_checkpointing=True)
    fit(module=Net(on_epoch=True), objective="val_loss_epoch")
    assert is_one_task(history)


def test_one_and_several_evaluation_sets_are_one_task(fit: Fit, history: History) -> None:
    fit()
    fit(validation=[DataLoader(rows(64), 64), DataLoader(rows(128, 64), 64)], objective="val_loss/dataloader_idx_0")
    assert is_one_task(history)


def test_another_seed_of_a_random_split_is_the_same_task(fit: Fit, history: History) -> None:
    for seed in (0, 1):
        part, _ = random_split(rows(200), [160, 40], generator=torch.Generator().manual_seed(seed))
        fit(part, validation=[DataLoader(rows(64), 64)])
    assert is_one_task(history)


class Pictures(Dataset):
    """Files of a folder, read and augmented one by one."""

    def __init__(self, root: str, rate: float) -> None:
        self.root, self.rate = root, rate
        self.samples = [(f"{root}/{label}/{i}.png", label) for label in range(3) for i in range(20)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return torch.rand(6) * self.rate, self.samples[index][1]


def test_random_transforms_and_another_place_on_disk_keep_the_task(fit: Fit, history: History, tmp_path: Path) -> None:
    fit(Pictures(f"{tmp_path}/flowers", 0.1))
    fit(Pictures("/scratch/me/flowers", 0.5))
    assert is_one_task(history)


def test_the_precision_of_stored_numbers_keeps_the_task(fit: Fit, history: History) -> None:
    fit(rows(200))
    fit(TensorDataset(X[:200].double(), Y[:200]), validation=[DataLoader(rows(64), 64)])
    fit(TensorDataset(X[:200] * (1 + 1e-7), Y[:200]), validation=[DataLoader(rows(64), 64)])
    assert is_one_task(history)


# -- siblings


def test_k_folds_are_siblings(fit: Fit) -> None:
    folds = np.array_split(np.random.default_rng(0).permutation(1400), 5)
    parts = [torch.as_tensor(np.concatenate([fold for j, fold in enumerate(folds) if j != i])) for i in range(3)]
    found = [fit(TensorDataset(X[part], Y[part]), validation=[DataLoader(rows(64), 64)]) for part in parts]
    assert are_siblings(found[0], found[1])
    assert are_siblings(found[1], found[2])


def test_folds_named_by_a_hyperparameter_are_siblings(fit: Fit) -> None:
    data = [Subset(rows(200), range(0, 150)), Subset(rows(200), range(50, 200))]
    first, second = [fit(part, Net(fold=i), validation=[DataLoader(rows(64), 64)]) for i, part in enumerate(data)]
    assert are_siblings(first, second)
    assert sibling_signs(first, second)[0] == "fold 0 against 1"


def test_a_few_rows_more_are_the_task_or_a_sibling(fit: Fit) -> None:
    fewer, more = fit(rows(1398)), fit(rows(1400))
    assert fewer.identity() == more.identity() or are_siblings(fewer, more)
    assert "1,398 rows against 1,400" in sibling_signs(fewer, more)


def test_data_that_grow_daily_are_siblings(fit: Fit) -> None:
    days = [fit(rows(200 + 300 * day)) for day in range(3)]
    assert are_siblings(days[0], days[1])
    assert are_siblings(days[0], days[2])


class Windows(Dataset):
    """Windows of a series, with what comes after each as target."""

    def __init__(self, seq_len: int, pred_len: int) -> None:
        self.seq_len, self.pred_len = seq_len, pred_len
        self.series = torch.sin(torch.arange(300.0))[:, None].repeat(1, 2)

    def __len__(self) -> int:
        return len(self.series) - self.seq_len - self.pred_len

    def __getitem__(self, index: int) -> Any:
        middle = index + self.seq_len
        return self.series[index:middle], self.series[middle : middle + self.pred_len, 0]


@pytest.mark.parametrize("change", [(48, 12), (24, 24)], ids=["input length", "horizon"])
def test_another_input_length_or_horizon_is_a_sibling(fit: Fit, change: tuple[int, int]) -> None:
    first, second = fit(Windows(24, 12)), fit(Windows(*change))
    assert are_siblings(first, second)
    assert first.input_shape == (-1, 2)


@pytest.mark.parametrize(("before", "after"), [((24, 12), (48, 12)), ((24, 12), (24, 36))], ids=["input length", "horizon"])
def test_windows_cut_in_advance_are_siblings(fit: Fit, before: tuple[int, int], after: tuple[int, int]) -> None:
    series = torch.sin(torch.arange(300.0))
    found = []
    for seq_len, horizon in (before, after):
        cut = series.unfold(0, seq_len + horizon, 1)
        found.append(fit(TensorDataset(cut[:, :seq_len], cut[:, seq_len:]), Net(seq_len=seq_len, horizon=horizon)))
    assert are_siblings(*found)
    assert sibling_signs(*found)[0].startswith("length")


# -- different


def are_apart(first: TaskDescription, second: TaskDescription) -> bool:
    return first.identity() != second.identity() and not are_siblings(first, second)


def test_two_tensor_data_sets_of_one_shape_with_other_contents_are_two_tasks(fit: Fit) -> None:
    other = torch.randn(200, 6, generator=torch.Generator().manual_seed(9))
    assert are_apart(fit(rows(200)), fit(TensorDataset(other, Y[:200])))


class Stream(IterableDataset):
    """Made-up samples of a source; reading it more than once would lose some."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)
        self.n_started = 0

    def __iter__(self) -> Any:
        self.n_started += 1
        assert self.n_started <= 1 + 1, "iterated by somebody else than training and validation"
        return iter([(torch.randn(6), torch.tensor(0))] * 64)


def made_from(corpus: str) -> Callable[[], str]:
    def read() -> str:
        return corpus

    return read


def numbers(scale: float) -> Iterator[float]:
    yield scale


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"corpus": "news"}, {"corpus": "books"}),
        ({"urls": ["a/x-000.tar"]}, {"urls": ["a/y-000.tar"]}),
        ({"read": made_from("news")}, {"read": made_from("books")}),
        ({"source": partial(numbers, 1.0)}, {"source": partial(numbers, 2.0)}),
        ({"source": numbers(1.0)}, {"source": numbers(2.0)}),
        ({"noise": 0.1}, {"noise": 0.2}),
    ],
    ids=["text", "files", "closure", "partial", "generator", "number"],
)
def test_two_streams_are_two_tasks(fit: Fit, first: dict[str, Any], second: dict[str, Any]) -> None:
    validation = [DataLoader(rows(64), 64)]
    assert are_apart(fit(Stream(**first), validation=validation), fit(Stream(**second), validation=validation))


class Agent(L.LightningModule):
    """As PPO and DQN are written: the environment is played by the module, and its data are a stream."""

    def __init__(self, where: str, **hparams: Any) -> None:
        super().__init__()
        if where == "hyperparameter":
            self.save_hyperparameters()
        made = gymnasium.make(hparams["env"])
        if where == "attribute":
            self.env = made
        elif where == "vector":
            self.envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(hparams["env"])])
        elif where == "agent":
            self.agent = Player(made)
        elif where == "spec":
            self.spec = made.spec
        self.net = nn.Linear(4, 1)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = self.net(batch[0][:, :4]).square().mean()
        self.log("avg_reward", -loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-2)


class Player:
    """Holds the environment, as agents do."""

    def __init__(self, env: Any) -> None:
        self.env = env


@pytest.mark.parametrize("where", ["hyperparameter", "attribute", "vector", "agent", "spec"])
def test_two_environments_are_two_tasks(fit: Fit, where: str) -> None:
    names = ("CartPole-v1", "MountainCar-v0")
    first, second = [fit(Stream(), Agent(where, env=name), objective="avg_reward", validation=[DataLoader(rows(8), 8)]) for name in names]
    assert are_apart(first, second)


class Table(L.LightningDataModule):
    """A table, of which one column is predicted."""

    def __init__(self, **hparams: Any) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(rows(200), 64)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(rows(64), 64)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"target": "price"}, {"target": "area"}),
        ({"predicted": "sales.csv"}, {"predicted": "visits.csv"}),
        ({"ticker": ["AAPL", "MSFT"]}, {"ticker": ["AAPL", "IBM"]}),
        ({"data_dir": Path("/data/flowers")}, {"data_dir": Path("/data/birds")}),
        ({"subject_id": 3}, {"subject_id": 4}),
    ],
    ids=["target", "file", "list", "folder", "id"],
)
def test_other_target_columns_files_and_ids_are_other_tasks(fit: Fit, first: dict[str, Any], second: dict[str, Any]) -> None:
    assert are_apart(fit(Table(**first)), fit(Table(**second)))


def test_two_projects_that_write_to_results_are_two_tasks(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for project in ("flowers", "birds"):
        (tmp_path / project / "src").mkdir(parents=True)
        script = tmp_path / project / "src" / "train.py"
        script.touch()
        monkeypatch.setattr(sys, "argv", [str(script)])
        for _ in range(2):
            with history.start_run(hparams={"output_dir": "results"}, objective="val_loss") as run:
                run.log(val_loss=0.5)
    assert {task.name: task.n_runs for task in history.tasks()} == {"flowers-train-val_loss": 2, "birds-train-val_loss": 2}


# -- comparable only in order


@pytest.mark.parametrize(
    ("first", "second", "group"),
    [
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.2), {"loss": "CrossEntropyLoss(label_smoothing=0.2)"}),
        (nn.CrossEntropyLoss(), nn.MultiMarginLoss(margin=0.5), {"loss": "MultiMarginLoss(margin=0.5)"}),
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0])), {"loss": "CrossEntropyLoss(weight=[1, 2, 3])"}),
        (cross_entropy, partial(cross_entropy, label_smoothing=0.2), {"loss": "cross_entropy(label_smoothing=0.2)"}),
    ],
    ids=["smoothing", "type", "class weights", "function"],
)
def test_losses_of_another_make_are_comparable_only_in_order(fit: Fit, history: History, first: Any, second: Any, group: Any) -> None:
    assert fit(module=Net(made_loss=first)).comparability == {}
    assert fit(module=Net(made_loss=second)).comparability == group
    assert is_one_task(history)


def test_a_setting_of_the_loss_by_name_makes_runs_comparable_only_in_order(fit: Fit, history: History) -> None:
    assert [fit(module=Net(label_smoothing=value)).comparability for value in (0.0, 0.2)] == [{}, {"label_smoothing": 0.2}]
    assert fit(module=Net(beta=4.0)).comparability == {"beta": 4.0}
    assert is_one_task(history)


def test_two_limits_of_the_validation_are_comparable_only_in_order(fit: Fit, history: History) -> None:
    data = DataLoader(rows(640), 64)
    limited = [fit(validation=[data], limit_val_batches=limit).comparability for limit in (2, 4, 1.0)]
    assert limited == [{"validation": limited[0]["validation"]}, {"validation": limited[1]["validation"]}, {}]
    assert limited[0] != limited[1]
    assert is_one_task(history)


# -- from an earlier version, and as Hugging Face keeps data


def _written_by_an_earlier_version(dump: Path, path: Path) -> None:
    """Turn the recorded runs of a released schema into trainings of ``Net`` on ``rows(200)``, described as they were then."""
    known = {"dataset_class": "TensorDataset", "n_train": 200, "input_shape": [6], "input_dtype": "float32", "target_shape": []}
    known |= {"target_dtype": "int64", "n_classes": 3, "model_class": "Net", "objective": "val_loss", "direction": "min"}
    identity = json.dumps({**known, "data_hparams": {}})
    raw = sqlite3.connect(path)
    raw.executescript(dump.read_text(encoding="utf-8"))
    with raw:
        raw.execute("UPDATE tasks SET is_named = 0, name = 'TensorDataset-Net-val_loss', objective = 'val_loss', direction = 'min'")
        raw.execute("UPDATE tasks SET identity_json = ?, description_json = ?", (identity, json.dumps(known)))
        raw.execute("UPDATE runs SET objective = 'val_loss', direction = 'min', description_json = ?", (json.dumps(known),))
    raw.close()


@pytest.mark.parametrize("dump", sorted((ROOT / "tests" / "store" / "released").glob("schema_*.sql")), ids=lambda dump: dump.stem)
def test_runs_of_an_earlier_version_are_siblings_and_stay_as_they_are(dump: Path, tmp_path: Path) -> None:
    path = tmp_path / "earlier.db"
    _written_by_an_earlier_version(dump, path)
    with History(path) as history:
        (old,), before = history.tasks(), repr(history.runs())
        options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(max_epochs=1, callbacks=[MetaHPCallback("val_loss", history=history)], default_root_dir=tmp_path, **options)
        trainer.fit(Net(), DataLoader(rows(200), 64), DataLoader(rows(64), 64))
        new = history.runs()[-1]
        assert new.task_id != old.id
        ours, theirs = TaskDescription.from_dict(new.description), TaskDescription.from_dict(old.description)
        assert are_siblings(ours, theirs)
        assert "earlier version" in sibling_signs(ours, theirs)[-1]
        assert repr(history.runs()[:2]) == before
        assert history.task(old.id) == old
        found = recommend(history, task=ours, space={"learning_rate": [1e-2, 1e-1]}, current={"learning_rate": 1e-2})[0]
        assert (found.evidence.n_siblings, found.evidence.n_sibling_runs) == (1, 2)


def test_a_script_that_an_earlier_version_recorded_goes_on_in_its_task(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/train.py"])  # whose folder says nothing, as earlier versions knew none
    with history.start_run(objective="val_loss") as run:
        run.log(val_loss=0.5)
    monkeypatch.setattr(sys, "argv", ["/srv/flowers/train.py"])
    with history.start_run(objective="val_loss") as again:
        again.log(val_loss=0.4)
    assert again.task_id == run.task_id


def table(columns: dict[str, Any], **classes: list[str]) -> Any:
    features = {name: datasets.ClassLabel(names=classes[name]) if name in classes else datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def described(data: Any) -> TaskDescription:
    return TaskDescription(**describe_dataset(data), model_class="Bert", objective="eval_loss", direction="min")


TEXTS = [f"{word} {number}" for number in range(40) for word in ("warm", "cold", "green")]


def test_single_sentences_and_pairs_with_other_label_names_are_two_tasks() -> None:
    labels = [i % 2 for i in range(len(TEXTS))]
    mood = table({"sentence": TEXTS, "label": labels}, label=["sad", "glad"])
    follows = table({"first": TEXTS, "second": TEXTS[::-1], "label": labels}, label=["follows", "does_not"])
    assert are_apart(described(mood), described(follows))
    renamed = table({"sentence": TEXTS, "label": labels}, label=["cold", "warm"])
    assert are_apart(described(mood), described(renamed))


def test_what_a_tokenizer_adds_and_how_rows_are_shuffled_keep_the_task() -> None:
    data = table({"sentence": TEXTS, "label": [i % 2 for i in range(len(TEXTS))]}, label=["sad", "glad"])
    tokenized = data.map(lambda row: {"input_ids": [len(row["sentence"])] * 3, "attention_mask": [1, 1, 1]})
    alike = [data, tokenized, data.shuffle(seed=1), data.train_test_split(0.2, seed=2)["train"], tokenized.shuffle(seed=3)]
    assert len({json.dumps(described(item).identity(), sort_keys=True) for item in alike}) == 1


def test_one_language_or_class_of_the_data_is_another_task_than_another() -> None:
    languages = [("de", "fr", "it")[i % 3] for i in range(600)]
    data = table({"sentence": [f"{i} {i * i}" for i in range(600)], "language": languages})
    german, french = (data.filter(lambda row, wanted=wanted: row["language"] == wanted) for wanted in ("de", "fr"))
    assert are_apart(described(german), described(french))
    assert are_apart(described(german), described(data))
    low, high = (Subset(rows(600), [i for i in range(600) if Y[i] in labels]) for labels in ((0, 1), (1, 2)))
    assert are_apart(described(low), described(high))
    halves = random_split(rows(600), [300, 300], generator=torch.Generator().manual_seed(1))
    assert described(halves[0]).identity() == described(halves[1]).identity() == described(rows(600)).identity()


# -- the page


def test_every_row_of_the_page_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(table) >= 20
    known = {name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))}
    assert {name for line in table for name in re.findall(r"`(test_\w+)`", line)} <= known
    here = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), flags=re.MULTILINE))
    unnamed = {name for name in here if f"`{name}`" not in page} - {"test_every_row_of_the_page_names_tests_that_exist"}
    assert not unnamed
