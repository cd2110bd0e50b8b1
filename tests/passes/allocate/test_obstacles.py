"""A budget that is out of reach names the layers that stop it, and why each does."""

from __future__ import annotations

import dataclasses

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


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("ai.onnx::Loop", r"not looked into \(ai.onnx::Loop 'odd'\); export it without them"),
        ("com.microsoft::QLinearReduceMean", "these are quantised: prune"),
        ("ai.onnx::If", "branches of If 'odd', which stay whole: each run takes one of them, as 'x' says. Export"),
    ],
)
def test_where_the_work_of_a_network_lies_that_counts_nothing(target: str, advice: str) -> None:
    net = Net(1, 3, 8, 8)
    y = net.node("relu", "x", name="odd")
    graph = net.graph(str(net.node("relu", str(y))))
    odd = {"op": "opaque", "attrs": {"kind": "onnx", "target": target, "payload": ""}}
    graph = graph.rewrite(nodes=[dataclasses.replace(n, **odd) if n.name == "odd" else n for n in graph.nodes])
    with pytest.raises(secateur.InputError, match=advice):
        secateur.compile(graph, macs=0.5, verify=False)
