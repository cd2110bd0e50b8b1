"""Checking an ONNX model before anything uses it: one place that says which files are sound.

What is looked at: the data of every tensor against its type and dimensions (``onnx_check_tensors``), every node against
ONNX's own definition of its operator (``onnx_check_nodes``), and here names: defined once, before they are read, in
the graph, in the graphs inside its nodes and in functions. What comes after this may trust the file in that much.
"""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from secateur.ir.errors import InputError

from .check_nodes import check_node
from .check_tensors import KNOWN, Damage, check_sparse, check_tensor

LONGEST = 1 << 31  # positions along one axis of an input
DEEPEST = 32  # axes of an input
MOST_CALLS = 100_000  # nodes that functions may grow to


def check(model: ModelProto, label: str, apart: Iterable[str] = ()) -> None:
    """Refuse a model that breaks a rule of ONNX, by the first fault found.

    ``apart`` names weights of the graph whose data was read on its own. Raises InputError with what is wrong and
    where.
    """
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    try:
        _text(model)
        for function in model.functions:
            own = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in function.opset_import}
            _nodes(function.node, {**opsets, **own}, set(function.input), f"function '{function.name}'", inside=True)
        _calls(model)
        _graph(model.graph, opsets, frozenset(), frozenset(apart), "the graph")
        _interface(model.graph)
    except Damage as fault:
        raise InputError(f"{label}: {fault}; the file is damaged: export it again") from None


def _text(message: Message) -> None:
    """All names are UTF-8; protobuf hands others out as bytes, which no comparison expects."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            for text in (value,) if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise Damage(f"{field.full_name.removeprefix('onnx.')} holds {text[:40]!r}, which is not UTF-8")
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in (value,) if isinstance(value, Message) else value:
                if isinstance(inner, TensorProto):  # its fields are asked for by name: its data would be copied
                    names = (inner.name, inner.doc_string, *(e.value for e in inner.external_data))
                    if any(isinstance(n, bytes) for n in names):
                        raise Damage("a tensor has a name that is not UTF-8")
                else:
                    _text(inner)


def _graph(graph: GraphProto, opsets: dict[str, int], outer: frozenset[str], apart: frozenset[str], where: str) -> None:
    """A graph and those inside its nodes. ``outer`` are names that may be read though it does not define them."""
    dense, sparse = [t.name for t in graph.initializer], [t.values.name for t in graph.sparse_initializer]
    _once([*dense, *sparse], where, "weight")
    _once([i.name for i in graph.input], where, "input")
    for tensor in graph.initializer:
        if tensor.name not in apart or _holds_data(tensor):
            check_tensor(tensor, f"weight '{tensor.name}'")
    for weight in graph.sparse_initializer:
        check_sparse(weight, f"sparse weight '{weight.values.name}'")
    given = {*dense, *sparse, *(i.name for i in graph.input)}
    made = _nodes(graph.node, opsets, given, where)
    within = frozenset(given | made)
    for output in graph.output:
        if output.name not in within and output.name not in outer:
            raise Damage(f"output '{output.name}' of {where} is defined by nothing")
    for node in graph.node:
        _bodies(node)
        for attr in node.attribute:
            for inner in _inner(attr):
                name = f"the graph in {node.op_type} '{node.name or next(iter(node.output), '')}'"
                _graph(inner, opsets, outer | within, frozenset(), name)
                _in_order(inner, outer | within, name)


def _bodies(node: NodeProto) -> None:
    """Graphs inside a node take and give what the node does."""
    bodies = {a.name: a.g for a in node.attribute if a.type == a.GRAPH} if node.domain in ("", "ai.onnx") else {}
    counts: dict[str, tuple[int | None, int | None]] = {
        "If": (0, len(node.output)),
        "Loop": (max(len(node.input), 2), len(node.output) + 1),
        "Scan": (None, len(node.output)),
    }
    takes, gives = counts.get(node.op_type, (None, None))
    for name, body in bodies.items():
        have = (len(body.input), len(body.output))
        for what, want, found in zip(("takes", "gives"), (takes, gives), have, strict=True):
            if want is not None and want != found:
                where = f"the {name} of {node.op_type} '{node.name or next(iter(node.output), '')}'"
                raise Damage(f"{where} {what} {found} values instead of {want}")


def _holds_data(tensor: TensorProto) -> bool:
    return tensor.HasField("raw_data") or tensor.data_location == TensorProto.EXTERNAL


def _inner(attr: AttributeProto) -> list[GraphProto]:
    if attr.type == AttributeProto.GRAPH:
        return [attr.g]
    return list(attr.graphs) if attr.type == AttributeProto.GRAPHS else []


def _nodes(
    nodes: Iterable[NodeProto], opsets: dict[str, int], given: set[str], where: str, inside: bool = False
) -> set[str]:
    """Check the nodes of a graph or function; the names that they define."""
    made: set[str] = set()
    for node in nodes:
        check_node(node, opsets, inside)
        for name in filter(None, node.output):
            if name in made or name in given:
                raise Damage(f"'{name}' in {where} is defined twice, the second time by {node.op_type} '{node.name}'")
            made.add(name)
        for attr in node.attribute:
            what = f"attribute '{attr.name}' of {node.op_type} '{node.name}'"
            for tensor in (attr.t, *attr.tensors) if attr.type in (attr.TENSOR, attr.TENSORS) else ():
                if not attr.ref_attr_name:
                    check_tensor(tensor, what)
            for tensor in (attr.sparse_tensor, *attr.sparse_tensors) if "SPARSE" in _kind(attr) else ():
                if not attr.ref_attr_name:
                    check_sparse(tensor, what)
    return made


def _kind(attr: AttributeProto) -> str:
    return str(AttributeProto.AttributeType.Name(attr.type))


def _once(names: list[str], where: str, what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise Damage(f"{where} has a {what} without a name")
        if name in seen:
            raise Damage(f"{where} has two {what}s called '{name}'")
        seen.add(name)


def _in_order(graph: GraphProto, outer: frozenset[str], where: str) -> None:
    """Inside a node every name is defined before it is read; only the main graph is put in order by the reader."""
    known = {*outer, *(t.name for t in graph.initializer), *(t.values.name for t in graph.sparse_initializer)}
    known.update(i.name for i in graph.input)
    for node in graph.node:
        for name in filter(None, node.input):
            if name not in known:
                raise Damage(f"{node.op_type} '{node.name}' in {where} reads '{name}', which nothing before it defines")
        known.update(node.output)


def _calls(model: ModelProto) -> None:
    """Functions may call each other but not in a circle, nor grow without bound."""
    functions = {(f.domain, f.name): f for f in model.functions}
    calls = {key: [(n.domain, n.op_type) for n in _all_nodes(f)] for key, f in functions.items()}
    needs = {key: [c for c in found if c in functions] for key, found in calls.items()}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        names = " -> ".join(f"'{name}'" for _, name in error.args[1][:8])
        raise Damage(f"its functions call each other in a circle ({names})") from None
    sizes: dict[tuple[str, str], int] = {}
    for key in order:
        sizes[key] = sum(sizes.get(c, 1) for c in calls[key])
    total = sum(sizes.get((n.domain, n.op_type), 1) for n in model.graph.node)
    if functions and total > MOST_CALLS:
        raise Damage(f"its functions grow to {total} nodes, more than the {MOST_CALLS} that are read")


def _all_nodes(function: FunctionProto) -> list[NodeProto]:
    found = list(function.node)
    for node in found:  # grows while it is walked
        found += [n for a in node.attribute for g in _inner(a) for n in g.node]
    return found


def _interface(graph: GraphProto) -> None:
    """Inputs are tensors of a known type with sizes that a machine can hold."""
    given = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    for info in graph.input:
        if info.name not in given:
            _input(info)


def _input(info: ValueInfoProto) -> None:
    kind = info.type.WhichOneof("value")
    if kind not in (None, "tensor_type"):
        return  # refused where axes are looked at, as something that is not read
    tensor = info.type.tensor_type
    if kind is None or tensor.elem_type not in KNOWN:
        raise Damage(f"input '{info.name}' has no known element type ({tensor.elem_type})")
    if len(tensor.shape.dim) > DEEPEST:
        raise Damage(f"input '{info.name}' has {len(tensor.shape.dim)} axes")
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and not -1 <= dim.dim_value < LONGEST:
            raise Damage(f"input '{info.name}' has size {dim.dim_value} along axis {axis}")
