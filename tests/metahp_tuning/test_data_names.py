"""Which names of data enter a task, and which never do."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import gymnasium
import pandas
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from metahp_tuning.data_description import describe_dataset, named_by_hparams
from metahp_tuning.data_names import dataset_names, environment_names, fold_names, hyperparameter_names


class Corpus(Enum):
    NEWS = "news"


@pytest.mark.parametrize(
    ("hparams", "expected"),
    [
        ({"env": "CartPole-v1"}, {"env": "CartPole-v1"}),
        ({"anything": "ALE/Pong-v5"}, {"anything": "ALE/Pong-v5"}),
        ({"anything": "prices.parquet"}, {"anything": "prices.parquet"}),
        ({"corpus": Corpus.NEWS}, {"corpus": "news"}),
        ({"target_columns": ["price", "area"]}, {"target_columns": ["price", "area"]}),
        ({"data": {"name": "cifar10", "batch_size": 4}}, {"data.name": "cifar10"}),
        ({"cfg": Namespace(task_name="mrpc", lr=0.1)}, {"cfg.task_name": "mrpc"}),
        ({"model": {"name": "resnet", "env_id": "Pong"}}, {"model.env_id": "Pong"}),
        ({"data_dir": "/home/me/flowers/data/"}, {"data_dir": "flowers"}),
        ({"data_dir": "/scratch/flowers"}, {"data_dir": "flowers"}),
        ({"root": Path("~/data")}, {}),
        ({"root": tempfile.gettempdir() + "/tmp8f3_k2x/data"}, {}),
        ({"csv_file": "/x/daily_2024-05-01.csv"}, {"csv_file": "daily_.csv"}),
        ({"language": "de", "lang_model": "gpt"}, {"language": "de"}),
        ({"level": 3, "subject_id": 7, "n_levels": 3, "pad_token_id": 1}, {"level": 3, "subject_id": 7}),
    ],
)
def test_what_names_data_enters_under_whatever_name(hparams: dict[str, Any], expected: dict[str, Any]) -> None:
    assert hyperparameter_names(hparams) == expected


@pytest.mark.parametrize(
    "hparams",
    [
        {"output_dir": "/x/results", "log_dir": "logs", "checkpoint_path": "best.pt", "data_cache_dir": "/c"},
        {"optimizer": "adamw", "activation": "gelu", "loss": "huber", "device": "cuda:0", "precision": "bf16", "scheduler": "cosine"},
        {"data_augmentation": "strong", "target_transform": "log", "tokenizer_file": "t.json", "model_path": "m/x"},
        {"api_key": "abc", "data_access_token": "hf_x", "database_password": "p"},
        {"lr": "0.1", "batch_size": "auto", "num_layers": "4", "_target_": "data.csv"},
        {"dataset": "x" * 500, "target": None, "env": ""},
        {"data_weights": torch.ones(3), "data": object(), "columns": [1, 2]},
    ],
)
def test_outputs_secrets_and_what_can_be_tuned_never_enter(hparams: dict[str, Any]) -> None:
    assert hyperparameter_names(hparams) == {}


def test_any_text_of_a_data_module_enters_but_what_may_be_tuned() -> None:
    hparams = {"name": "corners", "pathology": "flu", "augmentation": "strong", "resize": "bicubic", "end": "2024-05-01"}
    assert hyperparameter_names(hparams, ["resize"], are_of_data=True) == {"name": "corners", "pathology": "flu"}
    assert hyperparameter_names({"dataset": "a"}, ["dataset"]) == {}


@pytest.mark.parametrize(
    ("hparams", "expected"),
    [
        ({"fold": 3}, {"fold": 3}),
        ({"cv_fold": "outer-1"}, {"cv_fold": "outer-1"}),
        ({"split_idx": 2}, {"split_idx": 2}),
        ({"split": "3"}, {"split": "3"}),
        ({"split": "train"}, {}),
        ({"n_folds": 5, "num_splits": 5, "val_split": 0.2, "split_seed": 4, "val_split_size": 10}, {}),
    ],
)
def test_a_fold_is_told_from_a_number_of_folds(hparams: dict[str, Any], expected: dict[str, Any]) -> None:
    assert fold_names(hparams) == expected
    assert not hyperparameter_names(hparams).keys() & expected.keys()


def test_a_builder_gives_its_configuration_and_split() -> None:
    info = SimpleNamespace(builder_name="parquet", dataset_name="glue", config_name="sst2")
    loaded = type("Loaded", (Dataset,), {"__getitem__": lambda self, index: index, "__len__": lambda self: 3})()
    loaded.info, loaded.split = info, "train[:10%]"
    assert dataset_names(loaded) == {"builder": "glue", "config": "sst2", "split": "train"}
    info.config_name, info.dataset_name = "default-0123456789abcdef", "csv"
    assert "builder" not in dataset_names(loaded)


def test_the_root_of_a_data_set_is_its_name() -> None:
    class Flowers(Dataset):
        def __init__(self) -> None:
            self.root, self.transform, self.base_folder = "/home/me/data/flowers", str.upper, "jpg-102"
            self.loader, self.text = open, "word " * 400

    assert dataset_names(Flowers()) == {"root": "flowers", "base_folder": "jpg-102"}


def test_a_stream_is_named_by_what_it_holds_and_is_not_read() -> None:
    class Stream(IterableDataset):
        def __init__(self) -> None:
            self.source, self.gain, self.buffer_size, self.seed, self.lr = iter([1, 2]), 0.5, 100, 3, 0.1
            self.lines = (line for line in ["a"])

        def __iter__(self) -> Any:
            raise AssertionError("read")

    stream = Stream()
    found = dataset_names(stream)
    assert found["gain"] == 0.5
    assert not found.keys() & {"buffer_size", "seed", "lr"}
    assert (list(stream.source), list(stream.lines)) == ([1, 2], ["a"])


def test_an_environment_without_an_id_is_called_as_its_class() -> None:
    class Maze:
        action_space = None

        def reset(self) -> None: ...

        def step(self, action: Any) -> None: ...

    assert environment_names(SimpleNamespace(env=Maze())) == {"environment": [Maze.__qualname__]}
    assert environment_names(SimpleNamespace(env=object()), None) == {}


def test_an_environment_is_known_by_its_id_and_settings_whoever_holds_it() -> None:
    lakes = [gymnasium.make("FrozenLake-v1", map_name=size) for size in ("4x4", "8x8")]
    assert environment_names(lakes[0]) != environment_names(lakes[1])
    cart = {"environment": ["CartPole-v1"]}
    assert environment_names(gymnasium.make_vec("CartPole-v1", num_envs=2)) == cart
    assert environment_names(gymnasium.make_vec("CartPole-v1", num_envs=4)) == cart
    assert environment_names(gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")])) == cart
    assert environment_names(SimpleNamespace(env_fns=None, agent=SimpleNamespace(env=gymnasium.make("CartPole-v1")))) == cart
    assert named_by_hparams({"env": lakes[1]}, {})["data_names"] == environment_names(lakes[1])


def test_streams_of_datasets_are_named_by_what_makes_their_examples() -> None:
    def examples(path: str) -> Any:
        raise AssertionError("read")
        yield {"path": path}

    news, books = (datasets.IterableDataset.from_generator(examples, gen_kwargs={"path": f"/x/{name}.txt"}) for name in ("news", "books"))
    assert dataset_names(news)["path"] == "news.txt"
    assert dataset_names(news) != dataset_names(books)
    stream = datasets.Dataset.from_dict({"text": ["a"]}).to_iterable_dataset()
    assert describe_dataset(stream)["schema"] == {"rows": "stream", "columns": {"text": "str"}}


def test_frames_tell_their_columns() -> None:
    class Table(Dataset):
        def __init__(self, frame: pandas.DataFrame) -> None:
            self.frame = frame

        def __len__(self) -> int:
            return len(self.frame)

        def __getitem__(self, index: int) -> Any:
            return torch.tensor([self.frame.price.iloc[index]])

    frame = pandas.DataFrame({"price": [float(i) for i in range(99)], "city": ["a", "b", "c"] * 33})
    found = describe_dataset(Table(frame))
    assert found["schema"]["columns"] == {"city": "str", "price": "float"}
    assert len(found["sketch"]) == 32
