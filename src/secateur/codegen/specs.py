"""What a kernel is: plain frozen data, so that equal layers share one kernel and records can name a workload."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

# Element-wise operators the templates can apply to a vector (``maths`` holds a row for each).
FUSABLE_UNARY = frozenset(
    {"relu", "clip", "sigmoid", "tanh", "silu", "mish", "erf", "exp", "sqrt", "rsqrt", "neg", "abs", "floor", "ceil",
     "reciprocal", "softsign", "hard_swish", "hard_sigmoid", "gelu", "elu", "celu", "selu", "leaky_relu"}
)  # fmt: skip
FUSABLE_BINARY = frozenset({"add", "sub", "mul", "div", "minimum", "maximum"})


LOAD = 12.5  # multiply-accumulates in the time that one weight takes to come from memory


@dataclass(frozen=True)
class Strides:
    """Floats between neighbouring blocks, images, rows and columns."""

    block: int
    image: int
    row: int
    column: int


@dataclass(frozen=True)
class PostOp:
    """One operator on what a kernel is about to write: ``op(value)``, ``op(value, operand)`` or swapped.

    ``operand``: "" none; "full" a tensor of the same picture with ``strides`` (0 where it is repeated); "vector" one
    number per image and channel with ``strides``; "pixel" one number per pixel for all channels; "const" one weight
    per channel; "earlier" what the value was after ``earlier`` steps. ``table``: the operand's blocks are looked up.
    """

    op: str
    attrs: tuple[tuple[str, Any], ...] = ()
    operand: str = ""
    strides: Strides | None = None
    table: bool = False
    swapped: bool = False
    earlier: int = 0


@dataclass(frozen=True)
class ConvSpec:
    """A convolution or linear layer onto blocks of ``lanes`` outputs.

    ``table``: the input's channels are looked up, one offset each; else they lie in whole blocks. The input pointer is
    at the first tap of the first output.
    """

    lanes: int
    n: int
    ci: int
    blocks: int
    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    x: Strides
    y: Strides
    table: bool
    steps: tuple[PostOp, ...] = ()
    bias: bool = True
    threads: int = 1

    @property
    def order(self) -> str:
        """How the reduction is nested, outermost first.

        "blocks": block of input channels, taps, channel in the block; "taps": taps, channel; "channels": channel, taps
        (few channels).
        """
        if not self.table:
            return "blocks"
        return "taps" if self.ci >= 8 else "channels"

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding lanes included."""
        return self.n * self.h * self.w * self.ci * self.kernel[0] * self.kernel[1] * self.blocks * self.lanes

    @property
    def effort(self) -> float:
        """About its time, in multiply-accumulates at the peak: what rivals are compared by that nobody measured."""
        weights = self.ci * self.kernel[0] * self.kernel[1] * self.blocks * self.lanes
        return max(self.macs / 0.95, weights * LOAD)

    def workload(self) -> ConvSpec:
        """The same without its epilogue: what records are looked up by."""
        return replace(self, steps=(), bias=True)


@dataclass(frozen=True)
class ConvChoice:
    """How a convolution is tiled: ``nb`` output blocks by ``rows`` x ``columns`` pixels in registers.

    ``outer``: "blocks" keeps the weights of a tile while it walks the picture, "pixels" keeps the pixels.
    ``ahead``: fetch the weights of the next tile of blocks early.
    """

    nb: int
    rows: int
    columns: int
    outer: str = "blocks"
    ahead: bool = False


QUAD = 4  # channels that a kernel for narrow groups takes together


@dataclass(frozen=True)
class GroupedSpec:
    """A convolution in groups, or of one narrow group, on inputs that lie in quads: several pixels a vector.

    A group reads ``ci`` inputs, the first ``depth`` of each of its quads, and has ``quads`` quads of outputs. Tables
    say where each quad of inputs (at the first tap of the first output) and of outputs lies, group by group.
    """

    lanes: int
    n: int
    groups: int
    ci: int
    quads: int
    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    x: Strides
    y: Strides
    steps: tuple[PostOp, ...] = ()
    threads: int = 1
    depth: int = QUAD

    @property
    def blocks(self) -> int:
        """Blocks that all quads of outputs fill."""
        return -(-self.groups * self.quads * QUAD // self.lanes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, lanes that hold nothing included."""
        taps = self.kernel[0] * self.kernel[1]
        return self.n * self.h * self.w * self.groups * self.ci * taps * self.quads * QUAD

    @property
    def effort(self) -> float:
        """About its time, in multiply-accumulates at the peak."""
        return self.macs / 0.84 + 10 * self.n * self.h * self.w * self.groups * self.quads * QUAD

    def workload(self) -> GroupedSpec:
        """The same without its epilogue."""
        return replace(self, steps=())


@dataclass(frozen=True)
class GroupedChoice:
    """``quads`` quads of outputs by ``rows`` x ``columns`` pixels in registers."""

    quads: int
    rows: int
    columns: int


@dataclass(frozen=True)
class WindowSpec:
    """Convolution in narrow groups ("conv"; depthwise if ``group`` is 1), or pooling ("max", "avg"), block by block.

    For "conv" the input has its margin and the pointer is at the first tap; pools leave out taps outside of the
    picture, and the pointer is at the first pixel. ``count_pad``: the divisor counts those taps too. ``group`` channels
    that follow each other in a block are read by as many outputs in the same lanes; it divides a quad.
    """

    kind: str
    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int, int, int]
    size: tuple[int, int]
    x: Strides
    y: Strides
    table: bool
    count_pad: bool = True
    steps: tuple[PostOp, ...] = ()
    threads: int = 1
    group: int = 1

    @property
    def macs(self) -> int:
        """Taps, padding lanes included."""
        return self.n * self.h * self.w * self.kernel[0] * self.kernel[1] * self.group * self.blocks * self.lanes

    def workload(self) -> WindowSpec:
        """The same without its epilogue."""
        return replace(self, steps=())


@dataclass(frozen=True)
class WindowChoice:
    """A tile of ``rows`` x ``columns`` outputs in registers."""

    rows: int
    columns: int


@dataclass(frozen=True)
class MapSpec:
    """Element-wise: the steps on each vector of ``x``, ``pixels`` at a time."""

    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    x: Strides
    y: Strides
    table: bool
    steps: tuple[PostOp, ...]
    threads: int = 1


@dataclass(frozen=True)
class MeanSpec:
    """The mean (or sum, max) over the picture, one vector per block."""

    kind: str
    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    x: Strides
    y: Strides
    table: bool
    steps: tuple[PostOp, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class CopySpec:
    """Channel by channel from looked-up places to looked-up places: every change of layout.

    An input place of -1 writes zeros.
    """

    channels: int
    n: int
    h: int
    w: int
    x: Strides
    y: Strides
    inner: str  # "channels" or "pixels": the loop that runs innermost
    threads: int = 1


@dataclass(frozen=True)
class MoveSpec:
    """Channels to other lanes. ``picks``: for each block the lane of its sources that each of its lanes takes, or -1.

    The sources of all blocks are looked up one after another; lanes are counted through those of the same block.
    """

    lanes: int
    n: int
    h: int
    w: int
    x: Strides
    y: Strides
    picks: tuple[tuple[int, ...], ...]
    threads: int = 1


@dataclass(frozen=True)
class FillSpec:
    """Zeros in the margin of blocks."""

    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    margin: int
    threads: int = 1
