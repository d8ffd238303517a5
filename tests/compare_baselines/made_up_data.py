"""Small made-up data in the files that the live tasks read, so that no test needs the real ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

GOOD, BAD = ("lovely", "witty", "moving"), ("dull", "weak", "noisy")
NEUTRAL = ("the", "film", "was", "a", "story", "of", "and", "scene")


def write_data(folder: Path) -> Path:
    """Write the four files and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    _reviews(folder / "imdb.parquet", rng)
    _images(folder / "cifar10_jpeg.npz", rng)
    _passengers(folder / "titanic.csv", rng)
    _load(folder / "electricity.csv", rng)
    return folder


def _reviews(path: Path, rng: np.random.Generator) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    labels = rng.integers(0, 2, 160)
    texts = [" ".join([*rng.choice(NEUTRAL, 8), *rng.choice(GOOD if label else BAD, 3)]) for label in labels]
    parts = ["train"] * 120 + ["test"] * 40
    parquet.write_table(pa.table({"split": parts, "text": texts, "label": [int(label) for label in labels]}), path)


def _images(path: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    arrays = {}
    for part, n in (("train", 120), ("test", 40)):
        labels = rng.integers(0, 10, n)
        files = []
        for label in labels:
            pixels = rng.integers(0, 60, (32, 32, 3))
            pixels[3 * label : 3 * label + 3] += 150
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, format="JPEG")
            files.append(buffer.getvalue())
        arrays[f"{part}_bytes"] = np.frombuffer(b"".join(files), dtype=np.uint8)
        arrays[f"{part}_offsets"] = np.concatenate([[0], np.cumsum([len(file) for file in files])])
        arrays[f"y_{part}"] = labels
    np.savez(path, classes=[str(i) for i in range(10)], **arrays)


def _passengers(path: Path, rng: np.random.Generator) -> None:
    lines = ["PassengerId,Survived,Pclass,Name,Sex,Age,SibSp,Parch,Ticket,Fare,Cabin,Embarked"]
    for i in range(150):
        sex = rng.choice(["male", "female"])
        survived = int(rng.random() < (0.75 if sex == "female" else 0.2))
        age = "" if rng.random() < 0.2 else str(int(rng.integers(1, 80)))
        harbour = "" if i == 7 else rng.choice(["S", "C", "Q"])
        lines.append(
            f'{i},{survived},{rng.integers(1, 4)},"Name, {i}",{sex},{age},{rng.integers(0, 3)},0,T{i},{rng.integers(5, 90)},,{harbour}'
        )
    path.write_text("\n".join(lines) + "\n")


def _load(path: Path, rng: np.random.Generator) -> None:
    hours = np.arange(24 * 7 * 14)
    is_weekend = hours // 24 % 7 >= 5
    load = 100 + 20 * np.sin(2 * np.pi * hours / 24) * np.where(is_weekend, 0.3, 1.0) - 25 * is_weekend + rng.normal(0, 2, len(hours))
    lines = [f"2024-01-01 {hour % 24:02d}:00,{value:.2f},0" for hour, value in zip(hours, load, strict=True)]
    path.write_text("datetime,load_mw,imputed\n" + "\n".join(lines) + "\n")
