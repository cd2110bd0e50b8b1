"""Operators that the IR has no name for: those known to treat each channel by itself, and those that read all.

Quantisation is element by element, with a scale and a zero point for all channels or for each; sampling from images
does the same to every channel. They keep their channels and stay the file's own nodes, narrower.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.ir import Array, Node
from secateur.ir.opaque import onnx_attributes

from .flow import Flow, Tracks
from .rules_quantised import quantised
from .rules_recurrent import recurrent

QUANTISERS = frozenset({"ai.onnx::QuantizeLinear", "ai.onnx::DequantizeLinear"})
# The axes of the first input that pass as they are: the batch and the channels.
SAMPLERS: Mapping[str, frozenset[int]] = MappingProxyType(
    dict.fromkeys(
        (
            "ai.onnx::GridSample",
            "ai.onnx::LpPool",
            "ai.onnx::GlobalLpPool",
            "aten.grid_sampler.default",
            "aten.avg_pool2d.default",
            "aten.avg_pool3d.default",
        ),
        frozenset({0, 1}),
    )
)
UNKNOWN = "is an operator that secateur does not know"


def opaque(flow: Flow, node: Node) -> Tracks:
    """The tracks of a node's outputs."""
    found = quantised(flow, node) or recurrent(flow, node)
    if found is not None:
        return found
    track, target = flow.track(node.inputs[0]) if node.inputs else None, node.attrs["target"]
    rest = [i for i, name in enumerate(node.inputs) if i and name in flow.tracks]
    if track is not None and not rest:
        if target in SAMPLERS and track.axis in SAMPLERS[target]:
            return [track]
        if target in QUANTISERS and not _blocked(node):
            for name, axis, atoms in _parameters(flow, node, track.axis, track.atoms):
                flow.meet(atoms, name, axis, node)
            return [track]
    flow.whole(node)
    flow.blocked[node.name] = UNKNOWN
    return [None] * len(node.outputs)


def is_constant(flow: Flow, node: Node) -> bool:
    """Does it quantise constants?"""
    known = node.attrs["target"] in QUANTISERS and not _blocked(node)
    return known and all(flow.is_const(i) for i in node.inputs if i is not None)


def backwards(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]] | None:
    """From a quantised constant to what it is made of; see ``rules_constants``."""
    if node.attrs["target"] not in QUANTISERS:
        return None
    return [(str(node.inputs[0]), axis, atoms), *_parameters(flow, node, axis, atoms)]


def _parameters(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]]:
    """The scale and the zero point, where each channel has its own."""
    rank = len(flow.shape(node.inputs[0]))
    own = int(onnx_attributes(node).get("axis", 1)) % rank if rank else 0
    names = [name for name in node.inputs[1:] if name is not None and flow.shape(name) == (len(atoms),)]
    return [(name, 0, atoms) for name in names if own == axis and len(atoms) > 1]


def _blocked(node: Node) -> bool:
    """Do blocks of several elements along an axis share a scale?"""
    return bool(onnx_attributes(node).get("block_size", 0))
