"""Kernels with nothing to choose: along channels, products of computed tensors, resizing, recurrence, copies."""

from __future__ import annotations

from dataclasses import dataclass

from .specs import PostOp, Strides


@dataclass(frozen=True)
class ResizeSpec:
    """Each output pixel is a weighted sum of ``taps`` rows by ``taps`` columns of the input, given by tables."""

    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    taps: tuple[int, int]
    x: Strides
    y: Strides
    table: bool
    steps: tuple[PostOp, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class RowSpec:
    """Along the ``width`` channels of each pixel: softmax, log_softmax, layer_norm or rms_norm."""

    kind: str
    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    width: int
    x: Strides
    y: Strides
    table: bool
    eps: float
    steps: tuple[PostOp, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class MomentSpec:
    """Mean and variance of each channel of each image, one vector each per block."""

    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    x: Strides
    table: bool
    threads: int = 1


@dataclass(frozen=True)
class GroupSpec:
    """From the moments of channels to the scale and the shift of each: groups to mean 0 and variance 1."""

    lanes: int
    n: int
    blocks: int
    channels: int
    groups: int
    eps: float


@dataclass(frozen=True)
class MatmulSpec:
    """[n, h, w, k] times [n, h, k, blocks of lanes]; ``right.column`` is how far neighbouring k are apart.

    The left operand's channels lie in their order; an operand that is the same for all n or h has stride 0 there.
    """

    lanes: int
    n: int
    h: int
    w: int
    k: int
    blocks: int
    x: Strides
    right: Strides
    y: Strides
    steps: tuple[PostOp, ...] = ()
    threads: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding lanes included."""
        return self.n * self.h * self.w * self.k * self.blocks * self.lanes


@dataclass(frozen=True)
class RecurrentSpec:
    """The steps of an LSTM or GRU in one direction; ``gates`` is what the input adds, of all steps.

    ``first``, ``y`` and ``state`` are the strides of the first state, the results (images are steps) and the last
    state. ``reset_after``: a GRU's reset gate scales the products, not the state.
    """

    kind: str
    lanes: int
    steps: int
    batch: int
    hidden: int
    blocks: int
    gates: Strides
    first: Strides
    y: Strides
    state: Strides
    reverse: bool = False
    reset_after: bool = False


@dataclass(frozen=True)
class TableCopySpec:
    """``y[yo[o] + yi[i]] = x[xo[o] + xi[i]]``, ``lanes`` floats at a time, by four tables; zeros if ``zero``."""

    lanes: int
    outer: int
    inner: int
    zero: bool = False
    threads: int = 1


Fixed = ResizeSpec | RowSpec | MomentSpec | GroupSpec | MatmulSpec | RecurrentSpec | TableCopySpec
