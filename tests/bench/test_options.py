"""Cases with options that torch lacks: what is counted, who takes part, who is found out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import onepass
from onepass.bench import checking, contestants, engine
from onepass.bench.cases import LOW, OPTIMIZERS, OPTIONS, Case, Configuration, new_parameters
from onepass.bench.contestants import FLOAT32, FLOOR, LIMIT, OURS
from onepass.bench.models import Model
from onepass.bench.peers import PEERS, NotOffered, Params, Peer, Step
from onepass.bench.plan import Plan

TINY = Model("tiny", "tiny", ((40, 30), (7,), (300,)))
METHOD = engine.Method(rounds=3, turn=1e-5)
TORCH = [PEERS[name] for name in ("torch", "torch-foreach", "torch-fused")]
SEVERAL_PASSES = [name for name, c in OPTIONS.items() if not c.reduced]
FEWER_BITS = [name for name, c in OPTIONS.items() if c.reduced]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case_of(name: str) -> Case:
    return Case(TINY, OPTIONS[name], OPTIONS[name].dtype(torch.float32))


def run(name: str, *peers: Peer) -> dict[str, engine.Row]:
    return engine.run_case(case_of(name), peers, METHOD)


@pytest.mark.parametrize("name", SEVERAL_PASSES)
def test_torch_in_several_passes_agrees(name: str) -> None:
    rows = run(name, *TORCH)
    assert list(rows) == [OURS, LIMIT, FLOOR, *(p.name for p in TORCH)]
    assert {row.status for key, row in rows.items() if key != LIMIT} == {"ok"}
    assert all(len(row.ratios) == 3 for key, row in rows.items() if key != LIMIT)


@pytest.mark.parametrize("name", FEWER_BITS)
def test_fewer_bits_are_compared_with_float32(name: str) -> None:
    rows = run(name, *TORCH)
    assert list(rows) == [OURS, LIMIT, FLOOR, FLOAT32, *(p.name for p in TORCH)]
    assert (rows[FLOAT32].status, len(rows[FLOAT32].ratios)) == ("ok", 3)
    assert {rows[p.name].status for p in TORCH} == {"not offered"}
    found = engine.as_json(case_of(name), rows, 1)["results"][3]
    rate = found["gigabytes_per_second"] * found["seconds"]["median"] * 1e9
    assert rate == pytest.approx(28 * TINY.parameters)  # of float32's own bytes


def test_the_limit_is_given_where_it_moves_the_bytes_of_the_step() -> None:
    given = {name for name in OPTIONS if run(name)[LIMIT].status == "ok"}
    assert given == {"ema", "l1", "proximal-l1", "stochastic-rounding"}


@pytest.mark.parametrize(
    ("name", "dtype", "moved"),
    [
        # p and g are read, p written; m and v are read and written
        ("l1", torch.float32, 4 * 3 + 8 * 2),
        ("clip", torch.float32, 4 * 4 + 8 * 2),  # g is read twice
        ("ema", torch.float32, 4 * 3 + 8 * 3),
        ("everything", torch.float32, 4 * 4 + 8 * 3),
        ("bf16-states", torch.float32, 4 * 3 + 4 * 2),
        ("master-weights", torch.bfloat16, 2 * 3 + 8 * 2 + 2 * 2),
        ("master-weights", torch.float16, 2 * 3 + 8 * 2 + 2 * 4),
        ("stochastic-rounding", torch.bfloat16, 2 * 3 + 4 * 2),
    ],
)
def test_bytes(name: str, dtype: torch.dtype, moved: int) -> None:
    assert Case(TINY, OPTIONS[name], dtype).bytes_per_parameter == moved


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_kept_is_what_the_state_holds(name: str) -> None:
    """Counted from the tensors themselves, block scales of 8 bits included."""
    for dtype in OPTIONS[name].dtypes or (torch.float32, *LOW):
        case = Case(TINY, OPTIONS[name], dtype)
        own, optimizer = contestants.ours(case)
        own.step()
        tensors = [v for p in own.parameters for k, v in optimizer.state[p].items() if k != "step"]
        held = sum(t.numel() * t.itemsize for t in tensors)
        assert case.kept * TINY.parameters == pytest.approx(held)
        one = [v.dtype for k, v in optimizer.state[own.parameters[0]].items() if k != "step"]
        assert case.mixed == (set(one) != {dtype})


def test_master_weights_are_the_rounding_of_float32() -> None:
    """The comparison that the engine makes, from plain calls: one rounding apart at most."""
    case = case_of("master-weights")
    low, high = new_parameters(case), new_parameters(case.in_float32())
    assert high[0].dtype == torch.float32
    assert all(torch.equal(a.float(), b) for a, b in zip(low, high, strict=True))
    ours = onepass.AdamW(low, **case.configuration.options, master_weights=True)
    theirs = torch.optim.AdamW(high, **case.configuration.options)
    for _ in range(3):
        ours.step()
        theirs.step()
    for a, b in zip(low, high, strict=True):
        torch.testing.assert_close(a.float(), b.detach(), rtol=2**-8, atol=1e-7)


def changed(**own: Any) -> Peer:
    """A peer that has other options than ours: it is ours."""

    def make(configuration: Configuration, params: Params) -> Step:
        options = {**configuration.options, **configuration.own, **own}
        step: Step = onepass.AdamW(params, **options).step
        return step

    return Peer("other", make, reduced=make)


def status(case: Case, other: contestants.Contestant) -> bool:
    own, _ = contestants.ours(case)
    checking.first_steps(case, own)
    checking.first_steps(case, other)
    return checking.difference(other, own, checking.tolerance(case, own)).too_far


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("clip", {"max_grad_norm": None}),
        ("everything", {"max_grad_norm": None}),
        ("everything", {"l1_decay": 0.0}),
        ("everything", {"ema_decay": 0.99}),
        ("ema", {"ema_decay": 0.99}),
        ("l1", {"l1_decay": 0.0}),
        ("l1", {"l1_mode": "proximal"}),
        ("proximal-l1", {"l1_decay": 0.0}),
    ],
)
def test_an_option_left_out_is_noticed(name: str, change: dict[str, Any]) -> None:
    case = case_of(name)
    wrong = replace(case.configuration, own={**case.configuration.own, **change})
    assert not status(case, contestants.ours(case)[0])
    assert status(case, contestants.ours(replace(case, configuration=wrong))[0])


@pytest.mark.parametrize("name", FEWER_BITS)
def test_a_step_that_does_nothing_is_noticed(name: str) -> None:
    idle = Peer("idle", lambda *_: lambda: None, reduced=lambda *_: lambda: None)
    assert run(name, idle)["idle"].status == "differs"
    assert run(name, changed(lr=2e-3))["other"].status == "differs"
    assert run(name, changed())["other"].status == "ok"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", LOW)
def test_low_precision_agrees_and_notices(optimizer: str, dtype: torch.dtype) -> None:
    idle = Peer("idle", lambda *_: lambda: None)
    case = Case(TINY, OPTIMIZERS[optimizer], dtype)
    rows = engine.run_case(case, [*TORCH[:2], idle], METHOD)
    assert rows["torch"].status == rows["torch-foreach"].status == "ok", rows["torch"]
    assert rows["idle"].status == "differs"


def test_one_that_spoils_its_gradients_gets_them_back_for_each_checked_step() -> None:
    case = case_of("everything")
    peer = contestants.theirs(case, PEERS["torch"])
    assert peer.spoils
    checking.first_steps(case, peer)
    for p, fresh in zip(peer.parameters, new_parameters(case), strict=True):
        assert p.grad is not None
        assert fresh.grad is not None
        assert torch.equal(p.grad, fresh.grad)


def test_our_step_is_told_the_scale_and_leaves_the_gradient() -> None:
    case = case_of("everything")
    own, optimizer = contestants.ours(case)
    gradients = [p.grad.clone() for p in own.parameters if p.grad is not None]
    assert float(gradients[0].abs().min()) >= 512
    own.step()
    norm = float(torch.cat([g.double().reshape(-1) for g in gradients]).norm()) / 1024
    assert optimizer.report.grad_norm == pytest.approx(norm)
    after = [p.grad for p in own.parameters if p.grad is not None]
    assert all(map(torch.equal, after, gradients))


def test_an_option_for_other_dtypes_is_measured_once_in_one_of_them() -> None:
    def dtypes(*wanted: torch.dtype) -> list[tuple[str, torch.dtype]]:
        chosen = [OPTIONS["clip"], OPTIONS["master-weights"]]
        cases = Plan([TINY], chosen, [], list(wanted), [1]).cases()
        return [(case.configuration.name.split()[-1], case.dtype) for case, _ in cases]

    clip, master = "clip", "master-weights"
    both = [(clip, torch.float32), (master, torch.bfloat16)]
    assert dtypes(torch.float32) == both
    assert dtypes(torch.float32, torch.bfloat16) == [*both, (clip, torch.bfloat16)]
    assert (master, torch.float16) in dtypes(torch.float16)


def test_limit_says_why_there_is_none() -> None:
    case = case_of("clip")
    own, optimizer = contestants.ours(case)
    own.step()
    with pytest.raises(NotOffered, match="norm"):
        contestants.limit(case, own, optimizer)
