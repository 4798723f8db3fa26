"""Where the time of a small model's step goes: python benchmarks/overheads.py [model ...].

The parts, each measured alone (median of rounds, in microseconds):

* empty step: an optimizer that does nothing, called through torch.optim.Optimizer's wrapper
* step: ours, and with a post hook registered, which takes torch's wrapper too
* groups: hyper-parameters of the groups turned into what the core takes
* gather: tensors read and checked, and the work list made (a dry run of the core)
* kernel: what the core takes beyond that
* versions: autograd is told that the parameters have changed
* Python: the rest of the step
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch

from onepass.bench import contestants, timing
from onepass.bench.cases import OPTIMIZERS, Case
from onepass.bench.models import MODELS
from onepass.bench.peers import PEERS
from onepass.optim.work import describe

ROUNDS = 31
TURN = 0.005


def parts(case: Case) -> dict[str, float]:
    """Return the time of each part in microseconds."""
    own, optimizer = contestants.ours(case)
    own.step()
    hooked, hooked_optimizer = contestants.ours(case)
    hooked_optimizer.register_step_post_hook(lambda *_: None)
    groups = optimizer.param_groups
    work = [describe(optimizer, group, 1.0) for group in groups]
    params = [group["params"] for group in groups]
    steps: dict[str, Callable[[], object]] = {
        "empty step": contestants.floor(own).step,
        "step": own.step,
        "step with a hook": hooked.step,
        "groups": lambda: [describe(optimizer, group, 1.0) for group in groups],
        "gather": lambda: optimizer.run(work, None, dry=True),
        "core": lambda: optimizer.run(work, None),
        "versions": lambda: list(map(torch._C._increment_version, params)),
        "torch": contestants.theirs(case, PEERS["torch"]).step,
        "torch fused": contestants.theirs(case, PEERS["torch-fused"]).step,
    }
    seen = timing.watch(steps, rounds=ROUNDS, turn=TURN)
    for name, watched in seen.items():
        if watched.error is not None:
            raise RuntimeError(f"{name}: {watched.error}")  # noqa: EM102
    found = {name: timing.Spread.of(watched.seconds).median * 1e6 for name, watched in seen.items()}
    found["kernel"] = found.pop("core") - found["gather"]
    found["Python"] = found["step"] - sum(
        found[part] for part in ("groups", "gather", "kernel", "versions")
    )
    return found


def main(names: Sequence[str]) -> None:
    """Print the parts for each model, Adam, with one thread and with all."""
    for name in names or ("policy", "mlp", "small1000"):
        for threads in sorted({1, torch.get_num_threads()}):
            torch.set_num_threads(threads)
            case = Case(MODELS[name], OPTIMIZERS["Adam"])
            print(
                f"{case.model.title}, {len(case.model.shapes)} tensors, Adam, {threads} thread(s)"
            )
            for part, microseconds in parts(case).items():
                print(f"  {part:18}{microseconds:10.2f} us")


if __name__ == "__main__":
    main(sys.argv[1:])
