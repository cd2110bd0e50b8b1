"""The reference networks have the sizes that their papers print, counted by the cost pass; and all can be pruned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import secateur
import tables
from reference_nets import REFERENCES
from secateur.ir import Graph
from secateur.passes.analysis.cost import MACS


@pytest.mark.parametrize("name", REFERENCES)
def test_sizes_are_those_of_the_paper(name: str) -> None:
    reference = REFERENCES[name]
    costs = tables.costs_of(name)
    if reference.params is not None:
        assert costs.params == pytest.approx(reference.params, rel=0.01)
    if reference.macs is not None:
        assert costs.macs == pytest.approx(reference.macs, rel=0.05 if "shuffle" in name else 0.01)


def vector_work(graph: Graph, lanes: int) -> float:
    """Multiply-accumulates of the convolutions, whole vectors counted: no vector holds parts of two groups."""
    total = 0.0
    for node in graph.nodes:
        if node.op == "conv" and node.attrs["groups"] < node.out.shape[1]:
            width = node.out.shape[1] // node.attrs["groups"]
            total += MACS["conv"](graph, node) * (-(-width // lanes) * lanes) / width
    return total


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
def test_shufflenet_halves_and_obeys_the_law(groups: int) -> None:
    """Half of the work is half of the vectors of an AVX-512 machine too."""
    torch.manual_seed(0)
    network = REFERENCES[f"shufflenet_v1_g{groups}"].make().eval()
    slim = secateur.compile(network, "l1", example_inputs=(torch.randn(1, 3, 64, 64),), macs=0.5, target="x86-avx512")
    assert vector_work(slim.graph, 16) <= 0.5 * vector_work(slim.dense, 16)
    assert slim.report.verification is not None
    assert slim.report.verification["passed"]
    assert slim.report.after is not None
    assert slim.report.after["macs"] <= 0.5 * slim.report.before["macs"]


def test_tables_of_the_papers(golden: Callable[[str, str], None]) -> None:
    """Golden, and beside what is printed: the papers' digits, but for one that is a slip.

    MobileNet's table 2 prints 1.19 % for conv 3x3; its column then sums to 99.29. Counted are 1.91, and 100.
    """
    golden("tables/papers.txt", tables.text() + "\n")
    assert tables.residual_table()[:2] == [("resnet50", "25.5", "4.1"), ("resnext50_32x4d", "25.0", "4.2")]
    assert tables.mobilenet_table() == [
        ("conv 1x1", "94.86", "74.59"), ("depthwise 3x3", "3.06", "1.06"), ("conv 3x3", "1.91", "0.02"),
        ("fully connected", "0.18", "24.33"),
    ]  # fmt: skip
    for printed, (_, *counted) in zip((140, 38, 13), tables.shufflenet_table(), strict=True):
        assert [float(macs) for macs in counted] == pytest.approx([printed] * 5, rel=0.05)
