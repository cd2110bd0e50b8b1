"""The reference networks have the sizes that their papers print, counted by the cost pass; and all can be pruned."""

from __future__ import annotations

import pytest
import torch

import secateur
from reference_nets import REFERENCES
from secateur.ir.frontends.torch import trace
from secateur.passes.analysis.cost import cost


@pytest.mark.parametrize("name", REFERENCES)
def test_sizes_are_those_of_the_paper(name: str) -> None:
    reference = REFERENCES[name]
    costs = cost(trace(reference.make().eval(), (torch.zeros(1, 3, 224, 224),), dynamic_batch=False))
    if reference.params is not None:
        assert costs.params == pytest.approx(reference.params, rel=0.01)
    if reference.macs is not None:
        assert costs.macs == pytest.approx(reference.macs, rel=0.05 if "shuffle" in name else 0.01)


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
def test_shufflenet_halves_and_obeys_the_law(groups: int) -> None:
    torch.manual_seed(0)
    network = REFERENCES[f"shufflenet_v1_g{groups}"].make().eval()
    slim = secateur.compile(network, "l1", example_inputs=(torch.randn(1, 3, 64, 64),), macs=0.5)
    assert slim.report.verification is not None
    assert slim.report.verification["passed"]
    assert slim.report.after is not None
    assert slim.report.after["macs"] <= 0.5 * slim.report.before["macs"]
