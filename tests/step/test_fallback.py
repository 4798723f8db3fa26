"""What the kernels do not cover runs torch's own step, for that group alone."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, gradients, parameters, twin

sparse_cases = pytest.mark.parametrize(
    "case", [cases.BY_ID[id] for id in ("sgd", "sgd-momentum", "adagrad")], ids=str
)


@pytest.mark.filterwarnings(
    "ignore:Sparse invariant checks:UserWarning"
)  # torch's own, in its Adagrad
@sparse_cases
def test_sparse_gradients(case: Case) -> None:
    results = []
    for make in (case.ours, case.torchs):
        torch.manual_seed(1)
        model = nn.ModuleList([nn.Embedding(9, 4, sparse=True), nn.Linear(4, 3)])
        optimizer = make([{"params": model[0].parameters()}, {"params": model[1].parameters()}])
        for step in range(4):
            index = torch.tensor([step, 3, 3, 8])
            optimizer.zero_grad()
            loss: Any = model[1](model[0](index)).square().sum()
            loss.backward()
            assert next(model.parameters()).grad.is_sparse  # type: ignore[union-attr]
            optimizer.step()
        results.append(optimizer)
    assert_same(*results, **tolerances.accumulated(4))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@sparse_cases
def test_sparse_and_dense_gradients_in_one_group(case: Case) -> None:
    """The whole group runs torch's step, now and then: the states are the same for both ways."""
    ours = parameters([(6, 3), (5,)])
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for step in range(6):
        gradients(ours, theirs)
        if step % 2:
            for params in (ours, theirs):
                assert params[0].grad is not None
                params[0].grad = params[0].grad.to_sparse()
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(6))


@pytest.mark.parametrize("case", [cases.BY_ID["adam"], cases.BY_ID["rmsprop"]], ids=str)
def test_sparse_gradients_that_torch_refuses(case: Case) -> None:
    """Torch's error, and the other group is not half-updated."""
    (p, q) = parameters([(5,), (6, 3)])
    optimizer = case.ours([{"params": [p]}, {"params": [q]}])
    p.grad, q.grad = torch.ones(5), torch.ones(6, 3).to_sparse()
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    tolerances.exact(p, before)
    assert len(optimizer.state.get(p, {})) == 0


@cases.all_cases
def test_complex_parameters(case: Case) -> None:
    ours = [nn.Parameter(torch.randn(5, dtype=torch.complex64)), nn.Parameter(torch.randn(3))]
    theirs = copy.deepcopy(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(4))


@cases.all_cases
def test_differentiable(case: Case) -> None:
    """Autograd follows the step: the derivative of the new weights by the old ones."""
    slopes = []
    start, grad = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    for make in (case.ours, case.torchs):
        leaf = start.clone().requires_grad_()
        p = leaf.clone()
        optimizer = make([p.detach().requires_grad_()], differentiable=True)
        optimizer.param_groups[0]["params"] = [p]
        optimizer.state.clear()
        if case.name == "Adagrad":
            optimizer.state[p] = {"step": torch.tensor(0.0), "sum": torch.full_like(start, 0.1)}
        p.grad = (grad * leaf).clone()
        optimizer.step()
        slopes.append(torch.autograd.grad(p.sum(), leaf)[0])
    torch.testing.assert_close(*slopes)


def test_differentiable_learning_rate() -> None:
    """A tensor lr that requires grad: the derivative by the learning rate, as in torch's documentation."""
    case = cases.BY_ID["sgd"]
    slopes = []
    for make in (case.ours, case.torchs):
        lr = torch.tensor(0.1, requires_grad=True)
        p = torch.ones(3, requires_grad=True).clone()
        optimizer = make([torch.ones(3, requires_grad=True)], lr=lr, differentiable=True)
        optimizer.param_groups[0]["params"] = [p]
        p.grad = torch.tensor([1.0, 2.0, 3.0])
        optimizer.step()
        slopes.append(torch.autograd.grad(p.sum(), lr)[0])
    assert slopes[0] == slopes[1] == -6.0


@cases.classes
def test_differentiable_group_beside_a_plain_one(case: Case) -> None:
    ours = parameters([(5,), (70,)])
    theirs = twin(ours)
    optimizers = [
        make([{"params": params[:1], "differentiable": True}, {"params": params[1:]}])
        for make, params in ((case.ours, ours), (case.torchs, theirs))
    ]
    for _ in range(3):
        gradients(ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
    assert_same(*optimizers, **tolerances.accumulated(3))


class Dispatching(torch.Tensor):
    """A subclass whose numbers are elsewhere: it has shape and dtype, but no memory of its own."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Dispatching:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device, strides=inner.stride()
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.numbers = inner

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        from torch.utils._pytree import tree_map_only

        inner_args, inner_kwargs = tree_map_only(
            Dispatching, lambda t: t.numbers, (args, kwargs or {})
        )
        out = func(*inner_args, **inner_kwargs)
        if func.__name__.endswith("_.Scalar") or func.__name__.split(".")[0].endswith("_"):
            return args[0]
        return tree_map_only(torch.Tensor, Dispatching, out)


class Watching(torch.Tensor):
    """A subclass with memory of its own that wants to see every operation."""

    seen: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(getattr(func, "__name__", str(func)))
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


@cases.classes
def test_wrapper_subclass(case: Case) -> None:
    inner = torch.randn(5)
    grads = [torch.randn(5) for _ in range(3)]
    p = nn.Parameter(Dispatching(inner.clone()))
    q = nn.Parameter(inner.clone())
    optimizer, torchs = case.ours([p]), case.torchs([q])
    for grad in grads:
        p.grad, q.grad = Dispatching(grad.clone()), grad.clone()
        optimizer.step()
        torchs.step()
    assert isinstance(p.data, Dispatching)
    torch.testing.assert_close(p.data.numbers, q.detach(), **tolerances.accumulated(3))


@cases.classes
def test_watching_subclass_sees_the_operations(case: Case) -> None:
    p = torch.randn(5).as_subclass(Watching).requires_grad_()
    q = nn.Parameter(p.detach().as_subclass(torch.Tensor).clone())
    optimizer, torchs = case.ours([p]), case.torchs([q])
    for _ in range(3):
        q.grad = torch.randn(5)
        p.grad = q.grad.clone().as_subclass(Watching)
        Watching.seen.clear()
        optimizer.step()
        torchs.step()
        assert any(name.endswith("_") and not name.startswith("__") for name in Watching.seen)
    torch.testing.assert_close(
        p.detach().as_subclass(torch.Tensor), q.detach(), **tolerances.accumulated(3)
    )


class Plain(nn.Parameter):
    """A subclass that only adds attributes, as timm, peft and vllm have."""


@cases.classes
def test_plain_subclasses(case: Case) -> None:
    ours = [Plain(torch.randn(5)), nn.Buffer(torch.randn(5)).requires_grad_()]
    theirs = twin([nn.Parameter(p.detach().clone()) for p in ours])
    optimizer, torchs = (
        case.ours(ours, l1_decay=1e-30),
        case.torchs(theirs),
    )  # with our option: the kernels
    for _ in range(3):
        gradients(ours, theirs)  # type: ignore[arg-type]
        optimizer.step()
        torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            p.detach(), q.detach(), check_dtype=False, **tolerances.accumulated(3)
        )


@cases.classes
def test_meta_tensors(case: Case) -> None:
    """Nothing to compute, and nothing to read: as with torch."""
    p = nn.Parameter(torch.randn(5))
    m = nn.Parameter(torch.empty(4, 3, device="meta"))
    optimizer = case.ours([{"params": [m]}, {"params": [p]}], maximize=False)
    for _ in range(2):
        m.grad, p.grad = torch.empty(4, 3, device="meta"), torch.ones(5)
        before = p.detach().clone()
        optimizer.step()
        assert bool((p.detach() < before).all())
    assert m.is_meta
    for key in case.state_keys:
        assert optimizer.state[m][key].is_meta


def negated(x: torch.Tensor) -> torch.Tensor:
    """Return -x as a view that torch negates lazily."""
    view = torch.complex(torch.zeros_like(x), x).conj().imag
    assert view.is_neg()
    return view


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (5, 1)], ids=str)
@cases.classes
def test_lazily_negated_gradients(case: Case, shape: tuple[int, ...]) -> None:
    """Their memory holds the numbers with the wrong sign."""
    ours = parameters([shape])
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for _ in range(3):
        gradients(theirs)
        assert theirs[0].grad is not None
        ours[0].grad = negated(-theirs[0].grad)
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


@cases.classes
def test_lazily_negated_parameter_and_state(case: Case) -> None:
    ours = parameters([(7,)])
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for step in range(4):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
        if step == 1:
            ours[0].data = negated(-ours[0].detach())
        if step == 2:
            for key in case.state_keys:
                optimizer.state[ours[0]][key] = negated(-optimizer.state[ours[0]][key])
    assert_same(optimizer, torchs, **tolerances.accumulated(4))


@cases.classes
def test_zero_tensors_as_gradients(case: Case) -> None:
    """Tensors that are known to be zero and have no memory at all."""
    ours = parameters([(7,)])
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    ours[0].grad = torch._efficientzerotensor((7,))
    theirs[0].grad = torch.zeros(7)
    optimizer.step()
    torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(1))


def test_mkldnn_tensors() -> None:
    """Dense numbers in a layout without strides."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("no mkldnn")
    case = cases.BY_ID["sgd-momentum"]
    (q,) = parameters([(4, 4)])
    p = nn.Parameter(q.detach().to_mkldnn())
    optimizer, torchs = case.ours([p]), case.torchs([q])
    for _ in range(3):
        q.grad = torch.randn(4, 4)
        p.grad = q.grad.to_mkldnn()
        optimizer.step()
        torchs.step()
    assert p.is_mkldnn
    torch.testing.assert_close(p.detach().to_dense(), q.detach(), **tolerances.accumulated(3))


@cases.classes
@pytest.mark.parametrize("cause", ["complex", "differentiable", "subclass"])
def test_own_option_on_a_group_that_falls_back(case: Case, cause: str) -> None:
    """A clear error instead of a silent drop, and nothing has changed."""
    p = nn.Parameter(torch.randn(5))
    q: Any = nn.Parameter(torch.randn(5))
    if cause == "complex":
        q = nn.Parameter(torch.randn(5, dtype=torch.complex64))
    elif cause == "subclass":
        q = nn.Parameter(Dispatching(torch.randn(5)))
    optimizer = case.ours(
        [
            {"params": [p]},
            {"params": [q], "l1_decay": 0.125, "differentiable": cause == "differentiable"},
        ]
    )
    p.grad = torch.ones(5)
    q.grad = Dispatching(torch.ones(5)) if cause == "subclass" else torch.ones_like(q)
    numbers = q.numbers if cause == "subclass" else q
    kept = [x.detach().clone() for x in (p, numbers)]
    states = {key: len(value) for key, value in optimizer.state.items()}
    with pytest.raises(RuntimeError, match=r"l1_decay=0\.125.*group 1"):
        optimizer.step()
    for x, old in zip((p, numbers), kept, strict=True):
        assert torch.equal(x, old)
    if case.name == "Adagrad":
        assert float(optimizer.state[p]["step"]) == 0
    else:
        assert {key: len(value) for key, value in optimizer.state.items() if value} == states
    q.grad = None
    if cause != "differentiable":
        optimizer.step()  # the group has nothing to do, the other one moves
        assert not torch.equal(p, kept[0])


@cases.classes
def test_fallback_in_a_dispatch_mode(case: Case) -> None:
    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        calls = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.calls += 1
            return func(*args, **(kwargs or {}))

    c = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    optimizer = case.ours([c])
    c.grad = torch.ones(3, dtype=torch.complex64)
    before = c.detach().clone()
    with Counting() as mode:  # type: ignore[no-untyped-call]
        optimizer.step()
    assert mode.calls
    assert not torch.equal(c, before)


@cases.classes
def test_subclass_of_ours_falls_back_to_torchs_step(case: Case) -> None:
    """The nearest step of torch's, not the subclass's own: no endless recursion."""

    class Mine(case.kind):  # type: ignore[misc,name-defined]
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    c = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    optimizer = Mine([c], **case.options)
    c.grad = torch.ones(3, dtype=torch.complex64)
    before = c.detach().clone()
    optimizer.step()
    assert not torch.equal(c, before)


@cases.classes
def test_closure_runs_once_when_a_group_falls_back(case: Case) -> None:
    c = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    optimizer = case.ours([c])
    calls: list[int] = []

    def closure() -> int:
        c.grad = torch.ones(3, dtype=torch.complex64)
        calls.append(1)
        return 5

    assert optimizer.step(closure) == 5
    assert len(calls) == 1


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A mesh of one process."""
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this torch has no gloo")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    path = str(tmp_path_factory.mktemp("store") / "file")
    store = dist.FileStore(path, 1)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


@cases.classes
def test_dtensors_mixed_with_plain_tensors(case: Case, mesh: Any) -> None:
    """In one group, with an empty shard; torch's fused step fails on each of these."""
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    plain = parameters([(6, 4), (5,), (0, 3), (2,)])
    theirs = twin(plain)
    ours: list[Any] = [
        nn.Parameter(distribute_tensor(plain[0].detach().clone(), mesh, [Shard(0)])),
        plain[1],
        nn.Parameter(distribute_tensor(plain[2].detach().clone(), mesh, [Shard(0)])),
        nn.Parameter(distribute_tensor(plain[3].detach().clone(), mesh, [Replicate()])),
    ]
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for _ in range(3):
        gradients(theirs)
        for p, q in zip(ours, theirs, strict=True):
            assert q.grad is not None
            grad = q.grad.clone()
            p.grad = distribute_tensor(grad, mesh, p.placements) if isinstance(p, DTensor) else grad
        optimizer.step()
        torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        local = p.to_local() if isinstance(p, DTensor) else p
        torch.testing.assert_close(local, q, **tolerances.accumulated(3))
        for key in case.state_keys:
            assert isinstance(optimizer.state[p][key], DTensor) == isinstance(p, DTensor)
            assert optimizer.state[p][key].shape == p.shape


@cases.classes
def test_checkpoint_of_dtensors(case: Case, mesh: Any) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    p = nn.Parameter(distribute_tensor(torch.randn(6, 4), mesh, [Shard(0)]))
    optimizer = case.ours([p])
    p.grad = distribute_tensor(torch.randn(6, 4), mesh, [Shard(0)])
    optimizer.step()
    other = case.ours([p])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.step()
    if case.name != "SGD":
        assert float(other.state[p]["step"]) == 2


@cases.classes
def test_fully_sharded_model(case: Case, mesh: Any) -> None:
    """FSDP2: parameters become DTensors; with our option on them the error says so."""
    from torch.distributed.fsdp import fully_shard

    results = []
    for make in (case.ours, case.torchs):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        fully_shard(model, mesh=mesh)
        optimizer = make(model.parameters(), maximize=False)
        for step in range(3):
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss: Any = model(x).square().mean()
            loss.backward()
            optimizer.step()
        results.append([p.full_tensor().detach() for p in model.parameters()])  # type: ignore[attr-defined]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
