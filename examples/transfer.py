"""Transfer: what was learned on some classes helps with others.

By default a small CNN learns the digits 0 to 4. Then it gets a new head for 5 to 9, and

1. only the head trains; the base is frozen, weights and BatchNorm statistics, which is checked to the bit;
2. the rest follows: from the top down, at lower rates the deeper the layer, pulled towards what it was.

The same network trained on the new digits alone stands beside it. With --model, a network of torchvision with its
pretrained weights takes the place of the first training, and learns the classes of --data:

    python examples/transfer.py
    python examples/transfer.py --per-class 10
    python examples/transfer.py --model vgg16 --data photos/ [--weights vgg16-397923af.pth]
    python examples/transfer.py --model resnet18 --data photos/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import common
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
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Net(nn.Module):
    """Three convolutions with BatchNorm and a linear head."""

    def __init__(self, images: Tensor, classes: int) -> None:
        super().__init__()
        _, channels, height, width = images.shape
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

    def __init__(self, train: common.Data, test: common.Data, augmenter: Augmenter) -> None:
        self.train, self.test, self.augmenter = train, test, augmenter

    def inputs(self, images: Tensor) -> Tensor:
        """Return the images as a model takes them."""
        channels = (
            3 if isinstance(self.augmenter.mean, tuple) and len(self.augmenter.mean) == 3 else 1
        )
        if channels > images.shape[1]:
            images = images.expand(-1, channels, -1, -1)
        return self.augmenter(images, range(len(images)), train=False)

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
        parts = [self.inputs(part) for part in self.test.images.split(100)]
        return common.accuracy(model, self.test, torch.cat(parts))

    def steps(self, epochs: int) -> int:
        """Return the number of steps of a training."""
        return epochs * -(-len(self.train.labels) // BATCH)


def pretrained(name: str, file: Path | None) -> nn.Module:
    """Return a network of torchvision with weights from a file, or from where torchvision keeps them."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        sys.exit(f"--model {name} needs torchvision, which cannot be imported: {error}")
    if file is None:
        url = models.get_model_weights(name).DEFAULT.url
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        if not file.is_file():
            sys.exit(
                f"--model {name}: there are no weights at {file}; get them from {url}, or give --weights"
            )
    model: nn.Module = models.get_model(name, weights=None)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model


def learned(args: argparse.Namespace, epochs: int) -> tuple[nn.Module, Task]:
    """Return a model that has learned something, and the new task."""
    if args.model != "cnn":
        if args.data is None:
            sys.exit(
                f"--model {args.model} needs --data, a folder with a folder of images for every class"
            )
        args.size = 224
        model = pretrained(args.model, args.weights)
        train, test = common.load(args)
        return model, Task(train, test, Augmenter(**IMAGENET))
    train, test = common.load(args)
    half = len(train.names) // 2
    old, new = range(half), range(half, len(train.names))
    std, mean = (x.item() for x in torch.std_mean(train.classes(old).inputs()))
    augmenter = Augmenter(mean=mean, std=std)
    first = Task(train.classes(old), test.classes(old), augmenter)
    model = Net(train.images, half)
    optimizer = onepass.AdamW(param_groups(model, lr=Cosine(0.002, first.steps(epochs))))
    found = first.fit(f"{', '.join(first.train.names)}", model, optimizer, epochs, args.seed)
    common.console.print(f"Learned {', '.join(first.train.names)}: test accuracy {found:.2%}\n")
    return model, Task(train.classes(new), test.classes(new), augmenter)


def main(args: argparse.Namespace) -> None:
    """Train the head, then everything; compare with a start from scratch."""
    epochs = 2 if args.fast else args.epochs
    model, task = learned(args, epochs)
    if args.per_class:
        task = Task(task.train.first(args.per_class), task.test, task.augmenter)
    classes, found = len(task.train.names), {}
    if args.model == "cnn":
        scratch = Net(task.train.images, classes)
        groups = param_groups(scratch, lr=Cosine(0.002, task.steps(2 * epochs)))
        found["from scratch"] = task.fit(
            "from scratch", scratch, onepass.AdamW(groups), 2 * epochs, 1
        )

    replace_head(freeze(model, model), classes)
    found["new head, untrained"] = task.accuracy(model)
    groups = param_groups(model, lr=Cosine(0.005, task.steps(epochs)))
    with check_frozen(model):
        found["base frozen"] = task.fit("the head", model, onepass.AdamW(groups), epochs, args.seed)

    unfreeze(model, model)
    steps = task.steps(epochs)
    waits = {glob: {"train_from": int(part * steps)} for glob, part in WAIT[args.model].items()}
    lr = Cosine(0.002, steps - steps // 10).warmup(steps // 10)
    groups = param_groups(
        model, list(waits.items()), lr=lr, layer_decay=0.5 if args.model == "cnn" else 0.8
    )
    common.console.print(f"\n{groups}\n", soft_wrap=True)
    optimizer = onepass.AdamW(groups)
    anchor_decay(optimizer, 0.01)
    found["gradually unfrozen"] = task.fit("everything", model, optimizer, epochs, args.seed)

    rows = [(name, f"{accuracy:.2%}") for name, accuracy in found.items()]
    common.table(f"Classes {', '.join(task.train.names)}", ("", "test accuracy"), rows)
    with common.picture(args.picture, 1, width=6.0) as (panel,):
        panel.barh(list(found), list(found.values()))
        panel.set(xlim=(0, 1), title=f"test accuracy on {', '.join(task.train.names)}")
        panel.invert_yaxis()


if __name__ == "__main__":
    parser = common.arguments("Transfer learning: frozen base, new head, gradual unfreezing.")
    parser.add_argument("--model", choices=list(WAIT), default="cnn")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of a --model of torchvision")
    parser.add_argument("--epochs", type=int, default=15, help="of every training")
    parser.add_argument("--per-class", type=int, default=0, help="examples of new classes; 0: all")
    main(common.parse(parser))
