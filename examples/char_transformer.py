"""A small character transformer learns to write Python from the standard library's own source text.

Warm-up and cosine are a schedule in the place of the learning rate; gradients are clipped, norms and biases do not decay, an
average of the weights is kept; all of that happens in the optimizer's one pass. A checkpoint is the model, the
optimizer and the number of the step. What a step sees (its batch, its dropout) is a function of the seed and that
number, so that a run that was killed goes on as if nothing had been, to the bit. Ctrl-C ends with the step, and saves:

    python examples/char_transformer.py --picture loss.png
    python examples/char_transformer.py --checkpoint run.pt --every 50      # kill it, or Ctrl-C, then
    python examples/char_transformer.py --checkpoint run.pt --every 50 --resume
"""

from __future__ import annotations

import argparse
import math
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common  # first, for a Ctrl-C while torch is imported

# isort: split
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import onepass
from onepass.schedule import Cosine
from onepass.transfer import param_groups

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
CONTEXT, WIDTH, HEADS, BLOCKS = 96, 128, 4, 4


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


def restore(
    args: argparse.Namespace, model: nn.Module, optimizer: onepass.AdamW
) -> dict[str, list[float]]:
    """Go on where the checkpoint stands; return its curves."""
    try:
        saved = torch.load(args.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        curves: dict[str, list[float]] = saved["curves"]
        done = len(curves["loss"])
    except Exception as error:  # a file of another kind may raise almost anything
        said = f"{type(error).__name__}: {error}"[:300]
        common.refuse(f"--resume: {args.checkpoint} is no checkpoint of a run like this: {said}")
    common.console.print(f"Going on after step {done}\n")
    return curves


def train(
    args: argparse.Namespace,
    model: nn.Module,
    optimizer: onepass.AdamW,
    tokens: Tensor,
    curves: dict[str, list[float]],
) -> None:
    """Take the steps that are left; Ctrl-C ends with a step, after which a checkpoint is whole."""
    first = len(curves["loss"])
    with (
        common.bar("bits per character", args.steps - first) as advance,
        common.interrupt_held() as interrupted,
    ):
        for step in range(first, args.steps):
            seed = args.seed * 1_000_003 + step
            torch.manual_seed(seed)  # for dropout
            optimizer.zero_grad()
            loss = loss_of(model, *batch(tokens, args.batch, seed))
            curves["lr"].append(optimizer.param_groups[0]["lr"])
            loss.backward()
            optimizer.step()
            curves["loss"].append(loss.item())
            curves["norm"].append(optimizer.report.grad_norm or 0.0)
            advance(f"{loss.item():.3f}  norm {curves['norm'][-1]:.2f}")
            done, stop = step + 1, interrupted()
            if args.checkpoint and (stop or done % args.every == 0 or done == args.steps):
                save(
                    args.checkpoint,
                    model=model.state_dict(),
                    optimizer=optimizer.state_dict(),
                    curves=curves,
                )
            if stop:
                said = [f"{done} of {args.steps} steps"]
                if args.checkpoint:
                    said.append(f"saved {args.checkpoint}")
                raise KeyboardInterrupt(*said)


def draw(panels: Sequence[Any], curves: dict[str, list[float]]) -> None:
    """Draw what every step has noted."""
    left, middle, right = panels
    left.plot(curves["loss"])
    left.set(title="bits per character", xlabel="step")
    middle.plot(curves["norm"])
    middle.axhline(1.0, color="gray", linestyle=":")
    middle.set(title="norm of the gradient, clipped to 1", xlabel="step")
    right.plot(curves["lr"])
    right.set(title="learning rate", xlabel="step")


def main(args: argparse.Namespace) -> None:
    """Train, go on where a checkpoint stands, evaluate, write."""
    tokens, test = text(args.megabytes)
    model = Transformer()
    warmup = args.steps // 10
    groups = param_groups(
        model,
        lr=Cosine(args.lr, args.steps - warmup, final=args.lr / 10).warmup(warmup),
        weight_decay=0.1,
    )
    common.console.print(f"{len(tokens):,} characters\n\n{groups}\n", soft_wrap=True)
    optimizer = onepass.AdamW(groups, betas=(0.9, 0.95), max_grad_norm=1.0, ema_decay=args.ema)
    curves: dict[str, list[float]] = {"loss": [], "norm": [], "lr": []}
    if args.resume:
        curves = restore(args, model, optimizer)
    with common.picture(args.picture, 3) as panels:
        try:
            train(args, model, optimizer, tokens, curves)
        finally:
            draw(panels, curves)

    rows = [("weights", f"{test_loss(model, test):.3f}")]
    with optimizer.ema_weights():
        rows.append(("their average", f"{test_loss(model, test):.3f}"))
        sample = write(model, "def ", args.characters, args.seed)
    common.console.print()
    common.console.print(sample, markup=False, style="dim")
    common.table("Text that it has not seen", ("", "bits per character"), rows)


def parse() -> argparse.Namespace:
    """Read the command line, and refuse what does not go together."""
    parser = common.arguments("A character transformer on Python's own source.")
    positive = common.number("above 0", lambda value: value > 0)
    share = common.number("in [0, 1]", lambda value: 0 <= value <= 1)
    parser.add_argument("--steps", type=common.whole(1), default=600)
    parser.add_argument(
        "--batch", type=common.whole(1, 4096), default=16, help="stretches of text in a step"
    )
    parser.add_argument("--lr", type=positive, default=0.003)
    parser.add_argument("--ema", type=share, default=0.98, help="decay of the average")
    parser.add_argument("--megabytes", type=positive, default=2.0, help="of text")
    parser.add_argument("--characters", type=common.whole(0, 10_000), default=400, help="to write")
    parser.add_argument("--checkpoint", type=common.writable, metavar="FILE")
    parser.add_argument(
        "--every", type=common.whole(1), default=50, help="steps between checkpoints"
    )
    parser.add_argument("--resume", action="store_true", help="go on from --checkpoint")
    args = common.parse(parser, steps=60, batch=4, megabytes=0.3, characters=60)
    if args.resume and args.checkpoint is None:
        parser.error("--resume needs --checkpoint")
    if args.resume and not args.checkpoint.is_file():
        parser.error(f"--resume: there is no checkpoint {args.checkpoint}")
    return args


if __name__ == "__main__":
    main(parse())
