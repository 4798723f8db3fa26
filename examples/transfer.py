"""Transfer: what was learned on some classes helps with others.

By default a small CNN learns the digits 0 to 4. Then it gets a new head for 5 to 9, and

1. only the head trains; the base is frozen, weights and BatchNorm statistics, which is checked to the bit;
2. the rest follows: from the top down, at lower rates the deeper the layer, pulled towards what it was.

The same network trained on the new digits alone stands beside it. With --model, a network of torchvision with the weights
it has from ImageNet takes the place of the first training, and learns the classes of --data. VGG16 gets the head that it
has in Keras' example: the mean of each feature, 1024 units, the classes.

    python examples/transfer.py
    python examples/transfer.py --per-class 10
    python examples/transfer.py --model vgg16 --data photos/
    python examples/transfer.py --model resnet18 --data photos/ --weights resnet18-f37072fd.pth
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common  # first, for a Ctrl-C while torch is imported

# isort: split
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import images
import onepass
from onepass.augment import Augmenter
from onepass.schedule import Cosine
from onepass.transfer import (
    anchor_decay,
    check_frozen,
    freeze,
    param_groups,
    replace_head,
    unfreeze,
)

BATCH = 32
# From the bottom up: names of parameters, and the part of the second training that they wait for.
WAIT: dict[str, dict[str, float]] = {
    "cnn": {"features.[01].*": 0.5, "features.[34].*": 0.25},
    "vgg16": {"features.?.*": 0.6, "features.1?.*": 0.4, "features.2?.*": 0.2},
    "resnet18": {
        "conv1.*": 0.6,
        "bn1.*": 0.6,
        "layer[12].*": 0.6,
        "layer3.*": 0.4,
        "layer4.*": 0.2,
    },
}
WAIT |= {"resnet34": WAIT["resnet18"], "resnet50": WAIT["resnet18"]}
# Learning rates of the head alone, and of everything; what has learned from a million images is to change little.
RATES = {"cnn": (0.005, 0.002)} | dict.fromkeys(
    [name for name in WAIT if name != "cnn"], (0.001, 0.0001)
)
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIZE = 224  # of the images of ImageNet
SMALLEST = 64  # halved five times, 2 x 2 features are left: more than one, for BatchNorm


class Net(nn.Module):
    """Three convolutions with BatchNorm and a linear head."""

    def __init__(self, pictures: Tensor, classes: int) -> None:
        super().__init__()
        _, channels, height, width = pictures.shape
        layers: list[nn.Module] = []
        for inputs, outputs in ((channels, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.classifier = nn.Linear(64 * (-(-height // 2)) * (-(-width // 2)), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        result: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return result


class Task:
    """Images of some classes, normalised, and how a model does on them."""

    def __init__(self, train: images.Data, test: images.Data, augmenter: Augmenter) -> None:
        self.train, self.test, self.augmenter = train, test, augmenter

    def inputs(self, pictures: Tensor) -> Tensor:
        """Return pictures as a model takes them."""
        return self.augmenter(pictures, range(len(pictures)), train=False)

    def fit(self, title: str, model: nn.Module, optimizer: Any, epochs: int, seed: int) -> float:
        """Train a model; return its accuracy on the test images."""
        with common.bar(title, epochs) as advance:
            for epoch in range(epochs):
                model.train()
                order = torch.Generator().manual_seed(seed + epoch)
                for index in torch.randperm(len(self.train.labels), generator=order).split(BATCH):
                    optimizer.zero_grad()
                    scores = model(self.inputs(self.train.images[index]))
                    loss = cross_entropy(scores, self.train.labels[index])
                    loss.backward()
                    optimizer.step()
                advance(f"loss {loss.item():.4f}")
        return self.accuracy(model)

    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy on the test images."""
        return images.accuracy(model, self.test, self.inputs)

    def steps(self, epochs: int) -> int:
        """Return the number of steps of a training."""
        return epochs * -(-len(self.train.labels) // BATCH)


def vision() -> Any:
    """Return the models of torchvision."""
    try:
        from torchvision import models
    except ImportError as error:
        common.need("vision", error)
    except RuntimeError as error:  # an operator is missing
        common.refuse(
            f"torchvision is built for another torch than {torch.__version__}, both must come from one "
            f"index: {error}"
        )
    return models


def pretrained(models: Any, name: str, weights: str) -> Any:
    """Return a network: as it starts, with its weights of ImageNet, or with those of a file."""
    if weights == "imagenet":
        try:
            return models.get_model(name, weights="DEFAULT")
        except (OSError, RuntimeError) as error:  # RuntimeError: not the right bytes
            url = models.get_model_weights(name).DEFAULT.url
            common.refuse(
                f"--weights imagenet: {url} cannot be had: {error}; get it and give --weights FILE"
            )
    model = models.get_model(name, weights=None)
    if weights != "none":
        try:
            model.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
        except Exception as error:  # a file of another kind may raise almost anything
            said = str(error)[:300]
            common.refuse(f"--weights: {weights} is no state_dict of {name}: {said}")
    return model


def new_head(model: Any, name: str, classes: int) -> None:
    """Put a head for the new classes in the place of the old one."""
    if name == "vgg16":
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.classifier = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, classes))
    else:
        replace_head(model, classes)


def learned(args: argparse.Namespace) -> tuple[nn.Module, Task]:
    """Return a model that has learned something, and the new task."""
    if args.model != "cnn":
        models = vision()
        train, test = images.load(args, SIZE)
        model: nn.Module = pretrained(models, args.model, args.weights or "imagenet")
        return model, Task(train, test, Augmenter(**IMAGENET))
    train, test = images.load(args)
    classes, half = len(train.names), len(train.names) // 2
    if classes < 4:
        common.refuse(
            f"--data: {args.data} has {classes} classes; --model cnn learns the one half, then the "
            "other, and needs at least 4"
        )
    old, new = range(half), range(half, classes)
    for part in old, new:
        if not len(test.classes(part).labels):
            names = ", ".join(test.classes(part).names)
            common.refuse(f"--data: {args.data} has no images of {names} to test with")
    mean, std = train.classes(old).scale()
    augmenter = Augmenter(mean=mean, std=std)
    first = Task(train.classes(old), test.classes(old), augmenter)
    model = Net(train.images, half)
    lr = Cosine(0.002, first.steps(args.epochs))
    optimizer = onepass.AdamW(param_groups(model, lr=lr))
    names = ", ".join(first.train.names)
    found = first.fit(names, model, optimizer, args.epochs, args.seed)
    common.console.print(f"Learned {names}: test accuracy {found:.2%}", markup=False)
    images.warn(test.classes(new))
    return model, Task(train.classes(new), test.classes(new), augmenter)


def main(args: argparse.Namespace) -> None:
    """Train the head, then everything; compare with a start from scratch."""
    with common.picture(args.picture, 1, width=6.0) as (panel,):
        panel.set(xlim=(0, 1), title="test accuracy on the new classes")
        panel.invert_yaxis()
        found: dict[str, float] = {}

        def note(name: str, accuracy: float) -> None:
            found[name] = accuracy
            panel.barh([name], [accuracy], color="C0")

        model, task = learned(args)
        if args.per_class:
            task = Task(task.train.first(args.per_class), task.test, task.augmenter)
        adapt(args, model, task, note)
    rows = [(name, f"{accuracy:.2%}") for name, accuracy in found.items()]
    common.table(f"Classes {', '.join(task.train.names)}", ("", "test accuracy"), rows)


def adapt(
    args: argparse.Namespace, model: nn.Module, task: Task, note: Callable[[str, float], None]
) -> None:
    """Teach a model the new task, and note the accuracy of every stage."""
    epochs, classes = args.epochs, len(task.train.names)
    if args.model == "cnn":
        scratch = Net(task.train.images, classes)
        groups = param_groups(scratch, lr=Cosine(0.002, task.steps(2 * epochs)))
        optimizer = onepass.AdamW(groups)
        note("from scratch", task.fit("from scratch", scratch, optimizer, 2 * epochs, 1))

    new_head(freeze(model, model), args.model, classes)
    note("new head, untrained", task.accuracy(model))
    head_rate, rate = RATES[args.model]
    optimizer = onepass.AdamW(param_groups(model, lr=Cosine(head_rate, task.steps(epochs))))
    with check_frozen(model):
        note("base frozen", task.fit("the head", model, optimizer, epochs, args.seed))

    unfreeze(model, model)
    steps = task.steps(epochs)
    waits = {glob: {"train_from": int(part * steps)} for glob, part in WAIT[args.model].items()}
    lr = Cosine(rate, steps - steps // 10).warmup(steps // 10)
    groups = param_groups(
        model, list(waits.items()), lr=lr, layer_decay=0.5 if args.model == "cnn" else 0.8
    )
    common.console.print(f"\n{groups}\n", soft_wrap=True)
    optimizer = onepass.AdamW(groups)
    anchor_decay(optimizer, 0.01)
    note("gradually unfrozen", task.fit("everything", model, optimizer, epochs, args.seed))


def weights(text: str) -> str:
    """Read what --weights may be from the command line."""
    return text if text in ("none", "imagenet") else str(common.present(text))


def parse() -> argparse.Namespace:
    """Read the command line, and refuse what does not go together."""
    parser = images.parser(
        "Transfer learning: frozen base, new head, gradual unfreezing.", epochs=15
    )
    parser.add_argument("--model", choices=list(WAIT), default="cnn")
    parser.add_argument(
        "--weights",
        type=weights,
        metavar="none|imagenet|FILE",
        help="of a --model of torchvision: random, from torchvision (the default; downloaded once), or "
        "its state_dict in a file",
    )
    parser.add_argument(
        "--per-class", type=common.whole(0), default=0, help="examples of new classes; 0: all"
    )
    args = common.parse(parser, epochs=2)
    if args.model == "cnn":
        if args.weights is not None:
            parser.error(f"--weights {args.weights} needs a --model of torchvision, not cnn")
    elif not images.of_folders(args.data):
        parser.error(
            f"--model {args.model} needs --data with a folder of images for every class, not "
            f"{args.data or 'digits'}"
        )
    elif args.size is not None and args.size < SMALLEST:
        parser.error(
            f"--size must be at least {SMALLEST} with --model {args.model}, not {args.size}"
        )
    return args


if __name__ == "__main__":
    main(parse())
