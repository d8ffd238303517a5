"""What is read from data sets, models, optimizers and schedules, and that reading disturbs nothing."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split

from metahp_tuning.class_source import model_variant
from metahp_tuning.data_description import describe_dataset
from metahp_tuning.data_parts import sample_count
from metahp_tuning.random_states import preserved_rng
from metahp_tuning.task_description import (
    describe_module,
    model_class_name,
    model_family,
    model_width,
    parameter_count,
    pretrained_name,
    starts_pretrained,
)
from metamodel.data.task import TaskDescription


def tabular(n: int = 30, n_classes: int = 3) -> TensorDataset:
    return TensorDataset(torch.randn(n, 5), torch.arange(n) % n_classes)


class Listed(Dataset):
    """A map-style data set over given samples."""

    def __init__(self, samples: list[Any], **attributes: Any) -> None:
        self.samples = samples
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def test_a_tensor_data_set_is_described_in_full() -> None:
    found = describe_dataset(tabular())
    assert len(found.pop("sketch")) == 30
    assert found == {
        "dataset_class": "TensorDataset",
        "n_train": 30,
        "input_shape": (5,),
        "input_dtype": "float32",
        "target_shape": (),
        "target_dtype": "int64",
        "n_classes": 3,
        "schema": {"rows": "indexed"},
    }


def test_the_description_fits_a_task_description() -> None:
    assert TaskDescription(**describe_dataset(tabular())).identity()["n_classes"] == 3


@pytest.mark.parametrize(
    ("wrapped", "n"),
    [
        (Subset(tabular(), range(10)), 10),
        (random_split(tabular(), [20, 10])[0], 20),
        (Subset(Subset(tabular(), range(20)), range(7)), 7),
        (ConcatDataset([tabular(), tabular(12)]), 42),
    ],
)
def test_wrappers_are_seen_through(wrapped: Any, n: int) -> None:
    found = describe_dataset(wrapped)
    assert (found["dataset_class"], found["n_train"], found["n_classes"]) == ("TensorDataset", n, 3)


def test_a_class_that_a_split_misses_is_still_counted() -> None:
    dataset = TensorDataset(torch.randn(20, 2), torch.tensor([0, 2, 3] * 6 + [0, 2]))
    assert describe_dataset(dataset)["n_classes"] == 4


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ((np.zeros((28, 28), np.uint8), 3), ((28, 28), "uint8", (), "int64")),
        ({"x": torch.zeros(2), "y": 1.5}, ((2,), "float32", (), "float64")),
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1], "labels": 1}, ((-1,), "int64", (), "int64")),
        ({"text": "some words", "label": 0}, ((-1,), "str", (), "int64")),
        ({"labels": 0, "weird": torch.zeros(3, 4)}, ((3, 4), "float32", (), "int64")),
        ((torch.zeros(3, 8, 8), torch.zeros(8, 8, dtype=torch.int64)), ((3, 8, 8), "float32", (8, 8), "int64")),
        (([1.0, 2.0], True), ((2,), "float64", (), "bool")),
        ((1.0, 2.0), ((), "float64", (), "float64")),
    ],
)
def test_shapes_and_dtypes_of_one_sample(sample: Any, expected: tuple[Any, ...]) -> None:
    found = describe_dataset(Listed([sample] * 4))
    names = ("input_shape", "input_dtype", "target_shape", "target_dtype")
    assert tuple(found[name] for name in names) == expected


def test_a_sample_without_target_has_none() -> None:
    found = describe_dataset(Listed([torch.zeros(3)] * 4))
    known = {"dataset_class": "Listed", "n_train": 4, "input_shape": (3,), "input_dtype": "float32"}
    assert {name: value for name, value in found.items() if name not in ("schema", "sketch")} == known


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"classes": ["cat", "dog"]}, 2),
        ({"targets": [0, 1, 2, 1]}, 3),
        ({"labels": np.array([0, 4, 255, 0])}, 3),
        ({"num_classes": 7}, 7),
        ({}, None),
    ],
)
def test_classes_are_counted_from_what_a_data_set_says(attributes: dict[str, Any], expected: int | None) -> None:
    assert describe_dataset(Listed([(torch.zeros(2), 1)] * 4, **attributes)).get("n_classes") == expected


def test_integers_that_are_no_classes_are_not_counted() -> None:
    assert "n_classes" not in describe_dataset(TensorDataset(torch.randn(50, 2), torch.arange(50)))


def test_real_targets_have_no_classes() -> None:
    assert "n_classes" not in describe_dataset(TensorDataset(torch.randn(50, 2), torch.randn(50)))


def test_a_hugging_face_data_set_is_described_without_its_library() -> None:
    class Dataset(Listed):
        """As ``datasets.Dataset`` looks from outside."""

    features = {"text": SimpleNamespace(dtype="string"), "label": SimpleNamespace(num_classes=2)}
    rows = [{"text": "a b", "label": 1}] * 5
    found = describe_dataset(Dataset(rows, features=features, info=SimpleNamespace(builder_name="imdb")))
    assert found["dataset_class"].endswith("Dataset:imdb")
    assert (found["n_classes"], found["n_train"], found["input_shape"]) == (2, 5, (-1,))
    loaded = describe_dataset(Dataset(rows, features=features, info=SimpleNamespace(builder_name="csv")))
    assert loaded["dataset_class"].endswith("Dataset")


def test_a_stream_is_never_iterated() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            raise AssertionError("iterated")

    assert describe_dataset(Stream()) == {"dataset_class": Stream.__qualname__, "schema": {"rows": "stream"}}


class Endless(IterableDataset):
    """A stream without a length."""

    def __iter__(self) -> Any:
        return iter([])


def test_a_dictionary_of_data_sets_is_as_long_as_all_of_them() -> None:
    first, second = tabular(), tabular(12)
    found = describe_dataset({"a": first, "b": second})
    assert found == {**describe_dataset(first), "n_train": 42, "sketch": found["sketch"]}
    assert set(found["sketch"]) < {*describe_dataset(first)["sketch"], *describe_dataset(second)["sketch"]}
    assert "n_train" not in describe_dataset({"a": tabular(), "b": Endless()})
    assert sample_count({"a": tabular(), "b": tabular(12)}) == 42
    assert sample_count(Endless()) is None


@pytest.mark.parametrize("bad", [None, 3, object(), Listed([]), Listed([object()] * 3), Listed([{}] * 2), Listed([()] * 2)])
def test_nothing_is_too_odd_to_be_described(bad: Any) -> None:
    assert isinstance(describe_dataset(bad), dict)


def test_a_data_set_that_fails_on_reading_leaves_what_is_known() -> None:
    class Broken(Listed):
        def __getitem__(self, index: int) -> Any:
            raise OSError("disk")

    assert describe_dataset(Broken([1, 2])) == {"dataset_class": Broken.__qualname__, "n_train": 2, "schema": {"rows": "indexed"}}


def test_only_one_sample_is_read_and_no_generator_moves() -> None:
    reads: list[int] = []

    class Augmenting(Listed):
        def __getitem__(self, index: int) -> Any:
            reads.append(index)
            return torch.rand(2) + random.random() + np.random.rand(), 0

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    describe_dataset(Augmenting([0] * 5))
    assert draw() == expected
    assert reads.count(0) == 3
    assert len(reads) <= 9


def test_generators_that_a_data_set_keeps_do_not_move() -> None:
    class Noise:
        def __init__(self) -> None:
            self.generator = np.random.default_rng(0)

    class Augmenting(Listed):
        def __init__(self) -> None:
            super().__init__([0] * 5)
            self.torch, self.python, self.legacy = torch.Generator().manual_seed(0), random.Random(0), np.random.RandomState(0)
            self.transforms = [Noise()]
            self.self = self

        def draw(self) -> float:
            drawn = float(torch.rand((), generator=self.torch)) + self.python.random() + self.legacy.rand()
            return drawn + self.transforms[0].generator.random()

        def __getitem__(self, index: int) -> Any:
            return torch.full((2,), self.draw()), 0

    data = Augmenting()
    described = describe_dataset(Subset(data, range(3)))
    assert described["input_shape"] == (2,)
    assert data.draw() == Augmenting().draw()


def test_random_states_are_preserved_through_an_error() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)

    @preserved_rng()
    def draw_and_fail() -> None:
        torch.rand(5)
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        draw_and_fail()
    assert torch.equal(torch.rand(1), expected)


class TinyAttention(nn.Module):
    """Named as in many libraries, without torch's own attention."""


@pytest.mark.parametrize(
    ("module", "family"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "mlp"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(2, 2)), "cnn"),
        (nn.Sequential(nn.LazyConv1d(2, 1), nn.Linear(2, 2)), "cnn"),
        (nn.Sequential(nn.Conv1d(1, 1, 1), nn.LSTM(2, 2), nn.Linear(2, 2)), "rnn"),
        (nn.GRUCell(2, 2), "rnn"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.TransformerEncoderLayer(4, 2, 4)), "transformer"),
        (nn.Sequential(TinyAttention(), nn.Linear(2, 2)), "transformer"),
        (nn.Sequential(type("ChannelAttention", (nn.Module,), {})(), nn.Conv2d(1, 1, 1)), "cnn"),
        (nn.Embedding(3, 2), "other"),
    ],
)
def test_the_family_is_the_most_telling_layer(module: nn.Module, family: str) -> None:
    assert model_family(module) == family


def test_parameters_are_counted_and_lazy_ones_are_none_yet() -> None:
    assert parameter_count(nn.Linear(3, 2)) == 8
    assert parameter_count(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1))) == 5
    assert model_class_name(nn.Linear(1, 1)) == "Linear"


@pytest.mark.parametrize(
    ("module", "width"),
    [
        (nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3)), 64),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 24, 3), nn.Flatten(), nn.Linear(384, 100)), 24),
        (nn.Sequential(nn.GRU(2, 16, 2), nn.Linear(16, 40)), 16),
        (nn.Sequential(nn.TransformerEncoderLayer(8, 2, 64), nn.Linear(8, 1000)), 8),
        (nn.Embedding(3, 2), None),
    ],
)
def test_the_width_is_that_of_the_layers_that_make_the_family(module: nn.Module, width: int | None) -> None:
    assert model_width(module) == width
    assert describe_module(module)["width"] == width


class WithEncoder(nn.Module):
    """A module of a user's own around somebody else's encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(16, 2)


def test_a_module_around_a_loaded_encoder_is_pretrained(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 8}
    made = transformers.BertModel(transformers.BertConfig(**size))
    assert not starts_pretrained(WithEncoder(made))
    made.save_pretrained(tmp_path)
    loaded = WithEncoder(transformers.AutoModel.from_pretrained(tmp_path))
    assert starts_pretrained(loaded)
    assert pretrained_name(loaded) == str(tmp_path)
    found = describe_module(loaded)
    assert (found["is_pretrained"], found["model_family"], found["width"]) == (True, "transformer", 16)


def test_an_encoder_of_a_model_zoo_is_pretrained_once_its_normalisation_is_trained() -> None:
    encoder = nn.Sequential(nn.Conv2d(1, 16, 1), nn.BatchNorm2d(16))
    encoder.pretrained_cfg = {"url": "https://example.com/weights"}  # as timm gives every model, loaded or not
    assert not starts_pretrained(WithEncoder(encoder))
    encoder(torch.randn(4, 1, 2, 2))
    assert starts_pretrained(WithEncoder(encoder))
    assert not starts_pretrained(WithEncoder(nn.BatchNorm1d(3)))


def test_a_module_without_weights_yet_may_be_pretrained_or_not() -> None:
    assert describe_module(nn.Sequential())["is_pretrained"] is None


def from_source(source: str, name: str = "Net") -> nn.Module:
    """Make a model from source text as if it stood in a file."""
    import linecache

    file = f"<source {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = type(random)(f"made_{abs(hash(source))}")
    module.__file__ = file
    import sys

    sys.modules[module.__name__] = module
    exec(compile(source, file, "exec"), vars(module))
    made: nn.Module = vars(module)[name]()
    return made


SOURCE = """
from torch import nn, optim

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)

class Net(nn.Module):
    def __init__(self, lr=0.1, *, width=3):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        return self.block(x) * 2

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=0.1)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return self.block(x) * 2", "return self.block(x) * 2  # a comment"),
        ("class Net(nn.Module):", 'class Net(nn.Module):\n    """A docstring."""\n'),
        ("lr=0.1, *, width=3", "lr=0.5, *, width=9"),
        ("optim.SGD(self.parameters(), lr=0.1)", "optim.SGD(\n            self.parameters(), lr=0.7)"),
    ],
)
def test_the_variant_stays_where_only_looks_or_hyperparameters_change(old: str, new: str) -> None:
    assert model_variant(from_source(SOURCE)) == model_variant(from_source(SOURCE.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return self.block(x) * 2", "return self.block(x) * 3"),
        ("return self.layer(x)", "return self.layer(x).relu()"),
        ("optim.SGD", "optim.Adam"),
    ],
)
def test_the_variant_changes_with_the_code_of_the_model_and_its_parts(old: str, new: str) -> None:
    assert model_variant(from_source(SOURCE)) != model_variant(from_source(SOURCE.replace(old, new)))


def test_a_class_without_source_counts_by_its_name() -> None:
    made = [type(name, (nn.Module,), {"__module__": "nowhere"})() for name in ("A", "A", "B")]
    variants = [model_variant(module) for module in made]
    assert variants[0] == variants[1] != variants[2]
    assert all(len(variant) == 16 for variant in variants)


def test_library_code_alone_has_a_variant_too() -> None:
    assert len(model_variant(nn.Linear(1, 1))) == 16
