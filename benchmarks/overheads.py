"""Where the time of a small model's step goes: python benchmarks/overheads.py [model ...].

The parts, each measured alone (median of rounds, in microseconds):

* empty step: an optimizer that does nothing, called through torch.optim.Optimizer's wrapper
* step: ours, and with a post hook registered, which takes torch's wrapper too; "in full" if the parameter groups
  are not as the step before has left them
* core: the one call that does a step
* gather: of this, tensors read and checked, and the work list made (a dry run)
* kernel: of this, the rest
* versions: autograd is told that the parameters have changed, through torch's Python function
* Python: what a step has beside the core
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch

from onepass import _core
from onepass.bench import contestants, timing
from onepass.bench.cases import OPTIMIZERS, Case
from onepass.bench.models import MODELS
from onepass.bench.peers import PEERS
from onepass.reader import READER
from onepass.step.row import pack

ROUNDS = 31
TURN = 0.005


def parts(case: Case) -> dict[str, float]:
    """Return the time of each part in microseconds."""
    own, optimizer = contestants.ours(case)
    own.step()
    hooked, hooked_optimizer = contestants.ours(case)
    hooked_optimizer.register_step_post_hook(lambda *_: None)
    full, forgetful = contestants.ours(case)
    groups = optimizer.param_groups
    rows = [pack(optimizer.spec, optimizer.rule(group), group, 1.0) for group in groups]
    params = [group["params"] for group in groups]
    gathering = _core.Memory()

    def step_in_full() -> None:
        forgetful._stepper.remembers = False
        full.step()

    def core() -> None:
        memory = optimizer._stepper.memory
        if not _core.repeat(READER, memory, groups, optimizer.state, 0, None):
            message = "the groups were not remembered"
            raise RuntimeError(message)

    steps: dict[str, Callable[[], object]] = {
        "empty step": contestants.floor(own).step,
        "step": own.step,
        "step with a hook": hooked.step,
        "step in full": step_in_full,
        "core": core,
        "gather": lambda: _core.step(
            READER, gathering, rows, optimizer.state, True, None, set(), set(), 0, 0
        ),
        "versions": lambda: list(map(torch._C._increment_version, params)),
        "torch": contestants.theirs(case, PEERS["torch"]).step,
        "torch fused": contestants.theirs(case, PEERS["torch-fused"]).step,
    }
    for _ in range(3):
        own.step()
    seen = timing.watch(steps, rounds=ROUNDS, turn=TURN)
    for name, watched in seen.items():
        if watched.error is not None:
            raise RuntimeError(f"{name}: {watched.error}")  # noqa: EM102
    found = {name: timing.Spread.of(watched.seconds).median * 1e6 for name, watched in seen.items()}
    found["kernel"] = found["core"] - found["gather"]
    found["Python"] = found["step"] - found["core"]
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
