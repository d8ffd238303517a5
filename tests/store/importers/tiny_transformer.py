"""The smallest model that ``transformers.Trainer`` trains."""

from __future__ import annotations

import torch


class TinyTransformer(torch.nn.Module):
    """One layer with a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor | None = None, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.layer(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def rows() -> list[dict[str, object]]:
    """Return eight rows for it."""
    return [{"x": torch.ones(4), "labels": index % 2} for index in range(8)]
