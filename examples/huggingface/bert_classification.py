"""BERT that tells good reviews from bad ones: ``python -m examples.huggingface.bert_classification``.

``--data`` takes a Parquet file with columns ``text`` and ``label``; ``--hub`` fine-tunes google-bert/bert-base-uncased.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from examples.huggingface.running import accuracy, finished, from_hub, parse, reviews, trained_tokenizer, training_options
from hf_callbacks import MetaHPCallback, autoconfig

HUB = "google-bert/bert-base-uncased"


def main(arguments: Sequence[str] | None = None) -> Trainer:
    """Train once and return the Trainer."""
    options = parse(__doc__, arguments)
    train, test = reviews(options.data, options.samples, options.samples // 2)
    if options.hub:
        tokenizer = from_hub(AutoTokenizer.from_pretrained, HUB)
        model = from_hub(AutoModelForSequenceClassification.from_pretrained, HUB, num_labels=2)
    else:
        tokenizer = trained_tokenizer(text for text, _ in train)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        model = BertForSequenceClassification(
            BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id, **sizes)
        )
    rows = [[{**tokenizer(text, truncation=True), "labels": label} for text, label in part] for part in (train, test)]

    # The two lines that matter: what you do not set is chosen by your history, and the run goes into it.
    args = autoconfig(TrainingArguments(**training_options(options)), model=model, train_dataset=rows[0], history=options.history)
    callback = MetaHPCallback(history=options.history)

    trainer = Trainer(
        model,
        args,
        train_dataset=rows[0],
        eval_dataset=rows[1],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    trainer.train()
    finished(callback.run_id)
    return trainer


if __name__ == "__main__":
    main()
