"""GPT-2 that learns to write like its readers: ``python -m examples.huggingface.gpt2_language_model``.

``--data`` takes a Parquet file with columns ``text`` and ``label``; ``--hub`` fine-tunes openai-community/gpt2.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

from examples.huggingface.running import finished, from_hub, parse, reviews, trained_tokenizer, training_options
from hf_callbacks import MetaHPCallback, autoconfig

HUB = "openai-community/gpt2"
BLOCK = 32
"""Tokens of one sample."""


def main(arguments: Sequence[str] | None = None) -> Trainer:
    """Train once and return the Trainer."""
    options = parse(__doc__, arguments)
    train, test = reviews(options.data, options.samples, options.samples // 2)
    if options.hub:
        tokenizer = from_hub(AutoTokenizer.from_pretrained, HUB)
        tokenizer.pad_token = tokenizer.eos_token
        model = from_hub(AutoModelForCausalLM.from_pretrained, HUB)
    else:
        tokenizer = trained_tokenizer(text for text, _ in train)
        sizes = {"n_positions": BLOCK, "n_embd": 32, "n_layer": 2, "n_head": 2}
        ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends))

    def blocks(part: Sequence[tuple[str, int]]) -> list[dict[str, list[int]]]:
        # verbose=False: whole reviews are longer than the model's context, and are cut into blocks right here.
        stream = [token for text, _ in part for token in [*tokenizer(text, verbose=False)["input_ids"], tokenizer.eos_token_id]]
        return [{"input_ids": stream[i : i + BLOCK]} for i in range(0, len(stream) - BLOCK, BLOCK)]

    train_blocks, test_blocks = blocks(train), blocks(test)
    args = autoconfig(TrainingArguments(**training_options(options)), model=model, train_dataset=train_blocks, history=options.history)
    callback = MetaHPCallback(history=options.history)
    trainer = Trainer(
        model,
        args,
        train_dataset=train_blocks,
        eval_dataset=test_blocks,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=[callback],
    )
    trainer.train()
    finished(callback.run_id)
    return trainer


if __name__ == "__main__":
    main()
