"""Penalties and projections between steps: each paper's arithmetic by hand, and what always holds."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from secateur.ir import InputError
from secateur.passes.train import (
    BatchNormL1,
    Gradual,
    GroupLasso,
    HardThreshold,
    Hook,
    Masks,
    attach,
    magnitude_masks,
    sparsity_at,
)  # fmt: skip
from secateur.passes.train.hard_threshold import hard_threshold
from secateur.passes.train.weights import keep_largest

SEEDS = st.integers(0, 2**16)
SGD = torch.optim.SGD


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


def conv(weight: Tensor, groups: int = 1) -> nn.Conv2d:
    out, into = weight.shape[:2]
    layer = nn.Conv2d(into * groups, out, tuple(weight.shape[2:]), groups=groups, bias=False)
    layer.weight.data = weight.clone()
    return layer


def step(module: nn.Module, optimiser: torch.optim.Optimizer, gradient: float) -> None:
    """One step with this gradient everywhere."""
    for weight in module.parameters():
        weight.grad = torch.full_like(weight, gradient)
    optimiser.step()


def two_filters() -> nn.Conv2d:
    """f0 reads channel 0 by [3, 4], f1 channel 1 by [6, 8]; all else is zero."""
    weight = torch.zeros(2, 2, 1, 2)
    weight[0, 0, 0], weight[1, 1, 0] = torch.tensor([3.0, 4]), torch.tensor([6.0, 8])
    return conv(weight)


@pytest.mark.parametrize(
    ("form", "total"), [("filter", 15.0), ("channel", 15.0), ("shape", 21.0), ("depth", 11.18034)]
)  # fmt: skip
def test_norms_of_the_four_forms_by_hand(form: str, total: float) -> None:
    assert GroupLasso(two_filters(), 1.0, (form,), ("",)).penalty() == pytest.approx(total)  # type: ignore[arg-type]


def test_the_proximal_step_by_hand() -> None:
    layer = two_filters()
    optimiser = SGD(layer.parameters(), 0.5)
    with attach(optimiser, GroupLasso(layer, 12.0, ("filter",))):
        step(layer, optimiser, 0.0)  # rate * strength is 6
    assert not layer.weight[0].any()
    torch.testing.assert_close(layer.weight[1, 1, 0], torch.tensor([2.4, 3.2]))
    step(layer, optimiser, 0.0)
    torch.testing.assert_close(layer.weight[1, 1, 0], torch.tensor([2.4, 3.2]))  # nobody listens any more


def test_the_subgradient_by_hand() -> None:
    layer = two_filters()
    optimiser = SGD(layer.parameters(), 1.0)
    with attach(optimiser, GroupLasso(layer, 1.0, ("filter",), method="subgradient")):
        step(layer, optimiser, 0.0)
    torch.testing.assert_close(layer.weight[0, 0, 0], torch.tensor([2.4, 3.2]))  # by (0.6, 0.8)
    assert not layer.weight[0, 1].any()  # of a zero the subgradient is zero
    layer.weight.data[0, 0, 0] = torch.tensor([9e-5, 4.0])
    with attach(optimiser, GroupLasso(layer, 0.0, method="subgradient")):
        step(layer, optimiser, 0.0)
    assert layer.weight[0, 0, 0].tolist() == [0.0, 4.0]  # the authors' threshold


def test_sizes_weigh_where_asked() -> None:
    assert GroupLasso(two_filters(), 1.0, ("filter",), by_size=True).penalty() == pytest.approx(15 * 2)


def test_groups_of_grouped_and_transposed_convolutions() -> None:
    grouped = conv(torch.ones(4, 2, 1, 1), groups=2)
    assert GroupLasso(grouped, 1.0, ("channel",)).penalty() == pytest.approx(4 * 2**0.5)  # 4 inputs, 2 readers each
    assert GroupLasso(grouped, 1.0, ("shape",)).penalty() == pytest.approx(4 * 2**0.5)
    depthwise = conv(torch.ones(3, 1, 2, 2), groups=3)
    assert GroupLasso(depthwise, 1.0).penalty() == pytest.approx(3 * 2)  # a filter is its channel: counted once
    turned = nn.ConvTranspose2d(3, 4, 2, groups=1, bias=False)
    turned.weight.data = torch.zeros(3, 4, 2, 2)
    turned.weight.data[:, 1] = 1.0
    lasso = GroupLasso(turned, 1.0, ("filter",), method="subgradient")
    assert lasso.zero_groups("filter") == {"": 0.75}
    optimiser = SGD(turned.parameters(), 1.0)
    with attach(optimiser, lasso):
        step(turned, optimiser, 0.0)
    torch.testing.assert_close(turned.weight[:, 1], torch.full((3, 2, 2), 1 - 12**-0.5))


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(["filter", "channel", "shape", "depth"]), st.floats(0, 3), st.booleans())
def test_what_the_proximal_step_keeps(seed: int, form: str, by: float, blocked: bool) -> None:
    """No norm grows, no direction turns, and a group becomes zero where its norm is at most the step."""
    torch.manual_seed(seed)
    layer = conv(torch.randn(4, 2, 2, 2), groups=2)
    if blocked:
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = layer.weight.detach().clone()
    lasso = GroupLasso(layer, by, (form,), ("",))  # type: ignore[arg-type]
    optimiser = SGD(layer.parameters(), 1.0)
    with attach(optimiser, lasso):
        step(layer, optimiser, 0.0)
    after = layer.weight.detach()
    axes = {"filter": (2, 3, 4), "channel": (1, 3, 4), "shape": (1,), "depth": (0, 1, 2, 3, 4)}[form]
    old, new = (w.unflatten(0, (2, 2)).square().sum(axes).sqrt() for w in (before, after))
    assert (new <= old + 1e-6).all()
    assert torch.equal(new == 0, old <= by)
    assert (after * before >= 0).all()
    torch.testing.assert_close(new, (old - by).clamp_min(0), atol=1e-5, rtol=1e-4)
    if by == 0:
        assert torch.equal(before, after)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_norms_are_ordered(seed: int) -> None:
    """Of the layer, of its filters together, of all weights: each is at most the next."""
    torch.manual_seed(seed)
    layer = conv(torch.randn(3, 2, 2, 2))
    depth, filters = (GroupLasso(layer, 1.0, (f,), ("",)).penalty() for f in ("depth", "filter"))  # type: ignore[arg-type]
    assert depth <= filters + 1e-6 <= float(layer.weight.detach().abs().sum()) + 2e-6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"forms": ("depth",)}, "only those can lose"),
        ({"forms": ("filters",)}, "did you mean filter"),
        ({"names": ("nosuch",)}, "names no convolution"),
        ({"method": "exact"}, "there is no method 'exact'"),
        ({"strength": -1.0}, "number from 0 up"),
        ({"strength": float("nan")}, "number from 0 up"),
    ],
)
def test_what_group_lasso_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        GroupLasso(two_filters(), **{"strength": 1.0, **options})  # type: ignore[arg-type]


def test_computed_weights_are_refused() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    with pytest.raises(InputError, match="is computed, not stored"):
        GroupLasso(layer, 1.0)


def test_batch_norm_scales() -> None:
    norm = nn.BatchNorm2d(4)
    norm.weight.data = torch.tensor([0.5, -0.5, 0.05, 0.0])
    optimiser = SGD([norm.weight], 0.1)
    hook = BatchNormL1(norm, 1.0)
    assert hook.penalty() == pytest.approx(1.05)
    with attach(optimiser, hook):
        step(norm, optimiser, 0.0)
    torch.testing.assert_close(norm.weight.data, torch.tensor([0.4, -0.4, -0.05, 0.0]))  # past zero, never at it
    norm.weight.data = torch.tensor([0.5, -0.5, 0.05, 0.0])
    with attach(optimiser, BatchNormL1(norm, 1.0, "proximal")):
        step(norm, optimiser, 0.0)
    torch.testing.assert_close(norm.weight.data, torch.tensor([0.4, -0.4, 0.0, 0.0]))
    hook.initialise()
    assert norm.weight.tolist() == [0.5] * 4
    with pytest.raises(InputError, match="has none"):
        BatchNormL1(nn.Linear(2, 2), 1.0)


def test_hard_thresholding_by_hand() -> None:
    layer = linear([0.5, -2, 0.1, 1.2, -0.05])
    optimiser = SGD(layer.parameters(), 0.1)
    hook = HardThreshold(layer, 0.4, sparse_steps=1, dense_steps=1, rounds=1)
    assert (layer.weight != 0).tolist() == [[False, True, False, True, False]]
    with attach(optimiser, hook):
        step(layer, optimiser, 1.0)
        torch.testing.assert_close(layer.weight.data, torch.tensor([[0, -2.1, 0, 1.1, 0]]))
        assert not hook.sparse
        step(layer, optimiser, 1.0)  # [-.1, -2.2, -.1, 1.0, -.1], and then phase I for good
        torch.testing.assert_close(layer.weight.data, torch.tensor([[0, -2.2, 0, 1.0, 0]]))
        for _ in range(3):
            step(layer, optimiser, 1.0)
    assert hook.sparse
    assert int((layer.weight != 0).sum()) == 2


def test_released_weights_start_from_zero() -> None:
    layer = linear([0.5, -2, 0.1, 1.2, -0.05])
    optimiser = SGD(layer.parameters(), 0.1, momentum=0.9)
    hook = HardThreshold(layer, 0.4, sparse_steps=1, dense_steps=2, rounds=1)
    with attach(optimiser, hook):
        step(layer, optimiser, 1.0)
        step(layer, optimiser, 1.0)
        torch.testing.assert_close(layer.weight.data[0, [0, 2, 4]], torch.full((3,), -0.1))  # no momentum of before
        torch.testing.assert_close(layer.weight.data[0, 1], torch.tensor(-2.1 - 0.19))


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 12), st.sampled_from(["sgd", "adam"]), st.sampled_from(["weight", "filter"]))
def test_phase_one_is_sparse_at_every_step(seed: int, count: int, kind: str, unit: str) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(3, 4, bias=False)
    optimiser = (
        SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
        if kind == "sgd"
        else torch.optim.Adam(layer.parameters(), 0.1, weight_decay=0.1)
    )
    hook = HardThreshold(layer, count / 12, 2, 2, 2, start=1.0, unit=unit)  # type: ignore[arg-type]
    most = count if unit == "weight" else 3 * -(-4 * count // 12)
    with attach(optimiser, hook):
        for _ in range(12):
            support = layer.weight != 0 if hook.sparse else None
            layer.weight.grad = torch.randn(4, 3)
            optimiser.step()
            if support is not None and hook.sparse:
                assert not layer.weight[~support].any()
    assert hook.sparse
    assert int((layer.weight != 0).sum()) <= most


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(0, 10))
def test_the_operator_is_the_closest_sparse_point(seed: int, count: int) -> None:
    torch.manual_seed(seed)
    w = torch.randn(10)
    found = hard_threshold(w, count)
    assert torch.equal(hard_threshold(found, count), found)
    other = torch.zeros(10)
    chosen = torch.randperm(10)[:count]
    other[chosen] = w[chosen]
    assert (w - found).square().sum() <= (w - other).square().sum() + 1e-6


def test_ties_go_to_the_lowest_index() -> None:
    assert keep_largest(torch.tensor([1.0, 2, 1, 1]), 2).tolist() == [True, True, False, False]


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adamw", "late"])
def test_masks_survive_momentum_and_decay(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3, bias=False)
    optimiser: torch.optim.Optimizer = SGD(
        layer.parameters(), 0.1, momentum=0.9, weight_decay=0.1, nesterov=kind == "nesterov"
    )
    if kind == "adamw":
        optimiser = torch.optim.AdamW(layer.parameters(), 0.1, amsgrad=True)
    if kind == "late":  # momentum was gathered before there was a mask
        step(layer, optimiser, 1.0)
    mask = torch.rand(3, 4) < 0.5
    hook = Masks(layer, {"weight": mask})
    assert not layer.weight[~mask].any()
    with attach(optimiser, hook):
        for _ in range(5):
            layer.weight.grad = torch.randn(3, 4)
            optimiser.step()
            assert torch.equal(layer.weight == 0, ~mask)
    held = [v for v in optimiser.state[layer.weight].values() if isinstance(v, Tensor) and v.shape == mask.shape]
    assert held
    assert not any(v[~mask].any() for v in held)
    again = Masks(nn.Linear(4, 3, bias=False), {})
    again.load_state_dict(hook.state_dict())
    assert again.density() == hook.density() == float(mask.double().mean())


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean weight"):
        Masks(nn.Linear(2, 2), {"weigth": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(InputError, match=r"give bool \[2, 2\]"):
        Masks(nn.Linear(2, 2), {"weight": torch.ones(2, 2)})


def test_curves_by_hand() -> None:
    assert [sparsity_at(t, 0.8) for t in (0, 0.5, 1, 2)] == pytest.approx([0, 0.7, 0.8, 0.8])
    assert sparsity_at(0.25, 0.8, 0.4, "linear") == pytest.approx(0.5)
    assert sparsity_at(0.5, 0.75, 0, "exponential") == pytest.approx(0.5)
    assert sparsity_at(1, 1.0, 0, "exponential") == 1
    with pytest.raises(InputError, match="no curve 'steep'"):
        sparsity_at(0, 1, 0, "steep")  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.sampled_from(["layer", "global"]))
def test_gradual_masks_are_nested(seed: int, sparsity: float, scope: str) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    optimiser = SGD(net.parameters(), 0.1, momentum=0.9)
    hook = Gradual(net, sparsity, steps=6, every=2, scope=scope)  # type: ignore[arg-type]
    before: dict[str, Tensor] = {}
    with attach(optimiser, hook):
        for _ in range(9):
            for weight in net.parameters():
                weight.grad = torch.randn_like(weight)
            optimiser.step()
            now = hook.masks.masks
            assert all(not (now[name] & ~mask).any() for name, mask in before.items())
            before = dict(now)
    sizes = [20, 10] if scope == "layer" else [30]
    assert sum(int((~m).sum()) for m in before.values()) == sum(int(sparsity * n + 1e-9) for n in sizes)
    assert bool((net[0].bias != 0).all())


def test_global_magnitude_by_hand() -> None:
    weights = {"a": torch.tensor([1.0, 5]), "b": torch.tensor([2.0, 3])}
    assert magnitude_masks(weights, 0.5, scope="global")["a"].tolist() == [False, True]
    assert magnitude_masks(weights, 0.5, scope="global")["b"].tolist() == [False, True]
    assert magnitude_masks(weights, 0.5, {"a": torch.tensor([True, False])})["a"].tolist() == [True, False]


def test_a_hook_needs_to_say_nothing() -> None:
    layer = linear([1.0])
    optimiser = SGD(layer.parameters(), 1.0)
    with attach(optimiser, Hook()):
        step(layer, optimiser, 1.0)
    assert Hook().state_dict() == {}
