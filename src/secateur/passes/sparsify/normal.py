"""The normal equations of one layer, at which the original and the network that loses weights have arrived."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.ir import Array
from secateur.passes.compensate.layers import bias_of
from secateur.passes.compensate.lockstep import Step
from secateur.passes.compensate.sums import Sums

from .budget import Curve, curve
from .fit import Quadratic
from .layers import Place
from .pattern import Mask, Pattern
from .prune import prune
from .reach import scales


@dataclass(frozen=True, eq=False)
class Normal:
    """What the layer's outputs lack, as a quadratic of its weights, and the weights as they are.

    In ``loss`` and ``now`` outputs are multiplied by ``scale``, so that errors of one count for more than of another.
    """

    sums: Sums
    loss: Quadratic
    now: Array  # f64[groups, outputs, columns]
    first: Array  # means of the columns, [groups, columns]
    lacking: Array  # [groups, outputs]
    weight: Array
    bias: str | None
    shift: Array  # the bias as it is, empty without one
    scale: Array  # [groups, outputs, 1]
    reach: float | None  # of the layer's errors, as they are scaled; None where nobody asked

    @staticmethod
    def of(
        step: Step, place: Place, rows: Array | None, positions: int, ridge: float, reach: Array | None = None
    ) -> Normal:
        """Over all batches of a step; ``rows``: the original's outputs that are left; ``reach``: as in ``reaches``."""
        node, weight = step.node, step.slim.weights[place.weight]
        sums, name = Sums(node, weight, positions), bias_of(node)
        bias = None if name is None else step.slim.weights[name]
        for number, (target, x) in enumerate(step.pairs(node.name, node.inputs[0] or "")):
            sums.add(number, x, target, rows, bias)
        second, product, first, lacking = sums.normal(ridge, bias is not None)
        now = sums.rows_of(weight).astype(np.float64)
        scale = (np.ones(now.shape[:2]) if reach is None else scales(reach)).reshape(*now.shape[:2], 1)
        loss = Quadratic(second, (product.transpose(0, 2, 1) + now @ second) * scale)
        shift = weight[:0] if bias is None else bias
        mean = None if reach is None else float(reach.mean())
        return Normal(sums, loss, now * scale, first, lacking, weight, name, shift, scale, mean)

    def curve(self, pattern: Pattern) -> Curve:
        """What the layer loses over the share of zeros."""
        return curve(self.loss, self.now, pattern, self.reach)

    def pruned(self, pattern: Pattern, sparsity: float, rounds: int) -> tuple[Array, Array, Mask]:
        """(weight, bias, which weights stay [outputs, columns])."""
        if not sparsity:
            kept: Mask = np.ones(self.now.shape, bool)
            return self.weight, self.shift, kept.reshape(-1, kept.shape[-1])
        solved, kept = prune(self.loss, self.now, pattern, sparsity, rounds)
        bias = self.shift
        if self.bias is not None:
            change = (solved - self.now) / self.scale
            shift = (self.lacking - np.einsum("goc,gc->go", change, self.first)).reshape(-1)
            bias = (bias + shift.reshape(bias.shape)).astype(bias.dtype)
        return self.sums.shaped(solved / self.scale, self.weight), bias, kept.reshape(-1, kept.shape[-1])
