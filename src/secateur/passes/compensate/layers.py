"""Which layers can be repaired, and where a constant in what they put out can go."""

from __future__ import annotations

from secateur.ir import Graph, Node


def bias_of(node: Node) -> str | None:
    """The name of a layer's bias, if it has one."""
    return node.inputs[2] if len(node.inputs) > 2 else None


def solvable(graph: Graph, node: Node) -> bool:
    """A convolution or linear layer with weights of its own that mixes channels (a depthwise one cannot make up)."""
    if node.op not in ("conv", "linear") or node.inputs[1] not in graph.weights:
        return False
    weight = graph.weights[node.inputs[1] or ""]
    own = all(len(graph.users[n]) == 1 for n in node.inputs[1:] if n is not None)
    given = all(n is None or n in graph.weights for n in node.inputs[1:])
    depthwise = node.op == "conv" and weight.shape[1] == 1 and node.attrs["groups"] > 1
    return own and given and not depthwise and weight.dtype.kind == "f"


def sink(graph: Graph, node: Node) -> list[tuple[str, float]]:
    """Where a constant in the layer's output can go: (weight, sign) of its bias or of the batch norm that reads it."""
    bias = bias_of(node)
    if bias is not None:
        return [(bias, 1.0)]
    users = graph.users.get(node.name, ())
    if len(users) != 1 or users[0].op != "batch_norm" or node.name in graph.outputs:
        return []
    mean = users[0].inputs[3] or ""
    return [(mean, -1.0)] if mean in graph.weights and len(graph.users[mean]) == 1 else []
