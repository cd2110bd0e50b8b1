"""What a rule built: checked against the recording, named after the call, and the arguments of opaque calls as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Set

import torch

from secateur.ir.errors import Unsupported
from secateur.ir.graph import Graph, Node, Value

from .arrays import short_name
from .build import Argument, Builder, Skip


def titled(b: Builder, name: str, result: Argument, begin: int) -> Argument:
    """Give the results of the nodes just made the name of the torch node."""
    made = {v.name for n in b.nodes[begin:] for v in n.outputs}
    flat = list(result) if isinstance(result, list | tuple) else [result]
    table: dict[str, str] = {}
    for i, value in enumerate(flat):
        if isinstance(value, Value) and value.name in made and value.name not in table:
            wanted = name if not isinstance(result, list | tuple) else f"{name}_{i}"
            while b.taken(wanted) or wanted in table.values():
                wanted += "_"
            table[value.name] = wanted
    if not table:
        return result
    for i in range(begin, len(b.nodes)):
        b.nodes[i] = renamed(b.nodes[i], table)
        for value in b.nodes[i].outputs:
            b.values[value.name] = value
            b.made[value.name] = b.nodes[i]
    found = [b.values[table[v.name]] if isinstance(v, Value) and v.name in table else v for v in flat]
    return tuple(found) if isinstance(result, list | tuple) else found[0]


def renamed(node: Node, table: Mapping[str, str]) -> Node:
    """The node with the values under their new names; those that the table lacks keep theirs."""
    inputs = tuple(table.get(i, i) if i is not None else None for i in node.inputs)
    outputs = tuple(Value(table.get(v.name, v.name), v.shape, v.dtype) for v in node.outputs)
    return Node(node.op, inputs, outputs, node.attrs, node.source)


def settle(graph: Graph, rename: Mapping[str, str]) -> Graph:
    """Folded weights take the names they asked for where those are still free."""
    table: dict[str, str] = {}
    for temporary, wanted in rename.items():
        if temporary not in graph.weights:
            continue
        if wanted not in graph.weights and wanted not in table.values() and wanted not in graph.values:
            table[temporary] = wanted
    if not table:
        return graph
    weights = {table.get(name, name): array for name, array in graph.weights.items()}
    outputs = [table.get(name, name) for name in graph.outputs]
    return graph.rewrite(nodes=[renamed(n, table) for n in graph.nodes], outputs=outputs, weights=weights)


def check(result: Argument, meta: Argument) -> None:
    """Does what a rule built have the recorded shapes and types? Raises Skip."""
    if isinstance(meta, list | tuple):
        if not isinstance(result, list | tuple):
            raise Skip("one result for several")
        for one, m in zip(result, meta, strict=False):
            if one is not None:
                check(one, m)
        return
    if not isinstance(result, Value):
        raise Skip("no result")
    have, want = (result.shape, result.dtype), (tuple(int(d) for d in meta.shape), short_name(meta.dtype))
    if have != want:
        raise Skip(f"the rule gives {have}, torch {want}")


def jsonable(item: Argument, operands: list[Value], sizes: list[int] | None = None) -> Argument:
    """Call arguments as JSON, tensors as {"$": position among the node's inputs}.

    Integers go to ``sizes``, where that is given, and are {"#": position there}.
    """
    if sizes is not None and isinstance(item, int) and not isinstance(item, bool):
        sizes.append(item)
        return {"#": len(sizes) - 1}
    if isinstance(item, Value):
        operands.append(item)
        return {"$": len(operands) - 1}
    if isinstance(item, list | tuple):
        return [jsonable(i, operands, sizes) for i in item]
    if isinstance(item, Mapping):
        return {key: jsonable(i, operands) for key, i in item.items()}
    if isinstance(item, torch.dtype | torch.layout | torch.memory_format):
        return {"torch": str(item).removeprefix("torch.")}
    if isinstance(item, torch.device):
        return {"device": str(item)}
    if isinstance(item, float) and (item != item or item in (float("inf"), float("-inf"))):
        return {"float": str(item)}
    if isinstance(item, complex):
        return {"complex": [item.real, item.imag]}
    if item is None or isinstance(item, bool | int | float | str):
        return item
    raise Unsupported(f"an argument of type {type(item).__name__} cannot be kept in an opaque node.")


def replaced(graph: Graph, rename: Mapping[str, str], parameters: Set[str]) -> tuple[str, ...]:
    """A remark on weights that were computed from parameters and are kept as what they are now."""
    wanted = {*rename, *rename.values()}
    names = [name for name in graph.weights if name in wanted and name not in parameters]
    if not names:
        return ()
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return (f"computed from parameters, which the result has no longer; kept as what they are now: {shown}",)
