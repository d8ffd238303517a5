"""What an object of Lightning is, under either name of the package.

``lightning.pytorch`` and ``pytorch_lightning`` are one framework installed twice: equal sources, different classes. A callback of ours
works under both, so it must not ask for a class of one of them.
"""

from __future__ import annotations

from typing import Any

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def base_of(cls: type, *names: str) -> type | None:
    """Return the class of Lightning with one of these names that a class is or derives from, None if there is none."""
    return next((base for base in cls.__mro__ if base.__name__ in names and base.__module__.startswith(_PACKAGES)), None)


def is_kind(item: object, *names: str) -> bool:
    """Say whether an object is an instance of Lightning's class of one of these names."""
    return base_of(type(item), *names) is not None


def overrides(item: Any, method: str) -> bool:
    """Say whether a module or datamodule has its own version of a hook, on its class or on itself."""
    base = base_of(type(item), "LightningModule", "LightningDataModule")
    return method in vars(item) or (base is not None and getattr(type(item), method, None) is not getattr(base, method, None))
