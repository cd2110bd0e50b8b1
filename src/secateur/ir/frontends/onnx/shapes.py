"""Shapes of nodes that no rule knows: from ONNX's schema, from the file, or from one run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TypeProto

from secateur.ir.errors import InputError
from secateur.ir.expr import Expr
from secateur.ir.graph import DTYPES, Array, Value, numpy_dtype
from secateur.ir.symbolic import Size, unknown

from .check_tensors import KNOWN
from .process import Crashed, OnnxProcess, Refused
from .weights import restored

if TYPE_CHECKING:
    from .builder import Builder

Found = tuple[tuple[int, ...], str, bool]  # shape, element type, and whether the shape depends on data


@dataclass
class Observer:
    """Looks at one run of the whole model for the shapes that nothing else reveals.

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
    """Shape and type of every output of the node. Raises Unsupported where nothing reveals them.

    Where inputs of the network may change, a dimension is a plain number only if that is proven or the file says so.
    """
    from .names import unknown_shape

    inferred, general = _by_schema(proto, ins, builder), None
    found: dict[str, Found] = {}
    for name in filter(None, proto.output):
        kind = inferred.get(name)
        shape = None if kind is None else _concrete(kind, {})
        if shape is not None:
            tokens = _tokens(ins)
            if general is None and builder.sources:
                general = _by_schema(proto, ins, builder, tokens)
            dims = shape[0] if general is None else _followed(name, shape[0], general.get(name), tokens)
            found[name] = (dims, shape[1], any(i is not None and i.name in builder.loose for i in ins))
            continue
        recorded = _recorded(builder.model, name)
        shape = None if recorded is None else _concrete(recorded, builder.observer.sizes)
        if shape is not None and recorded is not None:
            own = {s: Expr.size(s) for s in builder.sources}
            found[name] = (_followed(name, shape[0], recorded, own), shape[1], False)
            continue
        seen = builder.observer.look(name)
        if seen is None:
            raise unknown_shape(builder.label, proto)
        dims = _followed(name, seen[0], None, {}) if builder.sources else seen[0]
        found[name] = (dims, seen[1], True)
    return found


def _followed(
    name: str, dims: tuple[int, ...], general: TypeProto | None, tokens: Mapping[str, Expr]
) -> tuple[int, ...]:
    """The dimensions with what is known of how they follow: ``general`` is the type at any size of the inputs."""
    shape = general.tensor_type.shape.dim if general is not None and general.HasField("tensor_type") else []
    out: list[int] = []
    for axis, value in enumerate(dims):
        dim = shape[axis] if len(shape) == len(dims) else None
        if dim is not None and dim.HasField("dim_value") and dim.dim_value == value:
            out.append(value)
        elif dim is not None and dim.dim_param in tokens:
            out.append(Size(value, tokens[dim.dim_param]))
        else:
            out.append(unknown(value, f"{name}#{axis}"))
    return tuple(out)


def _tokens(ins: Sequence[Value | None]) -> dict[str, Expr]:
    """A name for each expression among the dimensions of these values."""
    exprs = {d.name: d.expr for v in ins if v is not None for d in v.shape if isinstance(d, Size)}
    return {f"size_{i}": e for i, (_, e) in enumerate(sorted(exprs.items()))}


def _by_schema(
    proto: NodeProto, ins: Sequence[Value | None], builder: Builder, tokens: Mapping[str, Expr] | None = None
) -> dict[str, TypeProto]:
    """What ONNX itself derives; with ``tokens`` at any size of the inputs, else at the captured one."""
    opset = {o.domain: o.version for o in builder.model.opset_import}.get(proto.domain, builder.opset)
    if not onnx.defs.has(proto.op_type, domain=proto.domain) or any(
        a.type in (a.GRAPH, a.GRAPHS) for a in proto.attribute
    ):
        return {}
    types, data = {}, {}
    for name, value in zip(proto.input, ins, strict=True):
        if value is None:
            continue
        types[name] = _type_of(value, tokens or {})
        array = builder.const(value.name)
        if array is None and tokens is None and value.name in builder.follows:
            array = builder.follows[value.name].array
        if array is not None and array.size <= 1024:
            data[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
    imports = {o.domain: o.version for o in builder.model.opset_import}
    try:
        return builder.observer.process.infer(proto, opset, imports, types, data)
    except Refused:  # without an answer the file is asked
        return {}
    except Crashed as error:
        raise InputError(f"{builder.label}: {error}") from error


def _type_of(value: Value, tokens: Mapping[str, Expr]) -> TypeProto:
    names = {e: t for t, e in tokens.items()}
    dims = [names.get(d.expr, int(d)) if isinstance(d, Size) else int(d) for d in value.shape]
    kind = np.dtype(object) if value.dtype == "str" else numpy_dtype(value.dtype)
    element = onnx.helper.np_dtype_to_tensor_dtype(kind)
    return onnx.helper.make_tensor_type_proto(element, dims)


def _concrete(kind: TypeProto, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], str] | None:
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape") or tensor.elem_type not in KNOWN:
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
