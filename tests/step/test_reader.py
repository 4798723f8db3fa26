"""Tensors are read natively, through torch's functions alone or through its DLPack table: with the same results."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import warnings

import pytest
import torch
from torch import nn

import onepass.reader
import onepass.step.stepper
import onepass.transfer
from onepass.reader import READER, WAYS, is_tested, make_reader, reason_for_way, wanted_way
from onepass.state.names import ANCHOR, MASTER
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import expected_step, gradients, parameters, run_python, twin

OTHERS = [way for way in WAYS if way != "native"]


@pytest.fixture(params=OTHERS)
def _other_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = make_reader(way=request.param)
    if request.param == "dlpack" and reader.way == "none":
        pytest.skip("this torch has no DLPack exchange table")
    assert reader.way == request.param
    monkeypatch.setattr(onepass.step.stepper, "READER", reader)


def test_the_best_way_is_used() -> None:
    assert READER.way == (os.environ.get("ONEPASS_READER") or "native")
    assert is_tested(torch.__version__)


def test_a_version_that_was_not_tested_is_read_in_the_public_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ONEPASS_READER", raising=False)
    assert wanted_way("2.13.0+cpu") == "native"
    for unknown in ("2.8.0", "2.99.0", "3.0.1+cu140", "2.1.2"):
        assert wanted_way(unknown) == "dlpack"
        assert f"torch {unknown} is not among" in str(
            reason_for_way(make_reader(way="dlpack"), unknown)
        )


def test_a_slow_way_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEPASS_READER", raising=False)
    monkeypatch.setattr(onepass.reader, "reason_for_way", lambda: "torch 2.99.0 is not tested")
    monkeypatch.setattr(onepass.reader, "_told", False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            params = parameters([(3,)])
            gradients(params)
            onepass.SGD(params, lr=0.1).step()
    assert [one.category for one in caught] == [RuntimeWarning]
    assert "torch 2.99.0 is not tested: steps of many small tensors" in str(caught[0].message)
    assert caught[0].filename == __file__


@cases.classes
def test_loaded_states_are_found_by_their_names(case: Case) -> None:
    """Names that a file has brought are other objects than ours, which only comparing their letters would tell."""
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    gradients([p])
    optimizer.step()
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    optimizer.load_state_dict(torch.load(saved, weights_only=True))
    assert all(key is sys.intern(key) for key in optimizer.state[p])


def test_the_way_can_be_forced() -> None:
    code = "from onepass.reader import READER; print(READER.way)"
    for way in WAYS:
        found = run_python(code, ONEPASS_READER=way).stdout.strip()
        assert found in (way, "none")
    assert "ONEPASS_READER=quick" in run_python(code, ONEPASS_READER="quick").stderr


@pytest.mark.parametrize("way", ["native", "functions"])
def test_a_step_runs_no_python_for_each_parameter(way: str) -> None:
    """Neither for gradients nor for states: the profiler sees as many events for 1000 parameters as for 10."""
    done = run_python(EVENTS, ONEPASS_READER=way)
    assert (done.returncode, done.stdout.strip()) == (0, "right"), done.stdout + done.stderr


EVENTS = """
import sys
import torch, onepass
def events(kind, count, **options):
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(count)]
    optimizer = kind(params, lr=0.1, **options)
    for p in params:
        p.grad = torch.ones_like(p)
    for _ in range(3):
        optimizer.step()
    seen = []
    sys.setprofile(lambda frame, event, argument: seen.append(event))
    optimizer.step()
    sys.setprofile(None)
    return len(seen)
for kind, options in ((onepass.SGD, {}), (onepass.SGD, {"momentum": 0.9}), (onepass.Adagrad, {}),
                      (onepass.RMSprop, {"centered": True}), (onepass.AdamW, {}), (onepass.Adam, {"ema_decay": 0.9})):
    few, many = events(kind, 10, **options), events(kind, 1000, **options)
    assert few == many < 40, (kind, options, few, many)
print("right")
"""


@cases.all_dtypes
@cases.rules
@pytest.mark.usefixtures("_other_way")
def test_formula(case: Case, dtype: torch.dtype) -> None:
    params = parameters([(67,), (), (0,), (3, 4), (1,), (2, 0, 3)], dtype)
    params.append(nn.Parameter(torch.randn(5, 9).to(dtype).t()))
    params.append(nn.Parameter(torch.randn(6, 11).to(dtype)[1:, 2:9:2]))
    optimizer = case.ours(params)
    for _ in range(2):
        gradients(params)
        params[3].grad = torch.ones((), dtype=dtype).expand(3, 4)
        want = [expected_step(case, optimizer, p) for p in params]
        optimizer.step()
        for p, (value, magnitude, _) in zip(params, want, strict=True):
            tolerances.one_rounding(p, value, magnitude)


@cases.classes
def test_all_ways_in_turn(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = parameters([(67,), (3, 4)])
    plain = twin(ours)
    optimizer, reference = case.ours(ours), case.ours(plain)
    readers = [make_reader(way=way) for way in WAYS]
    for step in range(6):
        gradients(ours, plain)
        with monkeypatch.context() as context:
            reader = readers[step % 3]
            if reader.way != "none":
                context.setattr(onepass.step.stepper, "READER", reader)
            optimizer.step()
        reference.step()
    for p, q in zip(ours, plain, strict=True):
        tolerances.exact(p, q)


@pytest.mark.filterwarnings(
    "ignore:Sparse invariant checks:UserWarning"
)  # torch's own, in its Adagrad
@cases.classes
@pytest.mark.usefixtures("_other_way")
def test_what_is_not_covered_falls_back(case: Case) -> None:
    """Complex numbers, other devices, sparse gradients."""
    c = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    m = nn.Parameter(torch.empty(3, device="meta"))
    (p,) = parameters([(5,)])
    groups = [{"params": [c]}, {"params": [m]}, {"params": [p]}]
    optimizer = case.ours(
        groups, maximize=False, weight_decay=0.0
    )  # torch's sparse step knows no decay
    c.grad, m.grad, p.grad = torch.ones_like(c), torch.empty_like(m), torch.ones(5)
    before = p.detach().clone()
    optimizer.step()
    assert bool((p < before).all())
    assert not torch.equal(c, torch.ones_like(c))
    if case.name in ("SGD", "Adagrad"):
        p.grad = torch.ones(5).to_sparse()
        before = p.detach().clone()
        optimizer.step()
        assert not torch.equal(p, before)


@pytest.mark.usefixtures("_other_way")
def test_errors() -> None:
    (p, q) = parameters([(5,), (4,)])
    optimizer = cases.BY_ID["adam"].ours([p, q])
    gradients([p, q])
    optimizer.step()
    before = p.detach().clone()
    q.data = torch.zeros(3)
    with pytest.raises(RuntimeError, match=r"parameter 1 of group 0.*\(3,\).*\(4,\)"):
        optimizer.step()
    q.data = torch.zeros(4)
    optimizer.state[q]["exp_avg"].untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r"parameter 1 of group 0.*exp_avg"):
        optimizer.step()
    tolerances.exact(p, before)


@pytest.mark.usefixtures("_other_way")
def test_lazily_negated_gradient() -> None:
    p = nn.Parameter(torch.zeros(4))
    p.grad = torch.complex(torch.zeros(4), torch.ones(4)).conj().imag
    assert p.grad.is_neg()
    cases.BY_ID["sgd"].ours([p], lr=1.0).step()
    assert p.tolist() == [1.0] * 4


def test_lazily_negated_gradient_in_one_piece() -> None:
    p = nn.Parameter(torch.zeros(4))
    p.grad = torch._neg_view(torch.ones(4))
    cases.BY_ID["sgd"].ours([p], lr=1.0).step()
    assert p.tolist() == [1.0] * 4


@cases.classes
def test_lazy_clones(case: Case) -> None:
    """Memory that is shared until it is written to is copied then, though its tensors are of a known kind."""
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    for _ in range(2):
        gradients([p])
        optimizer.step()
    clone = torch._lazy_clone(p.detach())
    before = p.detach().tolist()
    optimizer.step()
    assert clone.tolist() == before
    assert p.tolist() != before


@cases.classes
def test_memory_that_must_not_be_written_to(case: Case) -> None:
    """Torch marks memory that has been taken away, in CUDA graphs for instance: as torch's own step, ours refuses it."""
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    for _ in range(2):
        gradients([p])
        optimizer.step()
    before, address = p.detach().clone(), p.data_ptr()
    torch._C._set_throw_on_mutable_data_ptr(p)
    with pytest.raises(RuntimeError, match="data pointer"):
        optimizer.step()
    there = torch.frombuffer(bytearray(ctypes.string_at(address, 20)), dtype=torch.float32)
    tolerances.exact(there, before)


def test_what_is_no_tensor() -> None:
    params = parameters([(5,)] * 4)
    optimizer = cases.BY_ID["adam"].ours(params)
    gradients(params)
    optimizer.step()
    before = [p.tolist() for p in params]
    optimizer.param_groups[0]["params"].append("text")
    with pytest.raises(AttributeError, match="grad"):
        optimizer.step()
    assert [p.tolist() for p in params] == before


@pytest.mark.parametrize(
    "mode", ["torch.inference_mode()", "torch._subclasses.FakeTensorMode()", "torch.device('meta')"]
)
def test_import_in_a_mode(mode: str) -> None:
    """Tensors are not what they seem there, so that no places are found, or the wrong ones."""
    code = f"""
import torch
with {mode}:
    import onepass
p = torch.nn.Parameter(torch.zeros(3))
optimizer = onepass.SGD([p], lr=1.0)
for _ in range(2):
    p.grad = torch.ones(3)
    optimizer.step()
assert p.tolist() == [-2.0] * 3
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


@cases.classes
def test_swapped_tensors(case: Case) -> None:
    """`torch.utils.swap_tensors` exchanges what two Python objects hold, of parameters and of states."""
    (p,) = parameters([(5,)])
    (q,) = twin([p])
    optimizer, reference = case.ours([p]), case.ours([q])
    for step in range(4):
        p.grad = None
        if step == 2:
            torch.utils.swap_tensors(p, nn.Parameter(p.detach().clone()))  # type: ignore[no-untyped-call]
            for value in optimizer.state[p].values():
                if isinstance(value, torch.Tensor):
                    torch.utils.swap_tensors(value, value.clone())  # type: ignore[no-untyped-call]
        gradients([p], [q])
        optimizer.step()
        reference.step()
    tolerances.exact(p, q)


def test_states_change_their_places() -> None:
    """A group that is to have a state from now on does not take that of its neighbour."""
    params = parameters([(5,)] * 4)
    plain = twin(params)
    optimizer, reference = (
        library.SGD(
            [{"params": own[:1], "momentum": 0.0}, {"params": own[1:]}], lr=0.1, momentum=0.9
        )
        for library, own in ((onepass, params), (torch.optim, plain))
    )
    for step in range(6):
        if step == 3:
            for each in (optimizer, reference):
                each.param_groups[0]["momentum"] = 0.9
        gradients(params[1:], plain[1:])
        optimizer.step()
        reference.step()
    for p, q in zip(params, plain, strict=True):
        torch.testing.assert_close(p, q, **tolerances.accumulated(6))


@cases.classes
def test_a_converted_parameter_takes_no_other_state_for_its_master(case: Case) -> None:
    """A float32 parameter needs no master: the place where that would be must not hold its anchor."""
    params = parameters([(300,), (7,)])
    optimizer = case.ours(params, master_weights=True)
    onepass.transfer.anchor_decay(optimizer, 0.1)
    for _ in range(2):
        gradients(params)
        optimizer.step()
    for p in params:
        p.grad = None
        p.data = p.data.half()
    anchors = [optimizer.state[p][ANCHOR].clone() for p in params]
    for _ in range(2):
        gradients(params)
        optimizer.step()
    for p, anchor in zip(params, anchors, strict=True):
        tolerances.exact(optimizer.state[p][ANCHOR], anchor)
        assert torch.equal(optimizer.state[p][MASTER].half(), p.detach())
