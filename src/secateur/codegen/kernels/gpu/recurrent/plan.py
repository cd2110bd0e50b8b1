"""LSTM and GRU on planes, planned as on processors, with the linear layer over all steps on planes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from secateur.codegen.kernels.gpu.conv.plan import write_dense
from secateur.codegen.kernels.recurrent import plan
from secateur.codegen.plan.family import Standalone
from secateur.codegen.plan.placement import Placement
from secateur.ir import Node

ITEMS, UNITS = 256, 4  # work items of a group, and hidden units of each, at most: more sums might spill


def is_recurrent(placement: Placement, node: Node) -> bool:
    """Is this a recurrent layer whose weights are known, and for whose units a group has room?"""
    return plan.is_recurrent(placement, node) and int(node.attrs["hidden"]) <= ITEMS * UNITS


NODES: Mapping[str, Standalone] = MappingProxyType(
    dict.fromkeys(plan.GATES, Standalone(is_recurrent, partial(plan.recurrent, dense=write_dense)))
)
