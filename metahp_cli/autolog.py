"""The entry point that Lightning calls for every Trainer in an environment where we are installed.

It stands here because importing this package imports nothing else: ``lightning_metahp`` checks for hidden packages when it is imported,
and an error there would end a training that does not use us.
"""

from __future__ import annotations

import os
from typing import Any


def callbacks() -> list[Any]:
    """Return the logging callback where ``METAHP_AUTOLOG=1`` asks for it. Off, it imports nothing; it never raises."""
    if "METAHP_AUTOLOG" not in os.environ:  # without it not even `store` is imported, which a file of the user's may hide
        return []
    try:
        import lightning_metahp  # noqa: F401  # looks for files of the user's that hide our packages, `store` among them
        from store.switches import AUTOLOG

        if not AUTOLOG.is_on:
            return []
        from lightning_metahp.autolog import AutoLogCallback

        return [AutoLogCallback()]
    except Exception as error:  # whatever is wrong with our installation must not end a training
        import logging

        logging.getLogger(__name__).warning("metahp: runs are not logged, since %s: %s", type(error).__name__, error)
        return []
