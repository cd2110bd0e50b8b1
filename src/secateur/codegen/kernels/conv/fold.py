"""Batch norm folded into the convolution or linear layer before it, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.kernels.post_ops.plan import Flow, affine, flows
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.tensors import Floats
from secateur.ir import Node


@dataclass(frozen=True)
class Folded:
    """A convolution with the batch norms after it folded in: what is left to do is ``tail``.

    ``weight`` [o, i / groups, kh, kw], ``bias`` [o]. ``spatial``: a sample is an image, and its pixels may be summed
    with each other; else each pixel is a sample by itself, as in a linear layer. No kernel may mix samples, or one that
    is not finite, or very large, would change the results of others.
    """

    node: Node
    name: str  # the value that is written
    weight: Floats
    bias: NDArray[np.float64]
    tail: Sequence[Flow]
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    spatial: bool = False

    @property
    def kernel(self) -> tuple[int, int]:
        """Its rows and columns."""
        return int(self.weight.shape[2]), int(self.weight.shape[3])


def fold(placement: Placement, chain: Chain, weight: NDArray[np.float64]) -> Folded:
    """The chain with its batch norms folded in float64; ``weight`` [o, i / groups, kh, kw]."""
    node, tail, flow = chain.head, list(chain.tail), chain.head.name
    name = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(1) if name is None else placement.graph.weights[name].astype(np.float64).reshape(-1)
    bias = np.broadcast_to(bias, (weight.shape[0],))
    while tail and tail[0].op == "batch_norm" and not any(flow in n.inputs for n in tail[1:]):
        scale, shift = affine(placement.graph, tail[0])
        weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        flow = tail.pop(0).name
    return Folded(node, chain.last.name, weight.astype(np.float32), bias, flows(flow, tail))
