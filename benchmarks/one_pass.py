"""What the options cost inside the step, beside torch's best way to have the same in several passes.

Run: python benchmarks/one_pass.py [--models gpt2,small1000] [--rounds N] [--table FILE]

Every comparison is made in one process, in turn, by medians of paired rounds (onepass.bench.timing). The gradients
are set once; what torch does to them (unscaling, clipping) is done to copies that are restored outside the clock.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import onepass
from onepass.bench.models import MODELS
from onepass.bench.timing import Spread, ratios, watch

Step = Callable[[], object]
SCALE, MAX_NORM, L1, DECAY, LR = 1024.0, 1.0, 1e-5, 0.999, 1e-4


def _parameters(shapes: Any, dtype: torch.dtype, scale: float = 1.0) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape).mul_(0.02).to(dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape).mul_(1e-3 * scale).to(dtype)
    return params


def _ours(shapes: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Step:
    optimizer = onepass.AdamW(_parameters(shapes, dtype), lr=LR, **options)
    optimizer.step()
    return optimizer.step


def _ours_with_everything(shapes: Any) -> Step:
    options = {
        "max_grad_norm": MAX_NORM,
        "l1_decay": L1,
        "l1_mode": "subgradient",
        "ema_decay": DECAY,
    }
    optimizer = onepass.AdamW(_parameters(shapes, torch.float32, SCALE), lr=LR, **options)

    def step() -> None:
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(SCALE), torch.tensor(0.0)
        optimizer.step()

    step()
    return step


def _torch_clipped(shapes: Any) -> Step:
    params = _parameters(shapes, torch.float32)
    optimizer = torch.optim.AdamW(params, lr=LR, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(params, MAX_NORM, foreach=True)
        optimizer.step()

    step()
    return step


def _torch_with_everything(shapes: Any) -> Step:
    """Gradients shrink by 1 / SCALE in each call; nothing here takes longer or shorter for it."""
    params = _parameters(shapes, torch.float32, SCALE)
    optimizer = torch.optim.AdamW(params, lr=LR, fused=True)
    average = [p.detach().clone() for p in params]

    def step() -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
        scaler.scale(torch.zeros(()))
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(params, MAX_NORM, foreach=True)
        grads = [p.grad for p in params]
        weights = [p.detach() for p in params]
        torch._foreach_add_(grads, torch._foreach_sign(weights), alpha=L1)
        scaler.step(optimizer)
        torch._foreach_lerp_(average, weights, 1 - DECAY)

    step()
    return step


CASES: dict[str, tuple[str, dict[str, Callable[[Any], Step]]]] = {
    "unscale + clip + L1 + AdamW + EMA": (
        "torch's time / ours: 2 on GPT-2 small, 8 on 1000 tensors",
        {"other": _torch_with_everything, "ours": _ours_with_everything},
    ),
    "clip + AdamW": (
        "torch's time / ours: 1.2 on GPT-2 small",
        {"other": _torch_clipped, "ours": lambda s: _ours(s, max_grad_norm=MAX_NORM)},
    ),
    "bfloat16 moments": (
        "time / that of float32: at most 0.9",
        {"ours": lambda s: _ours(s, state_dtype=torch.bfloat16), "other": _ours},
    ),
    "8-bit moments": (
        "time / that of float32: at most 1.15",
        {"ours": lambda s: _ours(s, state_dtype="8bit"), "other": _ours},
    ),
    "bfloat16 parameters with master weights": (
        "time / that of float32: at most 1.0",
        {"ours": lambda s: _ours(s, torch.bfloat16, master_weights=True), "other": _ours},
    ),
    "bfloat16 parameters, stochastic rounding": (
        "time / that of float32: none set",
        {"ours": lambda s: _ours(s, torch.bfloat16, rounding="stochastic"), "other": _ours},
    ),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="gpt2,small1000")
    parser.add_argument("--cases", default="")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    lines = ["| case | model | target | ratio (quartiles) |", "|---|---|---|---:|"]
    for name, (target, makers) in CASES.items():
        if arguments.cases and not any(part in name for part in arguments.cases.split(",")):
            continue
        for model in arguments.models.split(","):
            shapes = MODELS[model].shapes
            steps = {who: make(shapes) for who, make in makers.items()}
            seen = watch(steps, rounds=arguments.rounds, turn=0.01)
            for who, watched in seen.items():
                if watched.error:
                    message = f"{name}, {who}: {watched.error}"
                    raise RuntimeError(message)
            first = next(iter(makers))
            spread = Spread.of(ratios(seen[first], seen["ours" if first == "other" else "other"]))
            lines.append(
                f"| {name} | {model} | {target} | {spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f}) |"
            )
            print(lines[-1], flush=True)
            del steps, seen
    if arguments.table:
        command = "python benchmarks/one_pass.py"
        arguments.table.write_text(
            f"Made by `{command}` on {torch.get_num_threads()} threads.\n\n"
            + "\n".join(lines)
            + "\n"
        )


if __name__ == "__main__":
    main()
