"""Nodes that go back into the file as they came: opaque ones, and those that no pass has changed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from types import MappingProxyType

from onnx import AttributeProto, NodeProto

from secateur.ir.frontends.onnx.read import captured
from secateur.ir.graph import Array, Node
from secateur.ir.onnx_origin import OnnxOrigin

from .calls import arguments
from .emitter import Emitter
from .opaque_layers import FORMS
from .opaque_places import PLACES
from .short_time import SHORT_TIME
from .spectra import SPECTRA


def emit_opaque(e: Emitter, node: Node) -> None:
    """Write the node's own proto with its inputs and outputs as they are called now."""
    if node.attrs["kind"] != "onnx":
        form = TORCH.get(node.attrs["target"])
        if form is not None:
            return form(e, node)
        raise e.unsupported(
            node,
            f"'{node.attrs['target']}' has no ONNX form, so a network with it cannot be exported to ONNX; "
            "use .module() for PyTorch, or replace that operator in the model",
        )
    proto = NodeProto.FromString(base64.b64decode(node.attrs["payload"]))
    outer = captured(proto)
    names = e.ins(node)
    names += [""] * (len(proto.input) + len(outer) - len(names))
    read = (*proto.input, *outer)  # a subgraph may also read what its node is given
    renamed = {old: new for old, new in zip(read, names, strict=True) if old and old != new}
    proto.input[:] = names[: len(proto.input)]
    proto.output[:] = [
        name if had or _read(e, value.name) else ""
        for had, name, value in zip(proto.output, e.outs(node), node.outputs, strict=True)
    ]
    if renamed:
        _rename(proto, renamed)
    e.copy(proto)


def _grid_sample(e: Emitter, node: Node) -> None:
    """``aten.grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)``."""
    e.needs(node, 16, "GridSample")
    a = arguments(node, "input", "grid", "mode", "padding", "corners")
    kind, padding, corners = a["mode"], a["padding"], a["corners"]
    names = ("linear", "nearest", "cubic") if e.opset >= 20 else ("bilinear", "nearest", "bicubic")
    if e.opset < 20 and len(e.shape(node)) != 4:
        raise e.unsupported(node, "GridSample takes pictures of two axes before operator set 20")
    paddings = ("zeros", "border", "reflection")
    e.add("GridSample", e.ins(node), e.outs(node), mode=names[kind], padding_mode=paddings[padding],
          align_corners=int(corners))  # fmt: skip


def _topk(e: Emitter, node: Node) -> None:
    """``aten.topk(self, k, dim, largest, sorted)``."""
    e.needs(node, 11, "TopK of the smallest")
    a = arguments(node, "self", "k", "dim", "largest", "sorted")
    e.add("TopK", [e.ins(node)[0], e.numbers([a["k"]])], e.outs(node), axis=a.get("dim", -1),
          largest=int(a.get("largest", True)), sorted=int(a.get("sorted", True)))  # fmt: skip


def _sort(e: Emitter, node: Node) -> None:
    """``aten.sort(self, dim, descending)``: the first so many of all."""
    e.needs(node, 11, "TopK of the smallest")
    a = arguments(node, "self", "dim", "descending")
    (count,) = e.static(node, [e.shape(node)[a.get("dim", -1)]], "how many it sorts")
    e.add("TopK", [e.ins(node)[0], e.numbers([count])], e.outs(node), axis=a.get("dim", -1),
          largest=int(a.get("descending", False)), sorted=1)  # fmt: skip


def _gather(e: Emitter, node: Node) -> None:
    """``aten.gather(self, dim, index)``."""
    e.needs(node, 11, "GatherElements")
    e.add("GatherElements", e.ins(node), e.outs(node), axis=arguments(node, "self", "dim")["dim"])


def _antialias(mode: str) -> Callable[[Emitter, Node], None]:
    """``aten._upsample_*2d_aa(input, output_size, align_corners, scale_factors)``."""

    def form(e: Emitter, node: Node) -> None:
        e.needs(node, 18, "Resize with antialias")
        a = arguments(node, "input", "output_size", "align_corners", "scale_factors")
        x, lead = e.ins(node)[0], len(e.shape(node)) - 2
        head = e.add("Slice", [e.add("Shape", [x]), e.ints([0]), e.ints([lead]), e.ints([0])])
        sizes = e.add("Concat", [head, e.ints(node.out.shape[2:])], axis=0)
        e.add("Resize", [x, "", "", sizes], e.outs(node), mode=mode, antialias=1, cubic_coeff_a=-0.5, exclude_outside=1,
              coordinate_transformation_mode="align_corners" if a.get("align_corners") else "half_pixel")  # fmt: skip

    return form


# Operators of torch that stay opaque in the IR, and have a form in ONNX.
TORCH: Mapping[str, Callable[[Emitter, Node], None]] = MappingProxyType(
    {
        **dict.fromkeys(("aten.grid_sampler.default", "aten.grid_sampler_2d.default"), _grid_sample),
        **dict.fromkeys((f"aten._upsample_bilinear2d_aa.{k}" for k in ("vec", "default")), _antialias("linear")),
        **dict.fromkeys((f"aten._upsample_bicubic2d_aa.{k}" for k in ("vec", "default")), _antialias("cubic")),
        "aten.topk.default": _topk, "aten.sort.default": _sort, "aten.gather.default": _gather, **FORMS,
        **PLACES,
        **SPECTRA, **SHORT_TIME,
    }
)  # fmt: skip


def _read(e: Emitter, name: str) -> bool:
    return name in e.graph.users or name in e.graph.outputs


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename outer values inside the node's subgraphs."""
    for attr in node.attribute:
        graphs = (attr.g, *attr.graphs) if attr.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) else ()
        for graph in graphs:
            for inner in graph.node:
                inner.input[:] = [names.get(i, i) for i in inner.input]
                _rename(inner, names)
            for output in graph.output:
                output.name = names.get(output.name, output.name)


def emit_original(e: Emitter, node: Node, origin: OnnxOrigin) -> bool:
    """Write the file's own node where the IR node is as it was imported. False where it has changed."""
    known = origin.originals.get(node.name)
    if known is None or known.node.op != node.op or known.node.attrs != node.attrs:
        return False
    before, now = known.node.inputs, node.inputs
    if [i is None for i in before] != [i is None for i in now]:
        return False
    if [v.name for v in known.node.outputs] != [v.name for v in node.outputs]:
        return False
    proto = NodeProto.FromString(known.proto)
    kernel = next((list(a.ints) for a in proto.attribute if a.name == "kernel_shape"), None)
    if node.op in ("conv", "conv_transpose") and kernel is not None and kernel != list(e.shape(node, 1)[2:]):
        return False
    given = []
    for i in known.inputs:
        if i is None:
            given.append("")
        elif isinstance(i, int):
            given.append(e.real(node.inputs[i]))
        else:
            given.append(_side(e, i, origin.constants[i]))
    proto.input[:] = given
    proto.output[:] = [e.real(v.name) for v in node.outputs]
    e.copy(proto)
    return True


def _side(e: Emitter, name: str, array: Array) -> str:
    """A constant that the IR holds in an attribute, under its own name where that is still free."""
    if e.graph.weights.get(name) is array:
        return e.real(name)
    real = e.real(name)
    if name in e.graph.weights or (real in e.extra and e.extra[real] is not array):
        return e.const(array)
    e.taken.add(real)
    e.extra[real] = array
    return real
