"""Nodes of an ONNX file against ONNX's definitions of their operators: operands and attributes, by kind and value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import onnx
from onnx import AttributeProto, NodeProto

from .check_tensors import KNOWN, Damage

A = AttributeProto
FIELD = {
    A.INT: "i", A.FLOAT: "f", A.STRING: "s", A.TENSOR: "t", A.GRAPH: "g", A.SPARSE_TENSOR: "sparse_tensor",
    A.TYPE_PROTO: "tp", A.INTS: "ints", A.FLOATS: "floats", A.STRINGS: "strings", A.TENSORS: "tensors",
    A.GRAPHS: "graphs", A.SPARSE_TENSORS: "sparse_tensors", A.TYPE_PROTOS: "type_protos",
}  # fmt: skip
REPEATED = frozenset(v for v in FIELD.values() if v.endswith("s") and v != "s")


# -- values ---------------------------------------------------------------------------------------------------
def _positive(v: object) -> bool:
    return all(i > 0 for i in v) if isinstance(v, list) else isinstance(v, int) and v > 0


def _natural(v: object) -> bool:
    return all(i >= 0 for i in v) if isinstance(v, list) else isinstance(v, int) and v >= 0


def _flag(v: object) -> bool:
    return v in (0, 1)


def _finite(v: object) -> bool:
    return all(map(math.isfinite, v)) if isinstance(v, list) else isinstance(v, int | float) and math.isfinite(v)


def _bound(v: object) -> bool:
    return isinstance(v, float) and not math.isnan(v)


def _any(v: object) -> bool:
    return True


def _element(v: object) -> bool:
    return v in KNOWN


def _one_of(*choices: str) -> Callable[[object], bool]:
    return lambda v: v in {c.encode() for c in choices}


ACTIVATIONS = frozenset(
    b"relu tanh sigmoid affine leakyrelu thresholdedrelu scaledtanh hardsigmoid elu softsign softplus".split()
)


def _activations(v: object) -> bool:
    return isinstance(v, list) and all(a.lower() in ACTIVATIONS for a in v)


POSITIVE = ("kernel_shape", "strides", "dilations", "group", "num_groups", "blocksize", "hidden_size", "num_outputs")
FLAGS = (
    "keepdims", "ceil_mode", "count_include_pad", "noop_with_empty_axes", "select_last_index", "transA", "transB",
    "training_mode", "exclusive", "reverse", "linear_before_reset", "input_forget", "layout", "allowzero", "fmod",
    "spatial", "antialias", "exclude_outside", "storage_order", "largest", "sorted", "upper", "is_causal", "saturate",
)  # fmt: skip

# What an attribute of this name may be, whatever the operator, and then for one operator.
VALUES: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(POSITIVE, _positive), **dict.fromkeys(FLAGS, _flag),
    **dict.fromkeys(("output_padding", "block_size", "output_shape"), _natural),
    **dict.fromkeys(["min", "max", "value"], _bound),
    **dict.fromkeys(["to", "dtype", "output_dtype"], _element),
    "auto_pad": _one_of("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", ""),
    "direction": _one_of("forward", "reverse", "bidirectional", "LEFT", "RIGHT"),
    "approximate": _one_of("none", "tanh"),
    "coordinate_transformation_mode": _one_of(
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
        "tf_half_pixel_for_nn", "output_half_pixel"),
    "nearest_mode": _one_of("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "keep_aspect_ratio_policy": _one_of("stretch", "not_larger", "not_smaller"),
    "activations": _activations,
}  # fmt: skip
OWN_VALUES: Mapping[tuple[str, str], Callable[[object], bool]] = {
    ("Pad", "mode"): _one_of("constant", "reflect", "edge", "wrap"),
    ("Resize", "mode"): _one_of("nearest", "linear", "cubic"),
    ("Upsample", "mode"): _one_of("nearest", "linear", "bilinear"),
    ("DepthToSpace", "mode"): _one_of("DCR", "CRD"),
    ("LRN", "size"): _positive,
    ("Constant", "value_float"): _any, ("Constant", "value_floats"): _any,
    ("Dropout", "ratio"): lambda v: isinstance(v, float) and 0 <= v <= 1,
}  # fmt: skip


# -- definitions ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Operand:
    """An input of an operator: must it be there, the name of its type, and is that one type wherever it stands?"""

    required: bool
    kind: str
    alike: bool


@dataclass(frozen=True)
class Definition:
    """What ONNX says of an operator in one operator set."""

    inputs: tuple[Operand, ...]
    counts: tuple[tuple[int, int], tuple[int, int]]  # fewest and most inputs, and outputs
    attributes: Mapping[str, tuple[int, bool]]  # kind, and whether it must be there
    kinds: Mapping[str, frozenset[str]]  # the types that a name of a type stands for

    def operand(self, i: int) -> Operand:
        return self.inputs[min(i, len(self.inputs) - 1)]


@cache
def definition(kind: str, opset: int, domain: str) -> Definition | None:
    """The definition of an operator; that of its first version in operator sets before it; None for a foreign one."""
    if not onnx.defs.has(kind, domain=domain):
        return None
    if onnx.defs.has(kind, max_inclusive_version=opset, domain=domain):
        schema = onnx.defs.get_schema(kind, opset, domain)
    else:  # runtimes had some operators before ONNX did
        history = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == kind and s.domain == domain]
        schema = min(history, key=lambda s: s.since_version)
    option = onnx.defs.OpSchema.FormalParameterOption
    inputs = tuple(
        Operand(p.option == option.Single, p.type_str, p.option != option.Variadic or p.is_homogeneous)
        for p in schema.inputs
    )
    counts = ((schema.min_input, schema.max_input), (schema.min_output, schema.max_output))
    attributes = {name: (_kind(a.type), bool(a.required)) for name, a in schema.attributes.items()}
    kinds = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    return Definition(inputs, counts, attributes, kinds)


def _kind(kind: object) -> int:
    """The number of an attribute's kind; the definitions have a type of their own for it."""
    return int(kind.value)  # type: ignore[attr-defined]


# -- checks ---------------------------------------------------------------------------------------------------
def check_node(node: NodeProto, opsets: Mapping[str, int], inside: bool = False) -> None:
    """Refuse a node that ONNX's definition of its operator excludes. ``inside``: it is part of a function.

    Of operators that ONNX does not define only the form of the attributes is checked. Raises Damage.
    """
    where = f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"
    if not node.op_type:
        raise Damage(f"node {where} names no operator")
    if not any(node.output):
        raise Damage(f"{where} has no outputs")
    domain = "" if node.domain == "ai.onnx" else node.domain
    known = definition(node.op_type, opsets.get(domain, 1), domain)
    seen: set[str] = set()
    for attr in node.attribute:
        if attr.name in seen:
            raise Damage(f"{where} has the attribute '{attr.name}' twice")
        seen.add(attr.name)
        _attribute(attr, known, node.op_type if known else None, where, inside)
    if known is None:
        return
    missing = [name for name, (_, needed) in known.attributes.items() if needed and name not in seen]
    if missing:
        raise Damage(f"{where} lacks the attribute '{missing[0]}'")
    for what, names, (fewest, most) in _counted(node, known):
        if not fewest <= len(names) <= most:
            raise Damage(
                f"{where} has {len(names)} {what}; ONNX defines {fewest if fewest == most else f'{fewest} to {most}'}"
            )
    for i, name in enumerate(node.input):
        if not name and known.operand(i).required:
            raise Damage(f"input {i} of {where} is missing")


def _counted(node: NodeProto, known: Definition) -> list[tuple[str, Sequence[str], tuple[int, int]]]:
    return [("inputs", node.input, known.counts[0]), ("outputs", node.output, known.counts[1])]


def _attribute(attr: AttributeProto, known: Definition | None, kind: str | None, where: str, inside: bool) -> None:
    what = f"attribute '{attr.name}' of {where}"
    if attr.type not in FIELD:
        raise Damage(f"{what} has no known kind ({attr.type})")
    filled = [f for f in FIELD.values() if (getattr(attr, f) if f in REPEATED else attr.HasField(f))]
    if attr.ref_attr_name:
        if not inside or filled:
            raise Damage(f"{what} refers to an attribute '{attr.ref_attr_name}' that no function has")
    elif any(f != FIELD[attr.type] for f in filled) or (not filled and FIELD[attr.type] in ("t", "g", "sparse_tensor")):
        raise Damage(f"{what} holds {', '.join(filled) or 'nothing'} but is of kind {A.AttributeType.Name(attr.type)}")
    for text in (attr.s, *attr.strings):
        try:
            text.decode()
        except UnicodeDecodeError:
            raise Damage(f"{what} is not text in UTF-8") from None
    if known is None or attr.name.startswith("__"):
        return
    if attr.name not in known.attributes:
        raise Damage(f"{what} is none that ONNX defines")
    if attr.type != known.attributes[attr.name][0]:
        wanted = A.AttributeType.Name(known.attributes[attr.name][0])
        raise Damage(f"{what} is of kind {A.AttributeType.Name(attr.type)} instead of {wanted}")
    if not attr.ref_attr_name:
        _value(attr, kind or "", what)


def _value(attr: AttributeProto, kind: str, what: str) -> None:
    found = getattr(attr, FIELD[attr.type])
    value = list(found) if FIELD[attr.type] in REPEATED else found
    rule = OWN_VALUES.get((kind, attr.name)) or VALUES.get(attr.name)
    if rule in (_bound, _element) and not isinstance(value, float | int):  # a tensor called 'value'
        return
    if rule is None:
        rule = _finite if attr.type in (A.FLOAT, A.FLOATS) else _any
    if not rule(value):
        text = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:60]}.."
        raise Damage(f"{what} is {text}")


def check_types(node: NodeProto, opset: int, kinds: Mapping[int, str]) -> None:
    """Refuse element types that ONNX's operator does not take ('float', 'int64' .. by the input's number).

    Raises Damage.
    """
    known = definition(node.op_type, opset, "")
    if known is None or not known.inputs:
        return
    bound: dict[str, str] = {}
    for i, element in kinds.items():
        operand = known.operand(i)
        kind = f"tensor({element})"
        if kind not in known.kinds.get(operand.kind, frozenset({operand.kind})):
            raise Damage(f"input {i} is of type {element}, which {node.op_type} does not take")
        if operand.alike:
            if bound.setdefault(operand.kind, kind) != kind:
                raise Damage(f"input {i} is of type {element} and another one of type {bound[operand.kind][7:-1]}")
