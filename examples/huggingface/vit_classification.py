"""A vision transformer on small images: ``python -m examples.huggingface.vit_classification``.

``--data`` takes a NumPy archive of packed JPEGs (see ``running.images``); ``--hub`` fine-tunes google/vit-base-patch16-224-in21k.
The model is built by ``model_init``, so ``apply`` may choose its dropout and its number of layers as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from examples.huggingface.running import Pixels, accuracy, finished, from_hub, images, parse, training_options
from hf_callbacks import MetaHPCallback, apply

HUB = "google/vit-base-patch16-224-in21k"


def main(arguments: Sequence[str] | None = None) -> Trainer:
    """Train once and return the Trainer."""
    options = parse(__doc__, arguments)
    train, test, classes = images(options.data, options.samples, options.samples // 2)
    space: dict[str, Any] = {"learning_rate": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3], "per_device_train_batch_size": [8, 16, 32]}
    prepare = None
    if options.hub:
        processor = from_hub(AutoImageProcessor.from_pretrained, HUB)
        prepare = lambda pixels: processor(pixels, return_tensors="pt")["pixel_values"][0]  # noqa: E731
    else:
        space |= {"hidden_dropout_prob": [0.0, 0.1, 0.2], "num_hidden_layers": [1, 2, 3]}

    def model_init() -> Any:
        if options.hub:
            return from_hub(AutoModelForImageClassification.from_pretrained, HUB, num_labels=len(classes))
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        return ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=len(classes), **sizes))

    callback = MetaHPCallback("accuracy", history=options.history)
    trainer = Trainer(
        model_init=model_init,
        args=TrainingArguments(**training_options(options)),
        train_dataset=Pixels(train, prepare),
        eval_dataset=Pixels(test, prepare),
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    apply(trainer, space=space)
    trainer.train()
    finished(callback.run_id)
    return trainer


if __name__ == "__main__":
    main()
