"""The optimizers, and the base that they share."""

from __future__ import annotations

from onepass.optim.adagrad import Adagrad
from onepass.optim.adam import Adam
from onepass.optim.adamw import AdamW
from onepass.optim.optimizer import OnePass
from onepass.optim.rmsprop import RMSprop
from onepass.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "OnePass", "RMSprop"]
