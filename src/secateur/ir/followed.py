"""Which sizes of a graph may vary: its shapes, each dimension with how it follows the inputs."""

from __future__ import annotations

from .graph import Attr, Graph, Sym, Value
from .infer import infer_node
from .symbolic import Size, as_size, has_sizes, map_sizes, unknown


def followed_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Every value's shape; a dimension that may vary is a ``Size``, the others are constant by proof."""
    if not has_symbols(graph):
        return {v.name: v.shape for v in graph.values.values()}
    known = {v.name: Value(v.name, _sizes(v), v.dtype) for v in graph.inputs}
    for node in graph.nodes:
        ins = [None if i is None else known.get(i) or graph.value(i) for i in node.inputs]
        if any(map(has_sizes, node.attrs.values())):
            node = node.with_attrs(**{k: map_sizes(a, as_size) for k, a in node.attrs.items()})
        outs = infer_node(node, ins)
        known.update((v.name, Value(v.name, _sizes(v), v.dtype)) for v in outs)
    return {name: v.shape for name, v in known.items()}


def _sizes(value: Value) -> tuple[int, ...]:
    """The shape with expressions; what an operator makes that only a run reveals is told apart by its place."""
    return tuple(
        d if isinstance(d, Size) or not isinstance(d, Sym)
        else unknown(int(d), f"{value.name}#{axis}") if d.name == "any" else as_size(d)
        for axis, d in enumerate(value.shape)
    )  # fmt: skip


def has_symbols(graph: Graph) -> bool:
    """Whether any dimension of an input may vary."""
    return any(isinstance(d, Sym) for v in graph.inputs for d in v.shape)


def said(attr: Attr) -> Attr:
    """Shapes and other attributes for comparison at every size: a dimension that follows is its expression."""
    if isinstance(attr, tuple):
        return tuple(map(said, attr))
    return attr.expr if isinstance(attr, Size) else attr
