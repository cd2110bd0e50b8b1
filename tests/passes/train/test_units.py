"""Training on coupled channels, and what becomes of zeros: removed exactly, nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.ir import InputError
from secateur.passes.score import SCSP
from secateur.passes.score.taylor import Taylor
from secateur.passes.train import BatchNormL1, CoupledLasso, GroupLasso, HardThreshold, SoftPruning, Units, attach

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A residual block of four channels around six, a stem before it and a head after."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.a, self.an = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.b, self.bn = nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (x + self.bn(self.b(self.an(self.a(x)).relu()))).relu()
        out: torch.Tensor = self.head(x.mean((2, 3)))
        return out


def net(seed: int = 0) -> Block:
    torch.manual_seed(seed)
    made = Block()
    for name, p in made.named_parameters():
        if p.dim() == 1:
            nn.init.uniform_(p, 0.3, 1.0) if "bias" not in name else nn.init.uniform_(p, -0.5, 0.5)
    return made.eval()


def train(module: nn.Module, steps: int, *hooks: object, rate: float = 0.05) -> None:
    optimiser = torch.optim.SGD(module.parameters(), rate, momentum=0.9)
    module.train()
    y = torch.tensor([0, 2])
    with attach(optimiser, *hooks):  # type: ignore[arg-type]
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(X), y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    module.eval()


def compiled(module: nn.Module, policy: str) -> secateur.Compiled:
    return secateur.compile(module, policy, example_inputs=(X,))


def same(module: nn.Module, slim: secateur.Compiled) -> float:
    with torch.no_grad():
        return float((module(X) - slim.module()(X)).abs().max())


def test_norms_over_all_weights_of_a_unit() -> None:
    made = net()
    units = Units(made, secateur.trace(made, (X,)))
    (inner,) = [g.units for g in units.coupling.groups if g.size == 6]
    want = (made.a.weight.square().sum((1, 2, 3)) + made.an.weight.square() + made.an.bias.square()).sqrt()
    torch.testing.assert_close(units.norms()[inner], want.detach().double())
    keep = torch.ones(units.size, dtype=torch.bool)
    keep[inner[2]] = False
    masks = units.masks(keep)
    assert set(masks) >= {"a.weight", "an.weight", "an.bias"}
    assert masks["a.weight"].flatten(1).any(1).tolist() == [True, True, False, True, True, True]
    units.scale(keep.double())
    assert not made.a.weight[2].any()
    assert not made.an.bias[2].any()
    np.testing.assert_array_equal(units.with_weights().weights["a.weight"], made.a.weight.detach().numpy())


def test_coupled_lasso_ends_in_channels_that_go_exactly() -> None:
    made = net()
    lasso = CoupledLasso(Units(made, secateur.trace(made, (X,))), 2.0)
    before = lasso.penalty()
    train(made, 12, lasso)
    assert lasso.penalty() < before
    zero = int((made.a.weight.flatten(1) == 0).all(1).sum())
    assert 0 < zero < 6
    slim = compiled(made, "l1,zeros,slim")
    assert slim.module().get_submodule("a").out_channels == 6 - zero
    assert same(made, slim) < 1e-5
    assert any("were zero by l1, and went" in remark for remark in slim.report.remarks)
    assert slim.report.budget is None


def test_zero_columns_go_as_what_nothing_reads() -> None:
    made = net()
    made.b.weight.data[:, [1, 4]] = 0
    slim = compiled(made, "group_lasso{groups=channel},zeros,slim")
    assert slim.module().get_submodule("a").out_channels == 4
    assert same(made, slim) < 1e-5


def test_zero_scales_go_with_what_they_emit_folded() -> None:
    made = net()
    made.an.weight.data[[0, 5]] = 0
    made.b.bias = nn.Parameter(torch.zeros(4))
    slim = compiled(made, "fold_constants,slimming,zeros,slim")
    assert slim.module().get_submodule("a").out_channels == 4
    assert same(made, slim) < 1e-5


def test_no_zero_no_change_and_all_zero_one_stays() -> None:
    made = net()
    slim = compiled(made, "l1,zeros,slim")
    assert slim.report.after.params == slim.report.before.params
    made.a.weight.data.zero_()
    slim = compiled(made, "l1,zeros,slim")
    assert slim.module().get_submodule("a").out_channels == 1


def test_a_policy_without_a_budget_reads_and_writes() -> None:
    policy = secateur.Policy("l1", "zeros")
    assert policy.spec == "l1,zeros,slim"
    assert "[budget]" not in policy.to_toml()
    assert secateur.Policy.parse(policy.spec) == policy
    with pytest.raises(InputError, match=r"so the budget macs=0.5 cannot be met"):
        secateur.compile(net(), policy, example_inputs=(X,), macs=0.5)
    with pytest.raises(InputError, match="in no multiples"):
        compiled(net(), "l1,zeros{round_to=8},slim")


def test_a_branch_at_zero_is_dropped_and_others_stay() -> None:
    made = net()
    assert len(list(secateur.rewrite(made, "drop_layer{below=0}", example_inputs=(X,)).graph.nodes)) > 8
    made.bn.weight.data.zero_()
    made.bn.bias.data.zero_()
    lasso = GroupLasso(made, 1.0, ("depth",), ("b",))
    made.b.weight.data.zero_()
    assert lasso.zero_groups("depth") == {"b": 1.0}
    slim = secateur.rewrite(made, "drop_layer{below=0}", example_inputs=(X,))
    assert not any(n.label == "b" for n in slim.graph.nodes)
    assert same(made, slim) < 1e-5


@pytest.mark.parametrize("criterion", [None, SCSP()])
def test_soft_pruning_lets_channels_come_back_until_it_has_settled(criterion: SCSP | None) -> None:
    made = net()
    hook = SoftPruning(Units(made, secateur.trace(made, (X,))), 0.5, every=2, criterion=criterion, patience=2)
    train(made, 3, hook)  # cleared after two steps, one step since
    assert not hook.settled
    assert int((made.a.weight.flatten(1) == 0).all(1).sum()) == 0
    train(made, 12, hook)
    hook.finish()
    assert hook.settled
    train(made, 2, hook)
    zero = int((made.a.weight.flatten(1) == 0).all(1).sum())
    assert zero == 3
    slim = compiled(made, "l1,zeros,slim")
    assert slim.module().get_submodule("a").out_channels == 3
    assert same(made, slim) < 1e-5
    other = SoftPruning(Units(made, secateur.trace(made, (X,))), 0.5, every=2)
    other.load_state_dict(hook.state_dict())
    assert other.settled
    assert torch.equal(other.kept, hook.kept)


def test_soft_pruning_of_nothing_and_with_data() -> None:
    made = net()
    units = Units(made, secateur.trace(made, (X,)))
    before = made.a.weight.detach().clone()
    hook = SoftPruning(units, 0.0, every=1)
    hook.finish()
    assert torch.equal(before, made.a.weight)
    with pytest.raises(InputError, match="needs data"):
        SoftPruning(units, 0.5, 1, Taylor())
    with pytest.raises(InputError, match="no weight of"):
        Units(nn.Linear(1, 1), secateur.trace(made, (X,)))


def test_hard_thresholding_of_coupled_channels_ends_in_what_goes_exactly() -> None:
    made = net()
    hook = HardThreshold(made, 0.5, 2, 2, 1, units=Units(made, secateur.trace(made, (X,))))
    train(made, 8, hook)
    assert hook.sparse
    slim = compiled(made, "l1,zeros,slim")
    assert slim.module().get_submodule("a").out_channels == 3
    assert same(made, slim) < 1e-5


def test_slimming_by_proximal_steps_ends_in_exact_zeros() -> None:
    made = net()
    train(made, 15, BatchNormL1(made, 1.2, "proximal"))
    assert int((made.an.weight == 0).sum()) > 0
