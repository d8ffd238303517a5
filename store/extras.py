"""Packages that only some features need, and the one sentence that names the command where such a package is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from store.errors import MissingDependencyError

EXTRA_OF = {
    "lightning": "lightning",
    "jsonargparse": "lightning",
    "transformers": "hf",
    "accelerate": "hf",
    "plotly": "report",
    "jinja2": "report",
    "matplotlib": "report",
    "pyarrow": "import",
    "yaml": "import",
    "tensorboard": "import",
    "datasets": "import",
    "openml": "import",
    "arff": "import",
    "mlflow": "import",
    "sklearn": "bench",
    "torchmetrics": "bench",
    "cmaes": "bench",
    "tokenizers": "bench",
    "huggingface_hub": "bench",
    "PIL": "bench",
    "schedulefree": "bench",
    "prodigyopt": "bench",
    "ray": "ray",
}
"""Import name -> the extra of our distribution that installs it, as in ``pyproject.toml``."""


@contextmanager
def needed_for(purpose: str, *, extra: str | None = None, otherwise: str = "") -> Iterator[None]:
    """Name the command that installs an optional package where an import inside the block does not find it.

    Args:
        purpose: What needs the package; the sentence begins with it.
        extra: The extra to name; None: the one of ``EXTRA_OF``.
        otherwise: A way that does without the package, if there is one.

    Raises:
        MissingDependencyError: If a package of an extra cannot be imported. Other failures pass as they are.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        raise MissingDependencyError(
            f"{purpose} needs {package}, which cannot be imported: {error}. "
            f"Install it with: pip install 'lightning-metahp[{extra or EXTRA_OF[package]}]'{otherwise and f'; or {otherwise}'}"
        ) from error
