"""transformers' ResNet on small images: ``python -m examples.huggingface.resnet_classification``.

``--data`` takes a NumPy archive of packed JPEGs (see ``running.images``); ``--hub`` fine-tunes microsoft/resnet-18.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
)

from examples.huggingface.running import Pixels, accuracy, finished, from_hub, images, parse, training_options
from hf_callbacks import MetaHPCallback, autoconfig

HUB = "microsoft/resnet-18"


def main(arguments: Sequence[str] | None = None) -> Trainer:
    """Train once and return the Trainer."""
    options = parse(__doc__, arguments)
    train, test, classes = images(options.data, options.samples, options.samples // 2)
    prepare = None
    if options.hub:
        processor = from_hub(AutoImageProcessor.from_pretrained, HUB)
        prepare = lambda pixels: processor(pixels, return_tensors="pt")["pixel_values"][0]  # noqa: E731
        model = from_hub(AutoModelForImageClassification.from_pretrained, HUB, num_labels=len(classes), ignore_mismatched_sizes=True)
    else:
        model = ResNetForImageClassification(
            ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=len(classes))
        )
    train_data, test_data = Pixels(train, prepare), Pixels(test, prepare)
    args = autoconfig(
        TrainingArguments(**training_options(options)),
        model=model,
        train_dataset=train_data,
        objective="accuracy",
        history=options.history,
    )
    callback = MetaHPCallback(history=options.history)
    trainer = Trainer(model, args, train_dataset=train_data, eval_dataset=test_data, compute_metrics=accuracy, callbacks=[callback])
    trainer.train()
    finished(callback.run_id)
    return trainer


if __name__ == "__main__":
    main()
