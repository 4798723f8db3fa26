"""Models as lists of parameter shapes: an optimizer step sees nothing else of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """A model as its optimizer sees it."""

    name: str
    title: str
    shapes: tuple[Shape, ...]

    @property
    def parameters(self) -> int:
        """How many numbers there are in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes)


def _dense(inputs: int, outputs: int) -> Iterator[Shape]:
    yield outputs, inputs
    yield (outputs,)


def _policy() -> Iterator[Shape]:
    """Actor and critic of PPO for a robot of 17 observations and 6 joints: two hidden layers of 64 each."""
    for head in (6, 1):
        yield from _dense(17, 64)
        yield from _dense(64, 64)
        yield from _dense(64, head)
    yield (6,)  # logarithm of the policy's standard deviation


def _mlp() -> Iterator[Shape]:
    """A classifier of 28 x 28 pictures."""
    yield from _dense(784, 100)
    yield from _dense(100, 64)
    yield from _dense(64, 10)


def _resnet50() -> Iterator[Shape]:
    """He et al., Deep Residual Learning for Image Recognition, 2016, table 1, as in torchvision."""

    def convolution(inputs: int, outputs: int, size: int) -> Iterator[Shape]:
        yield outputs, inputs, size, size
        yield (outputs,)  # batch norm
        yield (outputs,)

    yield from convolution(3, 64, 7)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            yield from convolution(inputs, width, 1)
            yield from convolution(width, width, 3)
            yield from convolution(width, 4 * width, 1)
            if block == 0:
                yield from convolution(inputs, 4 * width, 1)
            inputs = 4 * width
    yield from _dense(2048, 1000)


def _gpt2() -> Iterator[Shape]:
    """Radford et al., Language Models are Unsupervised Multitask Learners, 2019: the smallest, tied head."""
    width = 768
    yield 50257, width
    yield 1024, width
    for _ in range(12):
        for inputs, outputs in ((1, 3), (1, 1), (1, 4), (4, 1)):
            if (inputs, outputs) in (
                (1, 3),
                (1, 4),
            ):  # a layer norm before attention and before the MLP
                yield (width,)
                yield (width,)
            yield inputs * width, outputs * width
            yield (outputs * width,)
    yield (width,)
    yield (width,)


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("policy", "RL policy", tuple(_policy())),
        Model("small1000", "1000 x 64", ((64,),) * 1000),
        Model("mlp", "MLP", tuple(_mlp())),
        Model("resnet50", "ResNet-50", tuple(_resnet50())),
        Model("tensor64m", "64 M tensor", ((8192, 8192),)),
        Model("gpt2", "GPT-2 small", tuple(_gpt2())),
        Model("tensor1g", "1 GB tensor", ((16384, 16384),)),
    )
}
