"""Bad input: a clear error before anything is written."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import onepass
from onepass.schedule import Linear
from tests import cases, tolerances
from tests.cases import Case, Wrong
from tests.helpers import gradients, parameters, run_in_children


def complete(wrong: Wrong) -> dict[str, Any]:
    return dict(wrong.options)


@cases.wrong
def test_hyper_parameter_in_the_constructor(wrong: Wrong) -> None:
    kind = next(c for c in cases.CLASSES if c.name == wrong.name)
    params = parameters([(3,)])
    with pytest.raises(wrong.error, match=wrong.match):
        kind.kind(params, **complete(wrong))
    if wrong.as_torch:
        with pytest.raises(wrong.error):
            kind.torch_kind(params, **complete(wrong))


@pytest.mark.parametrize(
    "wrong",
    {  # by the constructor's function: one value of each
        (w.name, *w.options): w
        for w in cases.WRONG
        if not {"fused", "nesterov"} & set(w.options) and w.options.get("betas") != (0, 0.999)
    }.values(),
    ids=str,
)
def test_hyper_parameter_in_a_group(wrong: Wrong) -> None:
    case = next(c for c in cases.CLASSES if c.name == wrong.name)
    (p, q) = parameters([(3,), (3,)])
    with pytest.raises(wrong.error, match=wrong.match):
        case.ours([{"params": [p]}, {"params": [q], **complete(wrong)}])
    optimizer = case.ours([p])
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(wrong.error, match=wrong.match):
        optimizer.add_param_group({"params": [q], **complete(wrong)})
    assert len(optimizer.param_groups) == 1
    assert repr(optimizer.state_dict()) == repr(before)
    optimizer.add_param_group({"params": [q]})


@cases.classes
def test_boundaries_are_allowed(case: Case) -> None:
    """Zero is in every range, infinity too."""
    (p,) = parameters([(3,)])
    zeros = {
        key: 0.0
        for key in ("lr", "weight_decay", "eps", "lr_decay", "alpha", "initial_accumulator_value")
        if key in case.hyper
    }
    case.kind([p], **zeros, l1_decay=0.0)
    case.kind([p], lr=float("inf"))
    if "betas" in case.hyper:
        case.kind([p], betas=(0.0, 0.0))


@cases.classes
def test_bad_parameter_lists_as_torch(case: Case) -> None:
    (p,) = parameters([(3,)])
    for bad in ([], [1.0], [[p]], p, [{"params": [p]}, {"params": [p]}], [p * 2]):
        errors = []
        for make in (case.ours, case.torchs):
            with pytest.raises((ValueError, TypeError)) as info:
                make(bad)
            errors.append((info.type, str(info.value)))
        assert errors[0] == errors[1]


@cases.classes
def test_bad_groups_as_torch(case: Case) -> None:
    (p, q) = parameters([(3,), (3,)])
    for bad in (3, {"params": [p]}, {"params": {q}}, {}, {"params": [q * 2]}):
        errors = []
        for make in (case.ours, case.torchs):
            optimizer = make([p])
            with pytest.raises((ValueError, TypeError, KeyError)) as info:
                optimizer.add_param_group(bad)
            errors.append((info.type, str(info.value)))
        assert errors[0] == errors[1]


def steppable(case: Case) -> tuple[list[Any], Any]:
    """Return an optimizer of three parameters, stepped once, with new gradients."""
    params = parameters([(5,), (4, 3), (70,)])
    optimizer = case.ours([{"params": params[:2]}, {"params": params[2:]}])
    gradients(params)
    optimizer.step()
    gradients(params)
    return params, optimizer


def values(params: list[Any], optimizer: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in params] + [
        value.clone()
        for p in params
        for value in optimizer.state.get(p, {}).values()
        if isinstance(value, torch.Tensor) and value.untyped_storage().size()
    ]


def assert_refused(
    params: list[Any], optimizer: Any, match: str, error: Any = RuntimeError
) -> None:
    before = values(params, optimizer)
    versions = [p._version for p in params]
    with pytest.raises(error, match=match):
        optimizer.step()
    for now, old in zip(values(params, optimizer), before, strict=True):
        tolerances.exact(now, old)
    assert [p._version for p in params] == versions


@cases.classes
def test_gradient_of_another_shape(case: Case) -> None:
    """`p.data = smaller` leaves the old gradient: torch would broadcast it or fail halfway."""
    params, optimizer = steppable(case)
    params[1].data = torch.randn(2, 3)
    assert_refused(params, optimizer, r"parameter 1 of group 0.*\(2, 3\).*\(4, 3\)")


@cases.classes
def test_gradient_that_would_broadcast(case: Case) -> None:
    params, optimizer = steppable(case)
    params[1].data = torch.randn(1, 4, 3)
    assert_refused(params, optimizer, r"parameter 1 of group 0.*\(1, 4, 3\).*\(4, 3\)")


@cases.classes
def test_names_in_messages(case: Case) -> None:
    module = torch.nn.Linear(4, 3)
    optimizer = case.ours(module.named_parameters())
    gradients(list(module.parameters()))
    module.bias.data = torch.randn(7)
    with pytest.raises(RuntimeError, match="bias"):
        optimizer.step()


@cases.classes
def test_state_of_another_shape(case: Case) -> None:
    params, optimizer = steppable(case)
    key = case.state_keys[-1]
    optimizer.state[params[1]][key] = torch.zeros(3, 4)
    assert_refused(params, optimizer, rf"parameter 1 of group 0.*{key}.*\(3, 4\).*\(4, 3\)")


@cases.classes
def test_state_of_another_type(case: Case) -> None:
    for bad in (3.0, [1, 2], torch.zeros(4, 3, dtype=torch.int32)):
        params, optimizer = steppable(case)
        key = case.state_keys[0]
        optimizer.state[params[1]][key] = bad
        assert_refused(params, optimizer, rf"parameter 1 of group 0.*{key}")


@cases.classes
def test_step_count_of_another_form(case: Case) -> None:
    if case.name == "SGD":
        pytest.skip("SGD keeps no count")
    params, optimizer = steppable(case)
    optimizer.state[params[1]]["step"] = torch.zeros(2)
    assert_refused(params, optimizer, r"parameter 1 of group 0.*step")


@cases.classes
def test_part_of_a_state(case: Case) -> None:
    if len(case.state_keys) < 2 or case.name == "RMSprop":
        pytest.skip("one state, or states that come when an option is switched on")
    params, optimizer = steppable(case)
    del optimizer.state[params[1]][case.state_keys[0]]
    assert_refused(params, optimizer, rf"parameter 1 of group 0.*{case.state_keys[0]}")


@cases.classes
@pytest.mark.parametrize("what", ["parameter", "gradient", "state"])
def test_storage_resized_to_nothing(case: Case, what: str) -> None:
    """FSDP frees memory like this; the message says which parameter."""
    params, optimizer = steppable(case)
    p = params[1]
    victim = {"parameter": p, "gradient": p.grad, "state": optimizer.state[p][case.state_keys[0]]}[
        what
    ]
    victim.untyped_storage().resize_(0)
    others = [params[0], params[2]]
    before = [x.detach().clone() for x in others]
    with pytest.raises(RuntimeError, match="parameter 1 of group 0"):
        optimizer.step()
    for x, old in zip(others, before, strict=True):
        tolerances.exact(x, old)


RESIZED_VIEWS = """
import onepass

def work(what):
    base = torch.zeros(1000)
    p = torch.nn.Parameter(torch.zeros(900))
    optimizer = onepass.Adam([p])
    p.grad = torch.ones(900)
    optimizer.step()
    view = base[100:]
    if what == "parameter":
        p.data = view
    elif what == "gradient":
        p.grad = view
    else:
        optimizer.state[p][what] = view
    base.untyped_storage().resize_(0)
    optimizer.step()

for what in ("parameter", "gradient", "exp_avg"):
    results[what] = in_child(lambda: work(what))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_views_of_a_storage_resized_to_nothing() -> None:
    """A view with an offset into memory that is gone: its address is not null."""
    results = run_in_children(RESIZED_VIEWS)
    for what, (text, code) in results.items():
        assert (what, code) == (what, 1)
        assert text.startswith("RuntimeError")
        assert "parameter 0 of group 0" in text


@cases.classes
def test_overlapping_parameter(case: Case) -> None:
    """Elements that share memory cannot be updated in place: torch's own error, nothing of the kernels' written."""
    (p,) = parameters([(5,)])
    q = torch.nn.Parameter(torch.ones(1).expand(4))
    optimizer = case.ours([{"params": [p]}, {"params": [q]}])
    p.grad, q.grad = torch.ones(5), torch.ones(4)
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match="memory location"):
        optimizer.step()
    tolerances.exact(p, before)


@cases.classes
def test_state_that_overlaps_is_made_whole(case: Case) -> None:
    """An expanded state tensor cannot be written; the step goes on with a copy of its own."""
    params, optimizer = steppable(case)
    key = case.state_keys[0]
    optimizer.state[params[1]][key] = torch.tensor(0.5).expand(4, 3)
    optimizer.step()
    stored = optimizer.state[params[1]][key]
    assert stored.unique().numel() > 1


@cases.classes
def test_group_key_removed(case: Case) -> None:
    params, optimizer = steppable(case)
    del optimizer.param_groups[1]["lr"]
    assert_refused(params, optimizer, "lr", KeyError)


@cases.classes
def test_hyper_parameter_of_another_type(case: Case) -> None:
    params, optimizer = steppable(case)
    optimizer.param_groups[1]["lr"] = "fast"
    assert_refused(params, optimizer, "fast", (ValueError, TypeError))
    optimizer.param_groups[1]["lr"] = None
    assert_refused(params, optimizer, "None", TypeError)


@cases.classes
def test_step_goes_on_after_an_error(case: Case) -> None:
    params, optimizer = steppable(case)
    kept = params[1].data
    params[1].data = torch.randn(2, 3)
    with pytest.raises(RuntimeError):
        optimizer.step()
    params[1].data = kept
    before = [p.detach().clone() for p in params]
    optimizer.step()
    for p, old in zip(params, before, strict=True):
        assert not torch.equal(p, old)


NONSENSE = """
import onepass
from onepass import _core
from onepass.reader import READER
p = torch.nn.Parameter(torch.zeros(3))
p.grad = torch.ones(3)
rules = {name: spec[0] for name, spec in _core.specs().items()}
good = (1.0, 0.0, 1.0, 0.0, 0.0, 0.1)
groups = [
    (),
    ([p],),
    ([p], rules["sgd"], (), False),
    ([p], 99, (), False, good),
    ([p], -1, (), False, good),
    ([p], rules["sgd"], ("a",), False, good),
    ([p], rules["adam"], (), True, good),
    ([p], rules["sgd"], (), False, ()),
    ([p], rules["sgd"], (), False, good * 9),
    ([p], rules["sgd"], (), False, ("x",) * 6),
    ([3], rules["sgd"], (), False, good),
    ([None], rules["sgd"], (), False, good),
    (3, rules["sgd"], (), False, good),
    None,
]
def work(group):
    done = _core.step(READER, [group], {}, set(), False)
    print("nothing done" if not done or not isinstance(done, list) else "done")

for i, group in enumerate(groups):
    results[f"{i} {group}"] = in_child(lambda: work(group))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_nonsense_at_the_extension_does_not_crash() -> None:
    for what, (text, code) in run_in_children(NONSENSE).items():
        assert code == 1 or text == "nothing done", f"{what}: {text} ({code})"


# What was meant


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("learning_rate", "lr"),
        ("weight_deacy", "weight_decay"),
        ("max_grad_nrom", "max_grad_norm"),
        ("clipnorm", "max_grad_norm"),
        ("ema", "ema_decay"),
        ("beta_1", "betas"),
        ("master_weight", "master_weights"),
    ],
)
def test_misspelt_arguments(name: str, meant: str) -> None:
    options: Any = {name: 0.5}
    message = rf"unexpected keyword argument '{name}'; did you mean {meant}\?"
    with pytest.raises(TypeError, match=message):
        onepass.AdamW(parameters([(3,)]), **options)


def test_unknown_arguments() -> None:
    options: Any = {"zzz": 0.5}
    with pytest.raises(TypeError, match=r"'zzz'; the options are l1_decay, .*, seed"):
        onepass.AdamW(parameters([(3,)]), **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lr": "1e-3"}, r"'1e-3' \(lr must be a number >= 0\): write lr=0.001, without quotes"),
        ({"lr": "fast"}, r"'fast' \(lr must be a number >= 0\)$"),
        ({"lr": Linear}, r"Linear is a class, write lr=Linear\(...\)"),
        ({"weight_decay": Linear}, r"write weight_decay=Linear\(...\)"),
        ({"lr": None}, r"None \(lr must be a number >= 0\)"),
    ],
    ids=str,
)
def test_remedies(options: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        onepass.AdamW(parameters([(3,)]), **options)


def test_misspelt_entries_of_groups_are_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign entries are allowed, others than the optimizer read them."""
    monkeypatch.setattr(onepass.hyper.options, "_told", set())
    groups: list[dict[str, Any]] = [
        {
            "params": parameters([(3,)]),
            "weight_decy": 0.1,
            "note": "anything",
            "lr_scale": 0.5,
            "lr_decay": 0.1,
        },
    ]
    with pytest.warns(UserWarning, match="'weight_decy' .* did you mean 'weight_decay'") as seen:
        optimizer = onepass.AdamW(groups)
    assert [Path(warning.filename).name for warning in seen] == [Path(__file__).name]
    onepass.AdamW([{**groups[0], "params": parameters([(3,)])}])
    optimizer.add_param_group({"params": parameters([(3,)]), "initial_lr": 0.1})
    assert optimizer.param_groups[0]["weight_decy"] == 0.1


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(
    ("saved", "loads", "match"),
    [
        ("SGD", "AdamW", "not one of AdamW: its parameter group 0 has no betas, eps"),
        ("AdamW", "SGD", "not one of SGD: its parameter group 0 has no momentum, dampening"),
        ("AdamW", "RMSprop", "not one of RMSprop: .* has no alpha"),
        ("RMSprop", "Adagrad", "not one of Adagrad: .* has no lr_decay"),
        ("Adagrad", "Adam", "not one of Adam: .* has no betas"),
    ],
)
def test_checkpoints_of_another_class(saved: str, loads: str, match: str, steps: int) -> None:
    params = parameters([(3,)])
    other = getattr(torch.optim, saved)(params)
    for _ in range(steps):
        gradients(params)
        other.step()
    optimizer = getattr(onepass, loads)(parameters([(3,)]))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=match):
        optimizer.load_state_dict(other.state_dict())
    assert repr(optimizer.state_dict()) == repr(before)
