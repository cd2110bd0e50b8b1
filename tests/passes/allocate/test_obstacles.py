"""A budget that is out of reach names the layers that stop it, and why each does."""

from __future__ import annotations

import pytest

import secateur
from support.network import Net


def test_the_heaviest_layers_of_what_remains_are_named() -> None:
    net = Net(1, 3, 8, 8)
    graph = net.graph(net.conv(net.relu(net.conv("x", 16)), 24))
    said = (r"at least [\d,]+ \(\d+\.\d% of [\d,]+\) remain, .*, most of it in 'conv2' \(\d+%: its outputs stay: "
            r"graph output\), 'conv0' \(\d+%: one channel of each kind stays\); raise the budget")  # fmt: skip
    with pytest.raises(secateur.BudgetError, match=said):
        secateur.compile(graph, macs=0.01)
