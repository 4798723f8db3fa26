"""A small character transformer learns to write Python from the standard library's own source text.

Warm-up and cosine are a schedule in the place of the learning rate; gradients are clipped, norms and biases do not decay, an
average of the weights is kept; all of that happens in the optimizer's one pass. A checkpoint is the model, the
optimizer and the number of the step. What a step sees (its batch, its dropout) is a function of the seed and that
number, so that a run that was killed goes on as if nothing had been, to the bit:

    python examples/char_transformer.py --picture loss.png
    python examples/char_transformer.py --checkpoint run.pt --every 50      # kill it, then
    python examples/char_transformer.py --checkpoint run.pt --every 50 --resume
"""

from __future__ import annotations

import argparse
import math
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import common
import onepass
from onepass.schedule import Cosine
from onepass.transfer import param_groups

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
CONTEXT, WIDTH, HEADS, BLOCKS = 96, 128, 4, 4
FAST = {"steps": 60, "batch": 4, "megabytes": 0.3}


class Block(nn.Module):
    """Causal attention and an MLP, each behind a norm and beside a shortcut."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x with what its past adds."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class Transformer(nn.Module):
    """Embeddings, blocks, a norm, a head that shares its weights with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), WIDTH)
        self.position = nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        self.blocks = nn.ModuleList([Block() for _ in range(BLOCKS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(CHARACTERS), bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores of the character after every place."""
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(self.norm(x))
        return result


def text(megabytes: float) -> tuple[Tensor, Tensor]:
    """Return the source text of the standard library as numbers, to train on and to test with."""
    number = {character: i for i, character in enumerate(CHARACTERS)}
    found: list[int] = []
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = file.read_text(encoding="utf-8", errors="ignore").expandtabs(4)
        found += [number[c] for c in source if c in number]
        if len(found) > megabytes * 1e6:
            break
    tokens = torch.tensor(found)
    test = max(len(tokens) // 20, CONTEXT + 1)
    return tokens[:-test], tokens[-test:]


def batch(tokens: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random stretches of the text, and the same one character on."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - CONTEXT, (size, 1), generator=generator)
    rows = tokens[starts + torch.arange(CONTEXT + 1)]
    return rows[:, :-1], rows[:, 1:]


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return bits per character."""
    return cross_entropy(model(inputs).flatten(0, 1), targets.flatten()) / math.log(2)


@torch.no_grad()
def test_loss(model: nn.Module, tokens: Tensor) -> float:
    """Return bits per character on the same stretches each time."""
    model.eval()
    loss = sum(loss_of(model, *batch(tokens, 32, seed)).item() for seed in range(4)) / 4
    model.train()
    return loss


@torch.no_grad()
def write(model: nn.Module, start: str, length: int, seed: int) -> str:
    """Let the model go on from a text."""
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([[CHARACTERS.index(c) for c in start]])
    for _ in range(length):
        chances = (model(tokens[:, -CONTEXT:])[0, -1] / 0.8).softmax(0)
        tokens = torch.cat([tokens, torch.multinomial(chances, 1, generator=generator)[None]], 1)
    model.train()
    return "".join(CHARACTERS[i] for i in tokens[0])


def save(file: Path, **state: Any) -> None:
    """Write a checkpoint whole or not at all."""
    unfinished = file.with_name(file.name + ".part")
    torch.save(state, unfinished)
    unfinished.replace(file)


def main(args: argparse.Namespace) -> None:
    """Train, go on where a checkpoint stands, evaluate, write."""
    train, test = text(args.megabytes)
    model = Transformer()
    warmup = args.steps // 10
    groups = param_groups(
        model,
        lr=Cosine(args.lr, args.steps - warmup, final=args.lr / 10).warmup(warmup),
        weight_decay=0.1,
    )
    common.console.print(f"{len(train):,} characters\n\n{groups}\n", soft_wrap=True)
    optimizer = onepass.AdamW(groups, betas=(0.9, 0.95), max_grad_norm=1.0, ema_decay=args.ema)

    curves: dict[str, list[float]] = {"loss": [], "norm": [], "lr": []}
    if args.resume:
        saved = torch.load(args.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        curves = saved["curves"]
        common.console.print(f"Going on after step {len(curves['loss'])}\n")

    first = len(curves["loss"])
    with common.bar("bits per character", args.steps - first) as advance:
        for step in range(first, args.steps):
            seed = args.seed * 1_000_003 + step
            torch.manual_seed(seed)  # for dropout
            optimizer.zero_grad()
            loss = loss_of(model, *batch(train, args.batch, seed))
            curves["lr"].append(optimizer.param_groups[0]["lr"])
            loss.backward()
            optimizer.step()
            curves["loss"].append(loss.item())
            curves["norm"].append(optimizer.report.grad_norm or 0.0)
            advance(f"{loss.item():.3f}  norm {curves['norm'][-1]:.2f}")
            if args.checkpoint and ((step + 1) % args.every == 0 or step + 1 == args.steps):
                save(
                    args.checkpoint,
                    model=model.state_dict(),
                    optimizer=optimizer.state_dict(),
                    curves=curves,
                )

    rows = [("weights", f"{test_loss(model, test):.3f}")]
    with optimizer.ema_weights():
        rows.append(("their average", f"{test_loss(model, test):.3f}"))
        sample = write(model, "def ", 60 if args.fast else 400, args.seed)
    common.console.print()
    common.console.print(sample, markup=False, style="dim")
    common.table("Text that it has not seen", ("", "bits per character"), rows)
    with common.picture(args.picture, 3) as (left, middle, right):
        left.plot(curves["loss"])
        left.set(title="bits per character", xlabel="step")
        middle.plot(curves["norm"])
        middle.axhline(1.0, color="gray", linestyle=":")
        middle.set(title="norm of the gradient, clipped to 1", xlabel="step")
        right.plot(curves["lr"])
        right.set(title="learning rate", xlabel="step")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A character transformer on Python's own source.")
    common.training(parser)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16, help="stretches of text in a step")
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--ema", type=float, default=0.98, help="decay of the average")
    parser.add_argument("--megabytes", type=float, default=2.0, help="of text")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from --checkpoint")
    options = common.parse(parser)
    if options.resume and options.checkpoint is None:
        parser.error("--resume needs --checkpoint")
    if options.resume and not options.checkpoint.is_file():
        parser.error(f"--resume: there is no checkpoint {options.checkpoint}")
    if options.fast:
        vars(options).update(FAST)
    main(options)
