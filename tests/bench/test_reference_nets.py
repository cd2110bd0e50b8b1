"""The reference networks have the sizes that their papers print, counted by the cost pass; and all can be pruned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import secateur
from bench.nets.reference_nets import REFERENCES, SHUFFLENET_WIDTH
from bench.reach import tables
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


def test_shufflenet_halves_and_obeys_the_law() -> None:
    """Half of the work is half of the vectors of an AVX-512 machine too; all five are in ``bench.reach.zoos``."""
    torch.manual_seed(0)
    network = REFERENCES["shufflenet_v1_g3"].make().eval()
    slim = secateur.compile(network, "l1", example_inputs=(torch.randn(1, 3, 64, 64),), macs=0.5, target="x86-avx512")
    assert vector_work(slim.graph, 16) <= 0.5 * vector_work(slim.dense, 16)
    assert slim.report.verification is not None
    assert slim.report.verification["passed"]
    assert slim.report.after is not None
    assert slim.report.after["macs"] <= 0.5 * slim.report.before["macs"]


def test_tables_of_the_papers(golden: Callable[[str, str], None]) -> None:
    """Golden, and next to what is printed: the papers' digits, but for one that is a slip."""
    golden("tables/papers.txt", tables.text() + "\n")
    assert tables.residual_table()[:2] == [("resnet50", "25.5", "4.1"), ("resnext50_32x4d", "25.0", "4.2")]
    assert tables.mobilenet_table() == [
        ("conv 1x1", "94.86", "74.59"), ("depthwise 3x3", "3.06", "1.06"), ("conv 3x3", "1.91", "0.02"),
        ("fully connected", "0.18", "24.33"),
    ]  # fmt: skip


def test_mobilenets_table_has_two_digits_exchanged() -> None:
    """It prints 1.19 % for conv 3x3. With 1.91 the column sums to 100, as it must, and the layer's formula agrees."""
    shares = {kind: float(macs) for kind, macs, _ in tables.mobilenet_table()}
    printed = {"conv 1x1": 94.86, "depthwise 3x3": 3.06, "conv 3x3": 1.19, "fully connected": 0.18}
    assert {kind for kind in printed if shares[kind] != printed[kind]} == {"conv 3x3"}
    assert sum(shares.values()) == pytest.approx(100, abs=0.02)  # four numbers rounded to 0.005
    assert sum(printed.values()) == pytest.approx(99.29)
    macs, total = 3 * 3 * 3 * 32 * 112 * 112, tables.costs_of("mobilenet_v1").macs
    assert (macs, total) == (10_838_016, 568_740_352)
    assert shares["conv 3x3"] == round(100 * macs / total, 2) == 1.91
    assert sorted("1.19") == sorted("1.91")


def test_shufflenets_complexities() -> None:
    """Near the printed budgets at every g; and without the classifier those under table 1, in whole millions."""
    assert SHUFFLENET_WIDTH == {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
    counted = tables.shufflenet_macs()
    assert counted == {
        "1": [143_078_976, 140_836_512, 137_460_672, 134_339_776, 138_365_952],
        "0.5": [38_517_408, 37_899_504, 37_589_856, 36_468_448, 36_593_664],
        "0.25": [13_162_320, 13_034_668, 13_300_656, 12_861_080, 12_426_240],
        "1, convolutions": [142_502_976, 140_036_512, 136_500_672, 133_251_776, 136_829_952],
    }
    assert tables.PRINTED == {"1": 140, "0.5": 38, "0.25": 13}
    for scale, printed in tables.PRINTED.items():
        assert [macs / 1e6 for macs in counted[scale]] == pytest.approx([printed] * 5, rel=0.05)
    assert [round(macs / 1e6) for macs in counted["1, convolutions"]] == [143, 140, 137, 133, 137]
