"""Winograd's convolution over the kernels that are kept: each output block multiplies channels of its own.

Transforms, strips and the transform back are those of the dense template. At a point, an output block has a list of
channels; how long it is, is read from the table, so one kernel serves every pattern of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np

from secateur.codegen.emit.builder import INT, const
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.kernels.winograd.template import Body, WinogradKernel
from secateur.codegen.kernels.winograd.template import space as dense_space
from secateur.codegen.kernels.winograd.transform import strip
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.targets import Target

from .packing import head, pack_kernels
from .spec import SparseWinogradChoice, SparseWinogradSpec

REVISION = 1


def build(spec: SparseWinogradSpec, choice: SparseWinogradChoice, target: Target) -> Function:
    """The kernel ``(x, w, bias, [blocks of x], table, scratch, operands.., y)``; ``table`` as ``Kernels`` makes it."""
    return SparseWinograd(spec, choice, target).build()


class SparseWinograd(WinogradKernel):
    """Builds the kernel."""

    def outputs(self, worker: Expr, first: Expr, inputs: Expr) -> None:
        """All output blocks of a strip, or those of one worker, which have about as many kernels as another's."""
        k, v, blocks = self.k, self.spec.lanes, self.spec.blocks
        low, high = const(0), const(blocks)
        if self.choice.outer == "blocks":
            low, high = self.number(blocks + 1 + worker), self.number(blocks + 2 + worker)
        k.span(low, high, lambda block: self.blocks(
            first, block, 1, inputs, inputs + self.strip.inputs * v), name="co")  # fmt: skip

    def number(self, at: Expr) -> Expr:
        """An entry of the table."""
        k = self.k
        return k.bind(k.scalar(self.channels, at).astype(INT), INT)

    def weights(self, point: Expr, block: Expr, nb: int) -> Expr:
        """Where the weights of an output block begin at a point."""
        start, end = self.number(block), self.number(block + 1)
        return (start * self.points + point * (end - start)) * self.spec.lanes

    def ahead(self, nb: int) -> int:
        """Nothing is asked for: weights of the next point follow at once, and processors foresee that."""
        return 0

    def reduce(self, block: Expr, channel: Body) -> None:
        """``channel(number, where it lies)`` for each that the block has."""
        start, end = self.number(block), self.number(block + 1)
        places = head(self.spec.blocks, self.spec.threads)
        self.k.span(start, end, lambda c: channel(c - start, self.number(c + places)), name="c")


def space(spec: SparseWinogradSpec, target: Target) -> Iterator[SparseWinogradChoice]:
    """The choices worth trying, the default first."""
    for choice in dense_space(spec, target):
        yield SparseWinogradChoice(**{f.name: getattr(choice, f.name) for f in fields(choice)})


def arrays(spec: SparseWinogradSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, with as many kernels in each output block; and where it begins in the first."""
    rng = np.random.default_rng(0)
    weight = np.zeros((spec.blocks, spec.lanes, spec.ci, 9), np.float32)
    for dense in weight:
        dense[:, rng.permutation(spec.ci)[: int(spec.kept)]] = 1
    choices = list(space(spec, target))
    most = max(choices, key=lambda c: c.m)
    packed = pack_kernels(weight.reshape(-1, spec.ci, 3, 3), spec.lanes, most.m)
    blocks = np.arange(spec.inputs) * spec.x.block
    tables = [blocks.astype(np.int32)] if spec.table else []
    block, lane = divmod(np.arange(spec.ci), spec.lanes)
    places = block * (min(c.strip for c in choices) * spec.lanes) + lane
    scratch = np.zeros(max(strip(spec, c).size for c in choices) * spec.lanes, np.float32)
    return [
        random_floats(int(blocks[-1]) + reach(spec)), packed.weight, random_floats(spec.blocks * spec.lanes), *tables,
        packed.table(places, spec.threads).astype(np.int32), scratch, random_floats(written(spec)),
    ], 0  # fmt: skip


TEMPLATES = {SparseWinogradSpec: Template(build, space, arrays, REVISION)}
