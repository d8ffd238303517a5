"""What the examples share: their command line, their data, and one clear sentence where the hub cannot be reached."""

from __future__ import annotations

import argparse
import io
import random
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import torch
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

Model = TypeVar("Model")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def parse(description: str | None, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line every example has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--hub", action="store_true", help="fine-tune the real model of the Hugging Face hub instead of a tiny one")
    parser.add_argument("--data", type=Path, help="file with the data (see the example); without it a small made-up set is used")
    parser.add_argument("--samples", type=int, default=512, help="samples to train on")
    parser.add_argument("--epochs", type=float, default=2, help="epochs to train")
    parser.add_argument("--learning-rate", type=float, help="your own choice; left out, the history chooses")
    parser.add_argument("--output-dir", default="out", help="where checkpoints go")
    parser.add_argument("--history", help="history to learn from and to write to; default: your own")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    return parser.parse_args(arguments)


def training_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the training arguments that follow from the command line; only what was said is passed, the rest may be tuned."""
    chosen = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    return {
        "output_dir": options.output_dir,
        "num_train_epochs": options.epochs,
        "use_cpu": options.cpu,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "logging_steps": 10,
        "report_to": "none",
        **chosen,
    }


def from_hub(load: Callable[..., Model], name: str, **options: Any) -> Model:
    """Load a model, a tokenizer or an image processor from the hub or its cache, or leave with one sentence."""
    away = hub_out_of_reach()
    if away:
        options["local_files_only"] = True  # the hub's client would try for a minute and say so thirty times
    try:
        return load(name, **options)
    except Exception as error:  # the hub's client has many ways to say that there is no network
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = f"{away} cannot be reached, and it is not in the cache." if away else reason
        sys.exit(
            f"{name} could not be loaded from the Hugging Face hub: {reason}\nWithout --hub the example runs offline with a tiny model; "
            "behind a proxy set HF_ENDPOINT, or download the model once and it is taken from the cache."
        )


def hub_out_of_reach() -> str:
    """Return the hub's host where no connection to it can be made, else nothing; behind a proxy nobody knows before trying."""
    if constants.HF_HUB_OFFLINE or getproxies():
        return ""
    url = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=5).close()
    except OSError:
        return str(url.hostname)
    return ""


def finished(run_id: str | None) -> None:
    """Say where to look."""
    print(f"Recorded as run {run_id}; see it with: metahp show {run_id}")


def reviews(path: Path | None, n_train: int, n_eval: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return reviews with their label, 1 for a good one.

    Args:
        path: A Parquet file with columns ``text``, ``label`` and, if it has one, ``split``; None for made-up reviews.
        n_train: Reviews to train on.
        n_eval: Reviews to evaluate on.
    """
    if path is None:
        made = _made_up_reviews(n_train + n_eval)
        return made[:n_train], made[n_train:]
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    if not {"text", "label"} <= set(table.column_names):
        sys.exit(f"{path} must have the columns text and label, but has {', '.join(table.column_names)}.")
    rows = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    splits = table["split"].to_pylist() if "split" in table.column_names else ["train"] * (len(rows) - n_eval) + ["test"] * n_eval
    train = [row for row, split in zip(rows, splits, strict=True) if split == "train"]
    test = [row for row, split in zip(rows, splits, strict=True) if split != "train"]
    order = random.Random(0)
    return order.sample(train, min(n_train, len(train))), order.sample(test, min(n_eval, len(test)))


def _made_up_reviews(n: int) -> list[tuple[str, int]]:
    draw = random.Random(0)
    words = {
        0: ["dull", "boring", "weak", "awful", "noisy", "clumsy", "empty"],
        1: ["bright", "moving", "strong", "lovely", "witty", "honest", "rich"],
    }
    neutral = ["the", "film", "story", "actor", "scene", "music", "ending", "was", "and", "of", "with", "a", "in", "this", "plot", "very"]
    found = []
    for _ in range(n):
        label = draw.randrange(2)
        # One review in twenty praises what it means to blame.
        meant = label if draw.random() > 0.05 else 1 - label
        text = draw.choices(neutral, k=draw.randrange(6, 18)) + draw.choices(words[meant], k=3)
        draw.shuffle(text)
        found.append((" ".join(text), label))
    return found


def trained_tokenizer(texts: Iterable[str], vocab_size: int = 2000, max_length: int = 64) -> PreTrainedTokenizerFast:
    """Train a small tokenizer on some texts, as one would for a language of one's own."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, eos_token="[SEP]", **names)


def images(path: Path | None, n_train: int, n_eval: int) -> tuple[list[tuple[np.ndarray, int]], list[tuple[np.ndarray, int]], list[str]]:
    """Return images of 32 x 32 pixels, ``(32, 32, 3)`` bytes each, with their label, and the names of the classes.

    Args:
        path: A NumPy archive with packed JPEGs: ``train_bytes``, ``train_offsets``, ``y_train``, the same for ``test``, ``classes``;
            None for made-up images.
        n_train: Images to train on.
        n_eval: Images to evaluate on.
    """
    if path is None:
        made = [_made_up_image(index) for index in range(n_train + n_eval)]
        return made[:n_train], made[n_train:], ["horizontal", "vertical"]
    from PIL import Image

    archive = np.load(path)

    def part(name: str, n: int) -> list[tuple[np.ndarray, int]]:
        packed, offsets, labels = archive[f"{name}_bytes"], archive[f"{name}_offsets"], archive[f"y_{name}"]
        chosen = random.Random(0).sample(range(len(labels)), min(n, len(labels)))
        return [
            (np.asarray(Image.open(io.BytesIO(packed[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB")), int(labels[i]))
            for i in chosen
        ]

    return part("train", n_train), part("test", n_eval), [str(name) for name in archive["classes"]]


def _made_up_image(index: int) -> tuple[np.ndarray, int]:
    noise = np.random.default_rng(index)
    label = index % 2
    pixels = noise.integers(0, 90, (32, 32, 3))
    at = int(noise.integers(4, 24))
    if label:
        pixels[:, at : at + 4] += 120
    else:
        pixels[at : at + 4] += 120
    return pixels.astype(np.uint8), label


class Pixels(torch.utils.data.Dataset):
    """Images as a model takes them: ``pixel_values`` of shape ``(3, 32, 32)`` around zero."""

    def __init__(self, rows: Sequence[tuple[np.ndarray, int]], prepare: Callable[[np.ndarray], torch.Tensor] | None = None) -> None:
        self.rows = rows
        self.labels = [label for _, label in rows]
        self.prepare = prepare or (lambda pixels: torch.tensor(pixels).permute(2, 0, 1).float() / 127.5 - 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.prepare(self.rows[index][0]), "labels": self.labels[index]}


def accuracy(prediction: Any) -> dict[str, float]:
    """Return the share of right answers of a classifier."""
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}
