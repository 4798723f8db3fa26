"""Optimizers for PyTorch with the whole update in one pass over memory.

``onepass.SGD``, ``Adagrad``, ``RMSprop``, ``Adam`` and ``AdamW`` take the place of the classes of the same
name in ``torch.optim``.
"""

from __future__ import annotations

import torch  # before the extension, which shares the OpenMP runtime that torch loads

try:
    from onepass import _core
except ModuleNotFoundError as error:
    message = "The compiled part of onepass is missing: install the package (pip install .)."
    raise ModuleNotFoundError(message) from error

from onepass import augment, schedule, transfer
from onepass.hyper.options import Options
from onepass.optim import SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Options",
    "RMSprop",
    "augment",
    "schedule",
    "transfer",
]
__version__: str = _core.version
