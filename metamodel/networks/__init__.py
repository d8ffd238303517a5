"""The kinds ``direct``, ``maml`` and ``reptile``."""
