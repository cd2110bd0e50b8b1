"""Which axes of the inputs the caller may change, and how they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, ValueInfoProto

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.graph import Sym, Value
from secateur.ir.onnx_origin import CAPTURED

from .names import Names
from .shapes import element_name

# Operators that leave axes where they are, on the way from an input to its first convolution.
PASS_ON = frozenset(
    {"Add", "Sub", "Mul", "Div", "Cast", "Identity", "Relu", "Clip", "Pad", "BatchNormalization", "Sigmoid", "Resize",
     "Upsample", "MaxPool", "AveragePool", "Dropout", "Sqrt", "Neg", "InstanceNormalization"}
)  # fmt: skip
LARGEST = 1 << 16  # of a size that metadata say


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
            raise Unsupported(
                f"{label}: input '{info.name}' is not a tensor; only tensors can be fed to a network here"
            )
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


def chosen_sizes(
    infos: Sequence[ValueInfoProto], axes: Sequence[Axis], shapes: Mapping[str, Sequence[int]], label: str
) -> dict[str, int]:
    """The sizes of dynamic axes that these shapes of inputs give, by the axes' names.

    Raises InputError for an input that there is not, another rank, a size below 1, another size than the file fixes,
    and two sizes for one name.
    """
    known = {i.name: i for i in infos}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in known:
            raise InputError(f"{label}: there is no input '{name}' to give a shape to; its inputs: {', '.join(known)}")
        dims = known[name].type.tensor_type.shape.dim
        given, own = ",".join(map(str, shape)), ",".join(d.dim_param or str(d.dim_value or "?") for d in dims)
        if len(shape) != len(dims):
            raise InputError(f"{label}: the shape {given} for input '{name}' has {len(shape)} sizes; it takes {own}")
        if any(n < 1 for n in shape):
            raise InputError(f"{label}: the shape {given} for input '{name}' has a size below 1")
        free = {a.axis: a.name for a in axes if a.input == name}
        for axis, n in enumerate(shape):
            if axis not in free and dims[axis].dim_value != n:
                raise InputError(
                    f"{label}: the shape {given} for input '{name}' does not fit: the file fixes axis {axis} at "
                    f"{dims[axis].dim_value} ({own}); export it with that axis dynamic"
                )
            if axis in free and sizes.setdefault(free[axis], int(n)) != n:
                raise InputError(
                    f"{label}: the shapes give '{free[axis]}' two sizes, {sizes[free[axis]]} and {n}; it is one size"
                )
    return sizes


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


def recorded_sizes(model: ModelProto, axes: Sequence[Axis]) -> dict[str, int]:
    """The sizes at which a file's network was captured, which secateur writes next to it: "H=224,W=224"."""
    text = next((p.value for p in model.metadata_props if p.key == CAPTURED), "")
    pairs = [part.partition("=") for part in text.split(",")]
    known = {a.name for a in axes}
    return {name: int(n) for name, _, n in pairs if name in known and n.isdecimal() and 0 < int(n) <= LARGEST}
