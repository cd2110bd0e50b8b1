"""``squeeze_excite``: gates on channels from their global average (SENet, Hu et al., CVPR 2018).

Before::

    %y = batch_norm(%c, ..) : f32[1, 64, 8, 8]

After ``squeeze_excite{reduction=16}``, with what read ``%y`` reading the gated value::

    %y.plain = batch_norm(%c, ..) : f32[1, 64, 8, 8]
    %y.squeeze = reduce_mean(%y.plain) axes=[2,3] keepdims=True : f32[1, 64, 1, 1]
    %y.down = conv(%y.squeeze, @c.squeeze.weight, @c.squeeze.bias) .. : f32[1, 4, 1, 1]
    %y.relu = relu(%y.down) : f32[1, 4, 1, 1]
    %y.up = conv(%y.relu, @c.excite.weight, @c.excite.bias) .. : f32[1, 64, 1, 1]
    %y.sigmoid = sigmoid(%y.up) : f32[1, 64, 1, 1]
    %y.gate = mul(%y.sigmoid, @const.two) : f32[1, 64, 1, 1]
    %y = mul(%y.plain, %y.gate) : f32[1, 64, 8, 8]
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, Source
from secateur.passes.pipeline import print_pass

from .factor import plain_1x1
from .layers import Edit, Names, Row, apply, blank, chosen, noted, price
from .shortcuts import shortcuts

ACTIVATIONS = frozenset({"relu", "silu", "hard_swish", "clip", "leaky_relu", "gelu", "elu", "mish"})


@dataclass(frozen=True)
class SqueezeExcite:
    """Gates on channels from their global average (SENet, Hu et al. 2018), open at the start.

    Through a bottleneck of width / ``reduction``. The gate is twice a sigmoid whose last layer starts at zero:
    exactly 1, so a trained network computes what it did to the last bit, and its gradient there is not zero, as that
    of a saturated sigmoid would be. Hu et al. use one sigmoid; the factor lies within what the layers around it can
    absorb. Without ``layers`` gates stand where the paper puts them, at the end of each residual branch; in a network
    without shortcuts after every convolution's batch norm and activation. Gates only add work: a layer whose gate
    has more multiply-accumulates than ``limit`` of its own is left alone, as is one without a map to average.
    """

    name: ClassVar[str] = "squeeze_excite"
    reduction: int = 16
    layers: tuple[str, ...] = ()
    limit: float = 0.1
    seed: int = 0

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer or a reduction below 1."""
        if self.reduction < 1:
            raise InputError(f"squeeze_excite{{reduction={self.reduction}}}: give 1 or more")
        names, rng = Names(graph), np.random.default_rng(self.seed)
        rows: list[Row] = []
        edits: dict[str, Edit] = {}
        places = {n.name: n for n in chosen(graph, self, self.layers or ("*",), ("conv",))}
        ends = {s.last for s in shortcuts(graph)} if not self.layers else set()
        for layer in places.values():
            end = chain_end(graph, layer)
            if ends and end.name not in ends:
                continue
            before = price(graph, (layer,), {})
            spec = print_pass(self)
            costs = ((before.macs, before.macs), (before.params, before.params))
            why = self._obstacle(layer, end, edits)
            if why is None:
                edit = self._gate(graph, layer, end, names, rng)
                gate = price(graph, edit.nodes, edit.weights).macs - price(graph, (end,), {}).macs
                if gate > self.limit * before.macs:
                    why = f"does not pay: its gate has {gate / before.macs:.2f} of its multiply-accumulates"
                else:
                    edits[end.name] = edit
                    more = sum(w.size for name, w in edit.weights.items() if not name.startswith("const."))
                    costs = ((before.macs, before.macs + gate), (before.params, before.params + more))
            if why and layer.label in self.layers:
                raise InputError(f"squeeze_excite: layer '{layer.label}' cannot be gated: {why}")
            pieces = () if why else (layer.name, *(n.name for n in edits[end.name].nodes))
            rows.append(Row(layer.label, layer.name, spec, *costs, None if why else 0.0, "exact", pieces, why))
        return noted(apply(graph, edits), rows)

    def _obstacle(self, layer: Node, end: Node, edits: dict[str, Edit]) -> str | None:
        if len(layer.out.shape) != 4 or layer.out.shape[2] * layer.out.shape[3] == 1:
            return "it has no map to average"
        return "it is gated already" if end.name in edits else None

    def _gate(self, graph: Graph, layer: Node, end: Node, names: Names, rng: np.random.Generator) -> Edit:
        width = layer.out.shape[1]
        middle = max(1, width // self.reduction)
        old = str(layer.inputs[1])
        kind = graph.weights[old].dtype if old in graph.weights else np.dtype(np.float32)
        weights: dict[str, Array] = {}

        def weight(piece: str, role: str, array: Array) -> str:
            name = names.weight(old, piece, role)
            weights[name] = array.astype(kind)
            return name

        down = (
            weight("squeeze", "weight", rng.standard_normal((middle, width, 1, 1)) * np.sqrt(2 / width)),
            weight("squeeze", "bias", np.zeros(middle)),
        )
        up = (weight("excite", "weight", np.zeros((width, middle, 1, 1))), weight("excite", "bias", np.zeros(width)))
        two = names.free(f"const.{end.name}.two")
        weights[two] = np.asarray(2, kind)
        at = {p: names.free(f"{end.name}.{p}") for p in ("plain", "squeeze", "down", "relu", "up", "sigmoid", "gate")}

        def node(op: str, piece: str, *inputs: str, **attrs: object) -> Node:
            return Node(op, inputs, blank(at[piece]), attrs, Source(f"{layer.label}.{piece}"))

        return Edit(
            (
                dataclasses.replace(end, outputs=blank(at["plain"])),
                node("reduce_mean", "squeeze", at["plain"], axes=(2, 3), keepdims=True),
                node("conv", "down", at["squeeze"], *down, **plain_1x1(2)),
                node("relu", "relu", at["down"]),
                node("conv", "up", at["relu"], *up, **plain_1x1(2)),
                node("sigmoid", "sigmoid", at["up"]),
                node("mul", "gate", at["sigmoid"], two),
                Node("mul", (at["plain"], at["gate"]), end.outputs, {}, Source(f"{layer.label}.gated")),
            ),
            weights,
        )


def chain_end(graph: Graph, layer: Node) -> Node:
    """The last of a layer, the batch norm and the activation after it, as far as one reads the other alone."""
    end = layer
    for ops in (frozenset({"batch_norm"}), ACTIVATIONS):
        users = graph.users.get(end.name, [])
        if len(users) == 1 and users[0].op in ops and users[0].inputs[0] == end.name and end.name not in graph.outputs:
            end = users[0]
    return end
