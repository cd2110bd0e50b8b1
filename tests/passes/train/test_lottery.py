"""Lottery tickets, supermasks, SNIP and DCP's stages: by hand, and what always holds."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from secateur.ir import InputError
from secateur.passes.train import (
    Actions,
    Discrimination,
    Masks,
    Selection,
    attach,
    edge_popup,
    rounds,
    select_channels,
    snip,
    supermask,
    ticket,
)  # fmt: skip
from secateur.passes.train import lottery as lot
from secateur.passes.train.dcp import gradient_norms
from secateur.passes.train.snip import sensitivities

INITIAL = torch.tensor([[0.5, -0.4, 0.1, -0.2, 0.3]])
FINAL = torch.tensor([[0.6, -0.1, -0.7, -0.5, 0.2]])
SEEDS = st.integers(0, 2**16)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("criterion", "kept"),
    [
        ("large_final", [{0, 2}]), ("small_final", [{1, 4}]), ("large_init", [{0, 1}]), ("small_init", [{2, 3}]),
        ("magnitude_increase", [{2, 3}]), ("movement", [{1, 2}, {2, 3}]), ("large_final_same_sign", [{0, 3}]),
        ("large_init_large_final", [{0, 3}, {0, 4}]),
        ("large_final_diff_sign", [{2, n} for n in (0, 1, 3, 4)]),
    ],
)  # fmt: skip
def test_criteria_by_hand(criterion: str, kept: list[set[int]]) -> None:
    made = ticket({"w": INITIAL}, {"w": FINAL}, criterion, 0.6, Actions(), random())
    assert set(made.masks["w"].flatten().nonzero().flatten().tolist()) in kept


def test_ranks_make_both_sizes_one_threshold() -> None:
    """Initial places 4 3 0 1 2, final ones 3 0 4 2 1: the smaller of both is 3 0 0 1 1."""
    scores = lot.CRITERIA["large_init_large_final"](INITIAL, FINAL, random())
    assert scores.tolist() == [[3, 0, 0, 1, 1]]
    assert lot.CRITERIA["small_init_small_final"](INITIAL, FINAL, random()).tolist() == [[-4, -3, -4, -2, -2]]


def test_actions_by_hand() -> None:
    kept = torch.tensor([[True, True, True, True, False]])
    made = {one: Actions(one).start(INITIAL, FINAL, kept, random()) for one in lot.ONES}
    sigma = 0.3261901
    torch.testing.assert_close(made["rewind"], torch.tensor([[0.5, -0.4, 0.1, -0.2, 0]]))
    torch.testing.assert_close(
        made["constant_signed"], torch.tensor([[sigma, -sigma, sigma, -sigma, 0]]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(made["constant"].abs(), made["constant_signed"].abs())
    assert sorted(made["reshuffle"][0, :4].tolist()) == sorted(INITIAL[0, :4].tolist())
    held = {zero: Actions("rewind", zero).start(INITIAL, FINAL, ~kept, random()) for zero in lot.ZEROS}
    torch.testing.assert_close(held["zero"], torch.tensor([[0, 0, 0, 0, 0.3]]))
    torch.testing.assert_close(held["freeze"], INITIAL)
    torch.testing.assert_close(held["zero_shrunk"], torch.tensor([[0.5, 0, 0.1, -0.2, 0.3]]))  # -.4 -> -.1 shrank
    torch.testing.assert_close(held["zero_all_shrunk"], torch.tensor([[0.5, 0, 0.1, -0.2, 0.0]]))  # .3 -> .2 too


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(list(lot.CRITERIA)), st.sampled_from(list(lot.ONES)), st.floats(0, 1))
def test_signs_multisets_and_counts(seed: int, criterion: str, one: str, share: float) -> None:
    torch.manual_seed(seed)
    initial, final = torch.randn(4, 5), torch.randn(4, 5)
    made = ticket({"w": initial}, {"w": final}, criterion, share, Actions(one), random(seed))
    kept, start = made.masks["w"], made.start["w"]
    assert int(kept.sum()) == 20 - int(share * 20 + 1e-9)
    assert not start[~kept].any()
    if one in ("rewind", "reinit_signed", "reshuffle_signed", "constant_signed"):
        assert torch.equal(start[kept].sign(), initial[kept].sign())
    if one.startswith("reshuffle"):
        assert torch.equal(start[kept].sort().values, initial[kept].sort().values)


@pytest.mark.parametrize("zero", lot.ZEROS)
def test_rounds_are_nested_and_keep_what_is_removed(zero: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    first = lot.weights(net)
    x, y = torch.randn(20, 6), torch.arange(20) % 3

    def train(module: nn.Module, hook: Masks | None) -> None:
        optimiser = torch.optim.SGD(module.parameters(), 0.2, momentum=0.9, weight_decay=0.01)
        with attach(optimiser, *([] if hook is None else [hook])):
            for _ in range(4):
                optimiser.zero_grad()
                nn.functional.cross_entropy(module(x), y).backward()
                optimiser.step()

    before, left = None, [48, 24]
    for made in rounds(net, train, 3, share={"0.weight": 0.5, "2.weight": 0.25}, actions=Actions(zero=zero)):
        left = [left[0] - left[0] // 2, left[1] - left[1] // 4]
        assert [int(m.sum()) for m in made.masks.values()] == left
        for name, mask in made.masks.items():
            assert before is None or not (mask & ~before[name]).any()
            assert torch.equal(net.get_parameter(name)[~mask], made.start[name][~mask])
            if zero == "freeze":
                assert torch.equal(made.start[name], first[name])
        before = made.masks
    assert made.density == pytest.approx(sum(left) / 72)


def test_what_lotteries_refuse() -> None:
    with pytest.raises(InputError, match="no action 'rewnd'"):
        Actions("rewnd")
    with pytest.raises(InputError, match="no mask criterion 'large'"):
        ticket({"w": INITIAL}, {"w": FINAL}, "large", 0.5, Actions(), random())
    with pytest.raises(InputError, match="give a share"):
        ticket({"w": INITIAL}, {"w": FINAL}, "random", 1.5, Actions(), random())


def test_supermasks_are_fair_coins_and_rescale() -> None:
    torch.manual_seed(0)
    net = nn.Linear(5, 400, bias=False)
    drawn = net.weight.detach().clone()
    made = supermask(net, constant=True)
    assert made.density() == 0.5
    assert 0.4 < float(made.masks()["weight"].double().mean()) < 0.6
    weight = net.weight.detach()
    ones = int((weight != 0).sum())
    size = drawn.std(correction=0) * drawn.numel() / ones
    torch.testing.assert_close(weight[weight != 0].abs(), size.expand(ones))  # two of five kept: times 2.5
    assert torch.equal(weight.sign()[weight != 0], drawn.sign()[weight != 0])
    net(torch.ones(1, 5)).sum().backward()
    (scores,) = made.parameters()
    assert scores.grad is not None
    assert bool((scores.grad != 0).all())  # those that were not drawn learn too
    assert made.average(torch.ones(2, 5)).shape == (2, 400)
    made.settle()
    assert isinstance(net.weight, nn.Parameter)
    assert made.module is net


def test_supermasks_at_the_ends_hold_all_or_nothing() -> None:
    net = nn.Linear(3, 2)
    drawn = net.weight.detach().clone()
    supermask(net, logit=100.0)
    torch.testing.assert_close(net.weight, drawn)
    empty = nn.Linear(3, 2)
    supermask(empty, logit=-200.0)
    assert not empty.weight.detach().any()  # no ones: nothing is divided by them


@pytest.mark.parametrize("density", [0.0, 0.3, 0.5, 1.0])
def test_edge_popup_keeps_exactly_its_share(density: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(5, 3))
    made = edge_popup(net, density)
    optimiser = torch.optim.SGD(list(made.parameters()), 0.5)
    for _ in range(3):
        optimiser.zero_grad()
        net(torch.randn(4, 2, 3, 3)).square().sum().backward()
        optimiser.step()
    for name, mask in made.masks().items():
        assert int(mask.sum()) == mask.numel() - int((1 - density) * mask.numel() + 1e-9), name
    assert net[0].parametrizations.weight.original.grad is None  # type: ignore[union-attr]
    weight = net[0].weight.detach()
    made.settle()
    assert torch.equal(net[0].weight, weight)


class Product(nn.Module):
    """w . x for one output."""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.linear = nn.Linear(len(w), 1, bias=False)
        self.linear.weight.data = torch.tensor([w])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def half_square(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).square().sum() / 2


def test_snip_by_hand() -> None:
    net = Product(1.0, -2.0, 0.5)
    data = [(torch.tensor([[1.0, 1, 2]]), torch.tensor([[-1.0]]))]
    found = sensitivities(net, data, half_square)["linear.weight"]
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.5, 0.25]]).double())
    assert snip(net, data, 1 / 3, loss=half_square)["linear.weight"].tolist() == [[False, True, False]]


def test_snip_masks_are_nested_and_exact() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    data = [(torch.randn(8, 1, 6, 6), torch.arange(8) % 3)]
    mean = net[1].running_mean.clone()  # type: ignore[union-attr]
    scores = sensitivities(net, data)
    assert sum(float(s.sum()) for s in scores.values()) == pytest.approx(1)
    before: dict[str, Tensor] | None = None
    for density in (1.0, 0.4, 0.05, 0.0):
        masks = snip(net, data, density, floor=1)
        assert sum(int(m.sum()) for m in masks.values()) == round(density * 228)
        assert before is None or all(not (m & ~before[n]).any() for n, m in masks.items())
        before = masks
    assert all(int(m.sum()) >= 30 for m in snip(net, data, 0.02, floor=30).values())
    assert torch.equal(mean, net[1].running_mean)  # type: ignore[union-attr, arg-type]
    again = sensitivities(net, data, lambda a, b: 3 * nn.functional.cross_entropy(a, b))
    torch.testing.assert_close(again, scores)
    with pytest.raises(InputError, match="add up to 0"):
        snip(net, data, 0.5, loss=lambda a, b: 0 * a.sum())


def dcp_layer() -> tuple[Product, list[tuple[Tensor, Tensor]]]:
    """x1 = (1, 1), x2 = (1, -1) over two examples, weights (2, 1): outputs 3 and 1."""
    return Product(2.0, 1.0), [(torch.tensor([[1.0, 1], [1, -1]]), torch.zeros(2))]


def test_dcp_selects_by_hand() -> None:
    net, data = dcp_layer()
    selection = Selection(0.5, steps=200, rate=0.2)
    assert select_channels(net, "linear", data, selection).tolist() == [True, False]  # gradients -2 and -1
    torch.testing.assert_close(net.linear.weight.data, torch.tensor([[2.0, 0]]))
    assert not net.linear.weight[0, 1].any()
    loss = (net(data[0][0]).detach() - torch.tensor([[3.0], [1]])).square().sum() / 4
    assert float(loss) == pytest.approx(0.5)
    net, data = dcp_layer()
    assert select_channels(net, "linear", data, Selection(1.0, least=0.9)).tolist() == [True, False]  # fell by 0.8
    with pytest.raises(InputError, match="give at least one batch"):
        select_channels(net, "linear", [], selection)


def test_gradient_norms_of_paper_and_code_differ() -> None:
    gradient = torch.tensor([[3.0, 5.5], [4, 0]])[None]
    assert gradient_norms(gradient).tolist() == [5, 5.5]
    assert gradient_norms(gradient, "l21").tolist() == [7, 5.5]


def test_intermediate_losses_train_and_choose() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    heads = Discrimination.on(net, {"2": 4}, classes=3)
    x, y = torch.randn(12, 2, 4, 4), torch.arange(12) % 3
    for p in heads.heads["2"].theta.parameters():  # type: ignore[union-attr]
        nn.init.zeros_(p)
    net(x)
    assert float(heads.parts(y)[0].detach()) == pytest.approx(1.0986, abs=1e-4)  # theta = 0: ln m
    optimiser = torch.optim.SGD([*net.parameters(), *heads.parameters()], 0.1)
    first = None
    for _ in range(15):
        optimiser.zero_grad()
        loss = heads.loss(net(x), y)
        first = float(loss.detach()) if first is None else first
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < first  # type: ignore[operator]
    heads.heads.eval()

    def discrimination(a: Tensor, b: Tensor) -> Tensor:
        net(a)
        return heads.parts(b)[0]

    before = net[2].weight.detach().clone()
    kept = select_channels(net, "2", [(x, y)], Selection(0.5, per_round=2, steps=3), discrimination)
    assert int(kept.sum()) == 3
    assert not net[2].weight[:, ~kept].any()
    assert not torch.equal(net[2].weight[:, kept], before[:, kept])
    with pytest.raises(InputError, match="no layer 'nosuch'"):
        Discrimination.on(net, {"nosuch": 4}, 3)
