"""The formulas of grouped, 1x1 and depthwise-separable convolution, counted by the cost pass over drawn shapes."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from secateur.passes.analysis.cost import Costs, cost
from secateur.passes.pipeline import Pipeline, parse_spec
from secateur.passes.rewrite import ALL
from support.network import Net

WIDTH, SIZE = st.integers(1, 24), st.integers(3, 12)
KERNEL = st.sampled_from([1, 3, 5])


def counted(net: Net, *outputs: str) -> Costs:
    return cost(net.graph(*outputs))


@given(WIDTH, WIDTH, st.integers(1, 6), KERNEL, SIZE, st.sampled_from([1, 2]))
def test_grouped_convolution(inner: int, outer: int, groups: int, kernel: int, size: int, stride: int) -> None:
    """Params h w C1 C2 / g, and as many multiply-accumulates at each output: a g-th of the dense convolution."""
    net = Net(1, inner * groups, size, size)
    y = net.conv("x", outer * groups, kernel, groups=groups, stride=stride, bias=False)
    costs, (_, _, height, width) = counted(net, y), net.shape(y)
    assert costs.params == kernel**2 * (inner * groups) * (outer * groups) // groups
    assert costs.macs == costs.params * height * width
    dense = Net(1, inner * groups, size, size)
    whole = counted(dense, dense.conv("x", outer * groups, kernel, stride=stride, bias=False))
    assert (whole.params, whole.macs) == (groups * costs.params, groups * costs.macs)


@given(WIDTH, WIDTH, SIZE)
def test_1x1_convolution(inner: int, outer: int, size: int) -> None:
    """Params C1 C2; multiply-accumulates C1 C2 H W."""
    net = Net(1, inner, size, size)
    costs = counted(net, net.conv("x", outer, 1, bias=False))
    assert (costs.params, costs.macs) == (inner * outer, inner * outer * size * size)


@given(WIDTH, st.integers(2, 24), st.sampled_from([3, 5]), SIZE)
def test_depthwise_separable_convolution(inner: int, outer: int, kernel: int, size: int) -> None:
    """1/N + 1/(h w) of the dense convolution's work: as two layers, and as what `separable` makes of it."""
    net = Net(1, inner, size, size)
    dense = net.graph(net.conv("x", outer, kernel, bias=False))
    share = Fraction(1, outer) + Fraction(1, kernel**2)
    rewritten = Pipeline(parse_spec("separable{always=true}", {p.name: p for p in ALL}))(dense)
    pair = Net(1, inner, size, size)
    y = pair.conv(pair.conv("x", inner, kernel, groups=inner, bias=False), outer, 1, bias=False)
    for costs in (cost(rewritten), counted(pair, y)):
        assert Fraction(costs.macs, cost(dense).macs) == share
        assert Fraction(costs.params, cost(dense).params) == share
