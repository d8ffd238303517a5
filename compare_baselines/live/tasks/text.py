"""Text: IMDB reviews classified as good or bad by BERT (Devlin et al. 2019), through ``transformers.Trainer``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import binary_accuracy, binary_f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from compare_baselines.live.data import load_reviews, no_hub
from compare_baselines.live.tasks.base import LiveTask, Training
from compare_baselines.live.tasks.trainer import train_with_trainer
from store.errors import InvalidArgumentError

HUB_MODEL = "google-bert/bert-base-uncased"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True)
class TextScale:
    """What a size means: reviews of each split, tokens of each review, the model's dimensions (None: the pre-trained one)."""

    n_train: int
    n_val: int
    n_test: int
    n_tokens: int
    vocabulary: int = 0
    model: Mapping[str, Any] | None = None


_TINY_BERT: Mapping[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
_SMALL_BERT: Mapping[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
TEXT_SCALES = {
    "tiny": TextScale(1000, 500, 500, 48, 2000, _TINY_BERT),
    "small": TextScale(4000, 1500, 2000, 96, 8000, _SMALL_BERT),  # "BERT-Tiny" of Turc et al. (2019)
    "full": TextScale(22_500, 2_500, 25_000, 512),
}


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised reviews."""

    def __init__(self, encoded: Sequence[Mapping[str, Any]], labels: Sequence[int]) -> None:
        self.encoded = encoded
        self.labels = list(labels)

    def __len__(self) -> int:
        """Return the number of reviews."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return token ids, mask and label."""
        return {**self.encoded[index], "labels": self.labels[index]}


class Text(LiveTask):
    """BERT on IMDB."""

    name = "text"
    about = "IMDB reviews, BERT sequence classification"
    objective = "accuracy"
    direction = "max"
    metrics = ("accuracy", "f1")
    logged_objective = "eval_accuracy"
    grid = {"learning_rate": (2e-5, 3e-5, 5e-5), "batch_size": (16, 32, 64), "epochs": (3, 4, 5)}  # noqa: RUF012  # fixed
    defaults = {"learning_rate": 5e-5, "batch_size": 8, "epochs": 3}  # noqa: RUF012  # those of TrainingArguments
    same_data = ("imdb", "live text")
    model_family = "transformer"
    optimizer = "adamw_torch"

    def is_pretrained(self, size: str) -> bool:
        """Say yes where the real BERT is fine-tuned."""
        return TEXT_SCALES[size].model is None

    def prepare(self, training: Training) -> None:
        """Tokenise."""
        _prepared(training.folder, training.size, training.seed)

    def train(self, config: Mapping[str, Any], training: Training) -> None:
        """Fine-tune the pre-trained model, or train the small one from scratch."""
        tokenizer, *data = _prepared(training.folder, training.size, training.seed)
        scale = TEXT_SCALES[training.size]
        train_with_trainer(
            self,
            config,
            training,
            make_model=lambda: _model(scale, tokenizer),
            data=(data[0], data[1], data[2]),
            compute_metrics=_metrics,
            data_collator=DataCollatorWithPadding(tokenizer),
            bf16=training.size == "full" and torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        )


def _metrics(prediction: Any) -> dict[str, float]:
    """Return accuracy and F1 of good reviews."""
    logits, labels = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
    if not torch.isfinite(logits).all():
        return {"accuracy": float("nan"), "f1": float("nan")}
    guess = logits.argmax(dim=1)
    return {"accuracy": float(binary_accuracy(guess, labels)), "f1": float(binary_f1_score(guess, labels))}


@lru_cache(maxsize=2)
def _prepared(folder: Path | None, size: str, seed: int) -> tuple[PreTrainedTokenizerBase, Rows, Rows, Rows]:
    """Return tokenizer, training, validation and test part; the seed decides which reviews train and which validate."""
    scale = TEXT_SCALES[size]
    reviews = load_reviews(folder)
    order = np.random.default_rng(seed).permutation(len(reviews.train))
    n_val = min(scale.n_val, len(order) // 4)
    train = [reviews.train[i] for i in order[n_val : n_val + scale.n_train]]
    val = [reviews.train[i] for i in order[:n_val]]
    drawn = np.random.default_rng(0).permutation(len(reviews.test))[: scale.n_test]
    tokenizer = _tokenizer(scale, (text for text, _ in train))
    return (tokenizer, *(_encoded(tokenizer, part) for part in (train, val, [reviews.test[i] for i in drawn])))  # type: ignore[return-value]


def _encoded(tokenizer: PreTrainedTokenizerBase, rows: Sequence[tuple[str, int]]) -> Rows:
    found = tokenizer([text for text, _ in rows], truncation=True)
    names = [name for name in ("input_ids", "attention_mask") if name in found]
    return Rows([{name: found[name][i] for name in names} for i in range(len(rows))], [label for _, label in rows])


def _tokenizer(scale: TextScale, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Return BERT's own tokenizer, or a WordPiece one trained on these texts alone."""
    if scale.model is None:
        try:
            pretrained: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(HUB_MODEL, model_max_length=scale.n_tokens)
        except Exception as error:  # the hub's client has many errors for a missing network
            raise InvalidArgumentError(no_hub(HUB_MODEL, error)) from error
        return pretrained
    from tokenizers import BertWordPieceTokenizer

    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=scale.vocabulary, special_tokens=list(SPECIAL), show_progress=False)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    made: Callable[..., PreTrainedTokenizerBase] = PreTrainedTokenizerFast
    return made(tokenizer_object=trained._tokenizer, model_max_length=scale.n_tokens, **names)


def _model(scale: TextScale, tokenizer: PreTrainedTokenizerBase) -> Any:
    if scale.model is None:
        try:
            return AutoModelForSequenceClassification.from_pretrained(HUB_MODEL, num_labels=2)
        except Exception as error:  # as above
            raise InvalidArgumentError(no_hub(HUB_MODEL, error)) from error
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=scale.n_tokens, pad_token_id=tokenizer.pad_token_id, **dict(scale.model)
    )
    return BertForSequenceClassification(config)
