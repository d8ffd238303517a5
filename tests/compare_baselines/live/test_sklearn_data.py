import numpy as np
import pytest
import torch

from compare_baselines.live.sklearn_data import DATASETS, DemoData, load_dataset
from store import InvalidArgumentError


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_loads_with_as_many_targets_as_samples(name):
    data = load_dataset(name)
    assert len(data.inputs) == len(data.targets) >= 150
    assert data.inputs.dtype == np.float32
    assert data.objective == ("val_loss" if name == "diabetes" else "val_acc")


def test_an_unknown_data_set_is_answered_with_those_there_are():
    with pytest.raises(InvalidArgumentError, match=r"must be one of breast_cancer, .*, wine, but got 'mnist'\. Use one of these names\."):
        load_dataset("mnist")


def test_the_photos_cannot_be_told_apart_by_brightness_alone():
    data = load_dataset("photos")
    assert np.abs(data.inputs.mean(axis=(1, 2))).max() < 1e-3


def test_training_inputs_are_standardised_and_validation_is_scaled_by_them():
    data = DemoData("wine")
    data.setup("fit")
    inputs = data.train_set.tensors[0]
    torch.testing.assert_close(inputs.mean(0), torch.zeros(13), atol=0.05, rtol=0)
    assert (data.val_set.tensors[0].mean(0).abs() > 1e-4).any()


def test_equal_seeds_split_equally_and_other_seeds_do_not():
    def validation(seed):
        data = DemoData("iris", seed=seed)
        data.setup("fit")
        return data.val_set.tensors[0]

    assert torch.equal(validation(3), validation(3))
    assert not torch.equal(validation(3), validation(4))


def test_a_batch_size_changed_after_setup_still_counts():
    data = DemoData("iris", batch_size=32)
    data.setup("fit")
    data.hparams["batch_size"] = 16
    assert len(next(iter(data.train_dataloader()))[0]) == 16


def test_loaders_before_setup_say_what_is_missing():
    with pytest.raises(InvalidArgumentError, match=r"Call setup\('fit'\)"):
        DemoData("iris").train_dataloader()
