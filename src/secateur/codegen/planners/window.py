"""Pooling, means over the picture and element-wise operators: block by block, channels stay in their lanes."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.codegen.fusion import Chain, base_input
from secateur.codegen.layout import Layout, block_table, strides
from secateur.codegen.packing import merge
from secateur.codegen.program import Argument
from secateur.codegen.specs import MapSpec, MeanSpec, WindowSpec
from secateur.codegen.specs_fixed import ResizeSpec, RowSpec
from secateur.codegen.tensors import Blocked

from .epilogue import Epilogue, flows, plan_epilogue


def call_window(layout: Layout, spec: WindowSpec | MapSpec | MeanSpec | ResizeSpec | RowSpec, x: Blocked, out: Blocked,
                extra: Sequence[Argument], epilogue: Epilogue, label: str) -> None:  # fmt: skip
    """The call of a kernel that works block by block."""
    table = [block_table(x, 0, len(x.blocks))] if spec.table else []
    arguments: list[Argument] = [layout.start if spec.table else x.offset(0), *extra, *table]
    more, alive = epilogue.arguments(layout, 0, len(out.blocks))
    arguments += [*more, out.offset(0)]
    layout.program.call(spec, layout.choose(spec), arguments, label, [b for b, _ in x.blocks] + alive)


def pool(layout: Layout, chain: Chain) -> Blocked:
    """Max or mean over windows; adaptive ones with even windows too."""
    node, a = chain.head, chain.head.attrs
    name = node.inputs[0] or ""
    x = layout.together(name, layout.get_blocked(name, 1))
    out = layout.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(layout, flows(node.name, chain.tail), out)
    size = (x.plane.h, x.plane.w)
    if node.op == "adaptive_avg_pool":
        kernel = stride = (size[0] // a["size"][0], size[1] // a["size"][1])
        pad, dilation, count_pad = (0, 0, 0, 0), (1, 1), True
    else:
        kernel, stride, pad = tuple(a["kernel"]), tuple(a["stride"]), tuple(a["pad"])
        dilation, count_pad = tuple(a.get("dilation", (1, 1))), bool(a.get("include_pad", True))
    spec = WindowSpec(
        "max" if node.op == "max_pool" else "avg", layout.lanes, out.plane.n, len(out.blocks), out.plane.h,
        out.plane.w, kernel, stride, dilation, pad, size, strides(x.plane), strides(out.plane),
        not x.contiguous, count_pad, epilogue.steps, layout.threads,
    )  # fmt: skip
    call_window(layout, spec, x, out, [], epilogue, node.label)
    return out


def mean(layout: Layout, chain: Chain) -> Blocked:
    """A reduction over the whole picture."""
    node = chain.head
    x = layout.get_blocked(node.inputs[0] or "")
    out = layout.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(layout, flows(node.name, chain.tail), out)
    spec = MeanSpec(
        node.op.removeprefix("reduce_"), layout.lanes, x.plane.n, len(x.blocks), x.plane.h, x.plane.w,
        strides(x.plane), strides(out.plane), not x.contiguous, epilogue.steps, layout.threads,
    )  # fmt: skip
    call_window(layout, spec, x, out, [], epilogue, node.label)
    return out


def elementwise(layout: Layout, chain: Chain) -> Blocked:
    """Steps on the first input that has the shape of the result."""
    node, which = chain.head, base_input(layout.forms, chain.head)
    base = node.inputs[which or 0] or ""
    x = layout.together(base, layout.get_blocked(base, layout.forms.axes[node.name]))
    out = layout.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(layout, [(node, base), *flows(node.name, chain.tail)], out)
    spec = merge(MapSpec(
        layout.lanes, out.plane.n, len(out.blocks), out.plane.h, out.plane.w, strides(x.plane),
        strides(out.plane), not x.contiguous, epilogue.steps, layout.threads,
    ))  # fmt: skip
    call_window(layout, spec, x, out, [], epilogue, node.label)
    return out
