from __future__ import annotations

import pytest
import torch
from torch import nn

from hf_callbacks.loss_settings import loss_of
from metahp_tuning.objective_definition import described_loss, objective_definition


class Told(nn.Module):
    """Keeps an argument under another name, and tells of it as losses of sentence-transformers do."""

    def __init__(self, metric: object = max, loss_fct: nn.Module | None = None) -> None:
        super().__init__()
        self.function = metric
        self.loss_fct = loss_fct or nn.MSELoss()

    def get_config_dict(self) -> dict[str, object]:
        return {"metric": f"{self.function.__module__}.{self.function.__name__}"}  # type: ignore[attr-defined]


LOSSES = [
    (nn.CrossEntropyLoss(), "CrossEntropyLoss"),
    (nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.tensor([1.0, 2.0])), "CrossEntropyLoss(label_smoothing=0.1, weight=[1, 2])"),
    (nn.HuberLoss(delta=2), "HuberLoss(delta=2)"),
    (nn.HuberLoss(delta=2.0), "HuberLoss(delta=2)"),
    (Told(), "Told"),
    (Told(metric=min, loss_fct=nn.L1Loss()), "Told(loss_fct=L1Loss, metric=min)"),
]


@pytest.mark.parametrize(("loss", "text"), LOSSES)
def test_a_loss_is_described_by_what_is_not_its_default_the_same_for_every_host(loss: nn.Module, text: str) -> None:
    class Trainer:
        compute_loss_func = loss

    assert described_loss(loss) == text
    assert loss_of(Trainer()) == text  # type: ignore[arg-type]


def test_in_a_module_a_plain_loss_is_no_definition_of_its_own() -> None:
    assert objective_definition("val_loss", module=nn.ModuleList([nn.CrossEntropyLoss()])) == {}
    assert objective_definition("val_loss", module=nn.ModuleList([nn.HuberLoss(delta=2.0)])) == {"loss": "HuberLoss(delta=2)"}
