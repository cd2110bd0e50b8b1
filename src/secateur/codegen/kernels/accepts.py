"""What several families ask of a node before they compute it."""

from __future__ import annotations

from secateur.codegen.plan.axes import Axes
from secateur.ir import Node

Shape = tuple[int, ...]


def constant(axes: Axes, node: Node, shape: Shape = ()) -> bool:
    """Are all inputs but the first known when the library is built?"""
    return all(n is None or n in axes.graph.weights for n in node.inputs[1:])


def constant_spatial(axes: Axes, node: Node, shape: Shape) -> bool:
    """The same, of a signal or an image."""
    return len(shape) in (3, 4) and constant(axes, node)


def any_node(axes: Axes, node: Node, shape: Shape) -> bool:
    """Every node of the operator."""
    return True
