"""Which axes of the inputs the caller may change, and how they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, ValueInfoProto

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.graph import Sym, Value

from .onnx_builder import Names
from .onnx_shapes import element_name

# Operators that leave axes where they are, on the way from an input to its first convolution.
PASS_ON = frozenset(
    {"Add", "Sub", "Mul", "Div", "Cast", "Identity", "Relu", "Clip", "Pad", "BatchNormalization", "Sigmoid", "Resize",
     "Upsample", "MaxPool", "AveragePool", "Dropout", "Sqrt", "Neg", "InstanceNormalization"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Axis:
    """A dynamic axis: where it is and the name of its size. ``batch`` where it is captured at 1."""

    input: str
    axis: int
    name: str
    batch: bool


def dynamic_axes(model: ModelProto, infos: Sequence[ValueInfoProto], names: Names, label: str) -> list[Axis]:
    """Every dynamic axis of every input. Raises InputError for what cannot be dynamic, Unsupported for no tensors."""
    found: list[Axis] = []
    batches: set[str] = set()
    for info in infos:
        if not info.type.HasField("tensor_type"):
            raise Unsupported(f"{label}: input '{info.name}' is no tensor; only tensors can be fed to a network here")
        tensor = info.type.tensor_type
        if not tensor.HasField("shape"):
            raise InputError(f"{label}: input '{info.name}' has no recorded rank; export the model with input shapes")
        for axis, dim in enumerate(tensor.shape.dim):
            if dim.HasField("dim_value") and (dim.dim_value > 0 or (dim.dim_value == 0 and axis > 0)):
                if dim.dim_value == 0:
                    raise InputError(
                        f"{label}: input '{info.name}' has size 0 along axis {axis}, so it holds no data; "
                        "export the model with a real size"
                    )
                continue
            if axis > 0 and _is_channel(model, info.name, axis):
                raise InputError(
                    f"{label}: input '{info.name}' has a dynamic channel count (axis {axis}); a convolution needs "
                    "a fixed one: export the model with that axis fixed"
                )
            name = _axis_name(dim.dim_param, info.name, axis, len(tensor.shape.dim), len(infos))
            if axis == 0:
                batches.add(name)
            found.append(Axis(info.name, axis, name, False))
    return [Axis(a.input, a.axis, a.name, a.name in batches) for a in found]


def _axis_name(given: str, tensor: str, axis: int, rank: int, inputs: int) -> str:
    clean = "".join(c if c.isalnum() or c in "_." else "_" for c in given)
    if clean and clean not in ("-1", "_1", "_", "unk__", "None"):
        return clean
    if axis == 0:
        return "N"
    short = {2: "H", 3: "W"}.get(axis, f"d{axis}") if rank == 4 else f"d{axis}"
    return short if inputs == 1 else f"{tensor}_{short}".replace(" ", "_").replace(":", "_")


def _is_channel(model: ModelProto, tensor: str, axis: int) -> bool:
    """Whether this axis of the input arrives at a convolution as its channels."""
    position = {tensor: axis}
    for node in model.graph.node:
        if not node.input or node.input[0] not in position:
            continue
        at = position[node.input[0]]
        if node.op_type in ("Conv", "ConvTranspose") and at == 1:
            return True
        if node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            if perm is not None and at in perm:
                position[node.output[0]] = perm.index(at)
        elif node.op_type in PASS_ON:
            position[node.output[0]] = at
    return False


def input_values(
    infos: Sequence[ValueInfoProto],
    axes: Sequence[Axis],
    syms: Mapping[str, Sym],
    names: Names,
    sizes: Mapping[str, int] | None = None,
) -> list[Value]:
    """The graph's inputs; dynamic axes take their Sym, or else the plain size."""
    values = []
    for info in infos:
        tensor = info.type.tensor_type
        shape: list[int] = [d.dim_value for d in tensor.shape.dim]
        for a in axes:
            if a.input == info.name:
                shape[a.axis] = syms[a.name] if a.name in syms else (sizes or {})[a.name]
        values.append(Value(names.clean(info.name), tuple(shape), element_name(tensor.elem_type)))
    return values
