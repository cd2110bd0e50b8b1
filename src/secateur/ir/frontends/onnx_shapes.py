"""Shapes of nodes that no rule knows: from ONNX's schema, from the file, or from one run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TypeProto

from secateur.ir.graph import DTYPES, Array, Value, numpy_dtype

from .onnx_process import OnnxProcess, Refused
from .onnx_weights import restored

if TYPE_CHECKING:
    from .onnx_builder import Builder

Found = tuple[tuple[int, ...], str, bool]  # shape, element type, and whether the shape depends on data


@dataclass
class Observer:
    """Looks at one run of the whole model for the shapes that nothing else tells.

    ``sizes`` maps the names of dynamic dimensions to their sizes in this conversion; ``apart`` holds data of weights
    that the model lacks. The model runs in ``process``, since nobody has run it before.
    """

    model: ModelProto
    inputs: Mapping[str, Value] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    apart: Mapping[str, Array] = field(default_factory=dict)
    process: OnnxProcess = field(default_factory=OnnxProcess)
    seen: dict[str, tuple[tuple[int, ...], str]] | None = None

    def look(self, name: str) -> tuple[tuple[int, ...], str] | None:
        """The shape and type that the tensor had in the run; None where the model cannot be run.

        Raises InputError where running it crashes.
        """
        if self.seen is None:
            self.seen = self._run()
        return self.seen.get(name)

    def _run(self) -> dict[str, tuple[tuple[int, ...], str]]:
        watched = restored(self.model, self.apart)
        have = {o.name for o in watched.graph.output}
        names = [o for n in watched.graph.node for o in n.output if o and o not in have]
        rng = np.random.default_rng(0)
        feeds = {}
        for name, value in self.inputs.items():
            drawn = rng.random(value.shape) if value.dtype.startswith(("f", "bf")) else np.ones(value.shape)
            feeds[name] = np.asarray(drawn).astype(numpy_dtype(value.dtype))
        label = f"model '{self.model.graph.name}'"
        try:
            loaded = self.process.open(watched.SerializeToString(), label, optimise=False, watch=names)
            found = self.process.shapes(loaded, feeds)
            self.process.close(loaded)
        except Refused:  # whatever the reason, it means the same here: the shape stays unknown
            return {}
        return {name: (shape, DTYPES.get(kind, "str")) for name, (shape, kind) in found.items()}


def opaque_types(proto: NodeProto, ins: Sequence[Value | None], builder: Builder) -> dict[str, Found]:
    """Shape and type of every output of the node. Raises Unsupported where nothing tells."""
    from .onnx_builder import unknown_shape

    inferred = _by_schema(proto, ins, builder)
    found: dict[str, Found] = {}
    for name in filter(None, proto.output):
        kind = inferred.get(name)
        shape = None if kind is None else _concrete(kind, {})
        if shape is not None:
            found[name] = (*shape, any(i is not None and i.name in builder.loose for i in ins))
            continue
        recorded = _recorded(builder.model, name)
        shape = None if recorded is None else _concrete(recorded, builder.observer.sizes)
        if shape is not None:
            found[name] = (*shape, False)
            continue
        seen = builder.observer.look(name)
        if seen is None:
            raise unknown_shape(builder.label, proto)
        found[name] = (*seen, True)
    return found


def _by_schema(proto: NodeProto, ins: Sequence[Value | None], builder: Builder) -> dict[str, TypeProto]:
    opset = {o.domain: o.version for o in builder.model.opset_import}.get(proto.domain, builder.opset)
    if not onnx.defs.has(proto.op_type, domain=proto.domain) or any(
        a.type in (a.GRAPH, a.GRAPHS) for a in proto.attribute
    ):
        return {}
    types, data = {}, {}
    for name, value in zip(proto.input, ins, strict=True):
        if value is None:
            continue
        types[name] = _type_of(value)
        array = builder.const(value.name)
        if array is not None and array.size <= 1024:
            data[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, proto.domain)
        return onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=list(builder.model.opset_import)
        )
    except Exception:  # inference raises several types of its own; without an answer the file is asked
        return {}


def _type_of(value: Value) -> TypeProto:
    kind = np.dtype(object) if value.dtype == "str" else numpy_dtype(value.dtype)
    element = onnx.helper.np_dtype_to_tensor_dtype(kind)
    return onnx.helper.make_tensor_type_proto(element, [int(d) for d in value.shape])


def _concrete(kind: TypeProto, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], str] | None:
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    dims = [d.dim_value if d.HasField("dim_value") else sizes.get(d.dim_param, -1) for d in tensor.shape.dim]
    if any(d < 0 for d in dims):
        return None
    return tuple(dims), element_name(tensor.elem_type)


def element_name(element: int) -> str:
    """The IR's short name of an ONNX element type."""
    if element == onnx.TensorProto.STRING:
        return "str"
    return DTYPES.get(onnx.helper.tensor_dtype_to_np_dtype(element).name, "str")


def _recorded(model: ModelProto, name: str) -> TypeProto | None:
    for info in (*model.graph.value_info, *model.graph.output):
        if info.name == name and info.HasField("type"):
            kind: TypeProto = info.type
            return kind
    return None
