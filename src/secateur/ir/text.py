"""The text form: deterministic, made for reading in tests and diffs, and it parses back.

Weights print with shape and type; those of up to 16 elements also with their values. Comments
(from ``#`` on) and what analyses add at the end are not read back; larger weights come back as zeros.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

import numpy as np

from .errors import InputError
from .graph import Array, Attr, Graph, Node, Source, Sym, Value, dtype_of, numpy_dtype
from .infer import infer_node

_INLINE = 16


def _attr(value: Attr) -> str:
    if isinstance(value, tuple | list):
        return "[" + ",".join(_attr(v) for v in value) + "]"
    return repr(value)


def print_node(graph: Graph, node: Node, comment: str = "") -> str:
    """One line: outputs, operator, inputs, attributes and the type of the result."""
    ins = ", ".join("_" if i is None else f"@{i}" if i in graph.weights else f"%{i}" for i in node.inputs)
    outs = ", ".join(f"%{v.name}" for v in node.outputs)
    attrs = "".join(f" {k}={_attr(v)}" for k, v in sorted(node.attrs.items()))
    types = ", ".join(map(str, node.outputs))
    return f"{outs} = {node.op}({ins}){attrs} : {types}" + (f"  # {comment}" if comment else "")


def print_graph(graph: Graph, comments: Mapping[str, str] | None = None) -> str:
    """The whole graph. ``comments`` by node name end the line of that node."""
    lines = [f"graph {graph.name}"]
    lines += [f"  in  %{v.name} : {v}" for v in graph.inputs]
    lines += [f"  {print_node(graph, n, (comments or {}).get(n.name, ''))}" for n in graph.nodes]
    lines.append("  out " + ", ".join(f"@{o}" if o in graph.weights else f"%{o}" for o in graph.outputs))
    if graph.weights:
        lines.append("weights")
        lines += [f"  @{name} {_weight(w)}" for name, w in sorted(graph.weights.items())]
    lines += [line for note in graph.notes.values() if hasattr(note, "lines") for line in note.lines()]
    return "\n".join(lines) + "\n"


def _weight(array: Array) -> str:
    text = f"{dtype_of(array)}[{', '.join(map(str, array.shape))}]"
    if array.size <= _INLINE and dtype_of(array) in ("f32", "f64", "i64", "i32", "b1"):
        text += f" = {array.ravel().tolist()}"
    return text


_TYPE = re.compile(r"(\w+)\[([^\]]*)\]")
_NODE = re.compile(r"^(?P<outs>%[^=]*?) = (?P<op>\w+)\((?P<ins>[^)]*)\)(?P<attrs>.*?) : (?P<types>.*)$")
_ATTR = re.compile(r"(\w+)=(\[[^=]*\]|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)")


def _dim(text: str) -> int:
    name, _, size = text.strip().rpartition(":")
    return Sym(int(size), name) if name else int(size)


def _types(text: str) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(_dim(d) for d in dims.split(",") if d.strip()), dtype) for dtype, dims in _TYPE.findall(text)]


def _literal(text: str) -> Attr:
    if text in ("inf", "-inf", "nan"):
        return float(text)
    if text.startswith("[") and ":" in text and not set("'\"") & set(text):  # sizes that follow the inputs
        return tuple(_dim(d) for d in text[1:-1].split(","))
    value = ast.literal_eval(text)
    return _tuples(value)


def _tuples(value: Attr) -> Attr:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _name(text: str) -> str | None:
    text = text.strip()
    return None if text == "_" else text[1:]


def parse_graph(text: str) -> Graph:
    """Read a text form back. Raises InputError with the line that cannot be read."""
    name, inputs = "graph", []
    outputs: tuple[str, ...] = ()
    nodes: list[Node] = []
    weights: dict[str, Array] = {}
    in_weights = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"\s\s?#\s.*$", "", raw).strip()
        try:
            if not line:
                continue
            if line.startswith("group "):
                break  # what analyses found is derived anew, not read back
            if line.startswith("graph "):
                name = line[6:].strip()
            elif line == "weights":
                in_weights = True
            elif in_weights:
                weights.update([_parse_weight(line)])
            elif line.startswith("in "):
                target, kind = line[3:].strip().split(" : ")
                ((shape, dtype),) = _types(kind)
                inputs.append(Value(target.strip()[1:], shape, dtype))
            elif line.startswith("out "):
                outputs = tuple(o.strip()[1:] for o in line[4:].split(","))
            else:
                nodes.append(_parse_node(line))
        except (ValueError, SyntaxError, AttributeError) as error:
            raise InputError(f"IR text, line {number}: cannot read '{raw.strip()}' ({error})") from error
    return Graph(name, tuple(inputs), tuple(nodes), outputs, weights)


def _parse_weight(line: str) -> tuple[str, Array]:
    head, _, data = line.partition(" = ")
    target, kind = head.split(" ", 1)
    ((shape, dtype),) = _types(kind)
    if data:
        return target[1:], np.array(ast.literal_eval(data), numpy_dtype(dtype)).reshape(shape)
    return target[1:], np.broadcast_to(np.zeros((), numpy_dtype(dtype)), shape)


def _parse_node(line: str) -> Node:
    found = _NODE.match(line)
    if not found:
        raise ValueError("expected '%out = op(%in) attr=value : f32[..]'")
    types = _types(found["types"])
    names = [o.strip()[1:] for o in found["outs"].split(",")]
    if len(types) != len(names):
        raise ValueError(f"{len(names)} outputs, {len(types)} types")
    outs = tuple(Value(n, shape, dtype) for n, (shape, dtype) in zip(names, types, strict=True))
    ins = tuple(_name(i) for i in found["ins"].split(",") if i.strip())
    attrs = {key: _literal(value) for key, value in _ATTR.findall(found["attrs"])}
    return Node(found["op"], ins, outs, attrs, Source(names[0]))


def reinfer(graph: Graph) -> Graph:
    """The graph with every shape derived anew from its inputs and weights."""
    known = {v.name: v for v in graph.inputs}
    nodes = []
    for node in graph.nodes:
        inputs = [None if i is None else known.get(i) or graph.value(i) for i in node.inputs]
        outputs = infer_node(node, inputs)
        known.update((v.name, v) for v in outputs)
        nodes.append(Node(node.op, node.inputs, outputs, node.attrs, node.source))
    return graph.rewrite(nodes=nodes)
