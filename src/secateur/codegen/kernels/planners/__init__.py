"""From a chain of operators to kernel calls: one file a family, a row for each operator that can head a chain.

A planner gets the layout and the chain, writes the calls and returns where the result lies. Which nodes it is asked
for is a row in ``fusion.HEADS``; the kernels it calls are a row in ``templates.TEMPLATES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from secateur.codegen.kernels.conv.plan import conv, linear
from secateur.codegen.kernels.elementwise.plan import elementwise
from secateur.codegen.kernels.matmul.plan import matmul
from secateur.codegen.kernels.norms.plan import group_norm
from secateur.codegen.kernels.resize.plan import resize
from secateur.codegen.kernels.rows.plan import reduce, rows
from secateur.codegen.kernels.transposed.plan import conv_transpose
from secateur.codegen.kernels.window.plan import pool
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Layout
from secateur.codegen.plan.tensors import Blocked

Planner = Callable[[Layout, Chain], Blocked]

PLANNERS: Mapping[str, Planner] = MappingProxyType(
    {
        "conv": conv, "conv_transpose": conv_transpose, "resize": resize, "linear": linear,
        "max_pool": pool, "avg_pool": pool, "adaptive_avg_pool": pool,
        "reduce_mean": reduce, "reduce_sum": reduce, "reduce_max": reduce,
        "matmul": matmul, "softmax": rows, "log_softmax": rows, "layer_norm": rows, "rms_norm": rows,
        "group_norm": group_norm, "instance_norm": group_norm,
    }
)  # fmt: skip


def plan_chain(layout: Layout, chain: Chain) -> Blocked:
    """One kernel for a head and its tail; a head without a row of its own is element-wise."""
    return PLANNERS.get(chain.head.op, elementwise)(layout, chain)
