"""A bare PyTorch loop with Accelerate whose learning rate and batch size are tuned: ``python -m examples.suggest.accelerate_loop``.

It learns the digits that come with scikit-learn. Run it a few times: the first run starts from what small networks have in common, each
later one from what the runs before it taught. ``--explore`` tries what would teach most, which is how the first few runs are best made.
With ``accelerate launch`` on several devices all processes train with the same values, and the first one records the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from metahp_tuning import suggest
from store import History


class DigitsNet(nn.Module):
    """One hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return a score for each digit."""
        return self.layers(images)


def digits(samples: int) -> tuple[TensorDataset, TensorDataset]:
    """Return up to 1797 handwritten digits of 8 x 8 pixels, a fifth of them for validation."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:samples]
    images, targets = torch.tensor(pixels[order] / 16, dtype=torch.float32), torch.tensor(labels[order])
    n_val = len(order) // 5
    return TensorDataset(images[n_val:], targets[n_val:]), TensorDataset(images[:n_val], targets[:n_val])


def main(arguments: Sequence[str] | None = None) -> float:
    """Train once and return the share of validation images recognised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1797, help="images to use")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--history", type=Path, help="default: that of METAHP_HISTORY, or of the user")
    parser.add_argument("--explore", action="store_true", help="try what would teach most instead of what is expected to be best")
    options = parser.parse_args(arguments)

    accelerator = Accelerator()
    train, val = digits(options.samples)
    model = DigitsNet()
    config = suggest(
        {"lr": 1e-4, "batch_size": 64, "epochs": options.epochs, "optimizer": "Adam"},
        model=model,
        train_dataset=train,
        objective="val_acc",
        history=options.history,
        mode="explore" if options.explore else "best",
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    train_loader = DataLoader(train, config["batch_size"], shuffle=True)
    model, optimizer, train_loader, val_loader = accelerator.prepare(model, optimizer, train_loader, DataLoader(val, 256))

    with ExitStack() as stack:
        run = None
        if accelerator.is_main_process:
            history = stack.enter_context(History(options.history))
            run = stack.enter_context(history.start_run(hparams=config))
        accuracy = 0.0
        for epoch in range(config["epochs"]):
            model.train()
            for images, labels in train_loader:
                optimizer.zero_grad()
                accelerator.backward(nn.functional.cross_entropy(model(images), labels))
                optimizer.step()
            model.eval()
            with torch.no_grad():
                right = [accelerator.gather_for_metrics(model(images).argmax(1) == labels) for images, labels in val_loader]
            accuracy = float(torch.cat(right).float().mean())
            if run is not None:
                run.log(val_acc=accuracy, epoch=epoch + 1)
    if run is not None:
        print(f"val_acc {accuracy:.3f}; details: metahp show {run.id}")
    return accuracy


if __name__ == "__main__":
    main()
