"""T5 that answers a review with a word: ``python -m examples.huggingface.t5_sequence_to_sequence``.

``--data`` takes a Parquet file with columns ``text`` and ``label``; ``--hub`` fine-tunes google-t5/t5-small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from examples.huggingface.running import finished, from_hub, parse, reviews, trained_tokenizer, training_options
from hf_callbacks import MetaHPCallback, autoconfig

HUB = "google-t5/t5-small"
ANSWERS = ("bad", "good")


def main(arguments: Sequence[str] | None = None) -> Seq2SeqTrainer:
    """Train once and return the Trainer."""
    options = parse(__doc__, arguments)
    train, test = reviews(options.data, options.samples, options.samples // 2)
    if options.hub:
        tokenizer = from_hub(AutoTokenizer.from_pretrained, HUB)
        model = from_hub(AutoModelForSeq2SeqLM.from_pretrained, HUB)
    else:
        tokenizer = trained_tokenizer([text for text, _ in train] + list(ANSWERS))
        config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
        config.pad_token_id = config.decoder_start_token_id = tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
        model = T5ForConditionalGeneration(config)

    def rows(part: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        read = [(tokenizer(text, truncation=True, max_length=64), tokenizer(ANSWERS[label])["input_ids"]) for text, label in part]
        return [{**source, "labels": [*answer, tokenizer.eos_token_id]} for source, answer in read]

    train_rows, test_rows = rows(train), rows(test)
    args = autoconfig(Seq2SeqTrainingArguments(**training_options(options)), model=model, train_dataset=train_rows, history=options.history)
    callback = MetaHPCallback(history=options.history)
    trainer = Seq2SeqTrainer(
        model,
        args,
        train_dataset=train_rows,
        eval_dataset=test_rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        callbacks=[callback],
    )
    trainer.train()
    finished(callback.run_id)
    return trainer


if __name__ == "__main__":
    main()
