"""LSTM and GRU on planes, planned as on processors, with the linear layer over all steps on planes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.codegen.kernels.gpu.conv.plan import write_dense
from secateur.codegen.kernels.recurrent import plan
from secateur.codegen.plan.family import Standalone
from secateur.codegen.plan.lower import NoCode
from secateur.codegen.plan.placement import Placement
from secateur.ir import Node

STEPS = plan.Steps(write_dense, sparse=False, scratch=False)
ITEMS, UNITS = 256, 4  # work items of a group, and hidden units of each, at most: more sums might spill


def recurrent(placement: Placement, node: Node) -> None:
    """As on processors. Raises NoCode where a group has no room for the hidden units."""
    hidden, most = int(node.attrs["hidden"]), ITEMS * UNITS
    if hidden > most:
        raise NoCode(
            node.outputs[0].name, f"{node.op} '{node.label}' has no code for {placement.target.name}",
            f"it has {hidden} hidden units, and kernels for GPUs take up to {most}: prune it, or build for a processor",
        )  # fmt: skip
    plan.recurrent(placement, node, STEPS)


NODES: Mapping[str, Standalone] = MappingProxyType(dict.fromkeys(plan.GATES, Standalone(plan.is_recurrent, recurrent)))
