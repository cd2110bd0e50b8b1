"""What stops a budget: the layers that keep most where as little as can be is kept, and why each does."""

from __future__ import annotations

from secateur.ir import Array, Graph, Node
from secateur.ir.plain import shortened
from secateur.passes.analysis.cost import cost
from secateur.passes.notes import Coupling

MOST = 3  # layers that are named
QUANTISED = ("Quantize", "QLinear", "Integer")  # in the names of operators


def obstacles(graph: Graph, coupling: Coupling, mask: Array, kind: str) -> str:
    """The heaviest layers of what remains under ``mask`` (bool[units]), each with its share and its reason.

    ``kind``: "macs", or "params" and "bytes", for which parameters are compared. Empty where no layer counts.
    """
    from secateur.passes.rewrite.slim import slim_shapes

    field = "macs" if kind == "macs" else "params"
    rows = {row.node: row for row in cost(slim_shapes(graph, mask)).layers}
    total = sum(getattr(row, field) for row in rows.values())
    heavy = sorted(rows.values(), key=lambda row: -getattr(row, field))[:MOST]
    named = [
        f"'{shortened(row.label)}' ({getattr(row, field) / total:.0%}: {_why(graph, coupling, row.node)})"
        for row in heavy
        if getattr(row, field)
    ]
    return ", ".join(named)


def uncounted(graph: Graph) -> str:
    """Where a network's work may lie that counts nothing, and what to do."""
    nodes = [n for n in graph.nodes if n.op == "opaque"]
    if not nodes:
        return "none of its layers multiplies"
    branch = next((n for n in nodes if n.attrs["target"] == "ai.onnx::If"), None)
    if branch is not None:
        said = ", ".join(f"'{shortened(name)}'" for name in _deciding(graph, branch)) or "its condition"
        return (
            f"its work lies in the branches of If '{shortened(branch.label)}', which stay whole: each run takes one of "
            f"them, as {said} says. Export the network for one value of {said} at a time, without the If, and prune "
            "each"
        )
    named = ", ".join(f"{n.attrs['target']} '{shortened(n.label)}'" for n in nodes[:MOST])
    more = f" and {len(nodes) - MOST} more" if len(nodes) > MOST else ""
    quantised = any(word in n.attrs["target"] for n in nodes for word in QUANTISED)
    todo = "these are quantised: prune the float network, then quantise it" if quantised else "export it without them"
    return f"its work lies in operators that are not looked into ({named}{more}); {todo}"


def _deciding(graph: Graph, branch: Node) -> list[str]:
    """The inputs of the network that the condition of an If is computed from."""
    work, seen = [branch.inputs[0]], set()
    while work:
        name = work.pop()
        if name is None or name in seen:
            continue
        seen.add(name)
        maker = graph.producer.get(name)
        work += list(maker.inputs) if maker is not None else []
    return [v.name for v in graph.inputs if v.name in seen]


def _why(graph: Graph, coupling: Coupling, name: str) -> str:
    """Why a layer is not narrower: its outputs first, then its inputs."""
    outputs = coupling.blocked.get(name) or _frozen(coupling, name)
    node = graph.producer.get(name)
    inputs = next((why for i in node.inputs if i and (why := _frozen(coupling, i))), None) if node is not None else None
    found = [f"its {side} stay: {why}" for side, why in (("outputs", outputs), ("inputs", inputs)) if why]
    return " and ".join(found) or "one channel of each kind stays"


def _frozen(coupling: Coupling, value: str) -> str | None:
    """The reason if every channel of the value stays."""
    channels = coupling.channels.get(value)
    if channels is None:
        return None
    units = channels.units[channels.units >= 0]
    if not coupling.frozen[units].all():
        return None
    kept = set(units.tolist())
    return next((g.frozen for g in coupling.groups if g.frozen and kept & set(g.units.tolist())), None)
