"""What share of a GPU's roofline kernels are predicted to reach: to be checked on a GPU, no measurement.

The roofline of a launch is the longer of its arithmetic at the board's peak and of its bytes (each operand once) at the
bandwidth of its memory. The prediction takes longer for what can be counted without a GPU:

* products of tiles that hang over, and multiprocessors that have nothing to do in the last round;
* slots of the schedulers that read shared memory, and shared memory's own bandwidth: 32 numbers a cycle;
* too few work items at once to hide latency, by the registers and the shared memory that ptxas says a kernel takes.

A kernel that adds parts of sums counts its launch and the bytes of all parts, which another kernel wrote. Tensor cores
have the rate that kernels are chosen by (``mma/spec``), half of what NVIDIA states for A100 and H200, also in the
roofline. Left out: the time to launch the first kernel of a call, the second cache, bank conflicts, instructions that
compute addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bench.speed.gpu_programs import Launched, Timed
from secateur.codegen.devices.code import Kernel, Resources
from secateur.codegen.kernels.gpu.block_sparse.spec import GpuSparseChoice, GpuSparseSpec
from secateur.codegen.kernels.gpu.conv.spec import GpuConvSpec
from secateur.codegen.kernels.gpu.conv.tiles import GpuConvChoice, slots
from secateur.codegen.kernels.gpu.matmul import tile_of
from secateur.codegen.kernels.gpu.mma.spec import MmaChoice, MmaConvSpec, word_slots
from secateur.codegen.kernels.matmul.spec import MatmulSpec
from secateur.codegen.kernels.recurrent.plan import GATES
from secateur.codegen.kernels.recurrent.spec import RecurrentSpec
from secateur.codegen.targets import GPUS


@dataclass(frozen=True)
class Board:
    """As NVIDIA states it: float32 without tensor cores, flop/s and bytes/s; ``latency`` of memory in seconds.

    Of a multiprocessor: registers, bytes of shared memory, warps and groups.
    """

    target: str
    cores: int
    peak: float
    bandwidth: float
    shared: int
    warps: int
    groups: int
    registers: int = 65536
    latency: float = 6e-7


BOARDS: Mapping[str, Board] = MappingProxyType(
    {
        "H200": Board("cuda:sm_90", 132, 67e12, 4.8e12, 228 << 10, 64, 32),
        "Jetson AGX Orin": Board("cuda:sm_87", 16, 5.3e12, 204.8e9, 164 << 10, 48, 16),
    }
)
HIDING = 8  # warps of a multiprocessor from which on its multipliers wait for nothing
IN_FLIGHT = 2  # numbers that a work item waits for at once
LAUNCH = 1e-6  # seconds until a kernel begins that needs the one before


def board_of(device: str) -> Board | None:
    """The board of a device's name, if its peaks are known."""
    return next((board for title, board in BOARDS.items() if title.split()[-1] in device), None)


def least(one: Launched, board: Board) -> tuple[float, str]:
    """Seconds of one call at the roofline, and what bounds them: "arithmetic" or "bandwidth"."""
    both = {"arithmetic": work(one.spec) / peak(one.spec, board), "bandwidth": traffic(one.spec) / board.bandwidth}
    return max((seconds, bound) for bound, seconds in both.items())


def peak(spec: Any, board: Board) -> float:
    """Floating-point operations a second, on tensor cores where those compute it."""
    return board.peak * float(getattr(spec, "rate", 1))


def measured(one: Launched, seconds: float, board: Board | None) -> Timed:
    """One call that took so many seconds, under the roofline of a board if there is one."""
    if board is None:
        return Timed(one.label, one.kind, seconds)
    return Timed(one.label, one.kind, seconds, *least(one, board))


def predicted(one: Launched, board: Board) -> Timed:
    """One call."""
    kernel, used = one.kernels[0]
    number, parts = traffic(one.spec), partial(one)
    share, overhang = multipliers(one.spec, one.choice, board)
    there = at_once(kernel, used, board)
    groups, warps = groups_of(kernel), -(-kernel.items // 32)
    busy = groups / (board.cores * -(-groups // board.cores))
    hiding = min(1.0, there * warps / HIDING)
    compute = work(one.spec) * overhang / (peak(one.spec, board) * share * busy * hiding)
    time = max(compute, moving(kernel, used, board, number + parts))
    for more, taken in one.kernels[1:]:
        time += LAUNCH + moving(more, taken, board, parts + 4.0 * outputs_of(one.spec))
    shortest, bound = least(one, board)
    return Timed(one.label, one.kind, max(time, shortest), shortest, bound, there * warps / board.warps)


def groups_of(kernel: Kernel) -> int:
    """Of its grid."""
    return kernel.grid[0] * kernel.grid[1] * kernel.grid[2]


def room_for(kernel: Kernel, used: Resources, board: Board) -> int:
    """Groups for which a multiprocessor has room."""
    warps = -(-kernel.items // 32)
    return min(
        board.groups, board.warps // warps, board.registers // (max(used.registers, 16) * warps * 32),
        board.shared // (used.shared + 1024),
    )  # fmt: skip


def at_once(kernel: Kernel, used: Resources, board: Board) -> int:
    """Groups of a multiprocessor at once."""
    return min(room_for(kernel, used, board), -(-groups_of(kernel) // board.cores))


def moving(kernel: Kernel, used: Resources, board: Board, number: float) -> float:
    """Seconds for so many bytes, by the work items that wait for some of them at once."""
    waiting = min(groups_of(kernel), board.cores * room_for(kernel, used, board)) * kernel.items * IN_FLIGHT * 4
    return number / (board.bandwidth * min(1.0, waiting / (board.bandwidth * board.latency)))


def partial(one: Launched) -> float:
    """Bytes of parts of sums."""
    return 4.0 * one.choice.parts * outputs_of(one.spec) if len(one.kernels) > 1 else 0.0


def multipliers(spec: Any, choice: Any, board: Board) -> tuple[float, float]:
    """Of the multipliers' slots the share that multiplies, and how many products are computed for each that counts."""
    if isinstance(spec, GpuSparseSpec):
        return of_blocks(spec, choice)
    if isinstance(spec, MmaConvSpec):
        return of_words(spec, choice)
    if isinstance(spec, MatmulSpec):
        choice = tile_of(spec, GPUS[board.target])
        outputs, pixels = spec.blocks, spec.w
    elif isinstance(spec, GpuConvSpec):
        outputs, pixels = spec.co, spec.pixels
    else:  # with RecurrentSpec, which reads a weight for each product
        return 0.5, 1.0
    assert isinstance(choice, GpuConvChoice)
    if choice.kind != "tile":
        return (0.5 if choice.kind == "sum" else spec.co / (spec.co + 2)), 1.0  # a read of memory or two for each
    products, reads = choice.rows * choice.columns, -(-choice.rows // 4) + choice.columns
    whole = -(-outputs // choice.outputs) * choice.outputs * -(-pixels // choice.pixels) * choice.pixels
    return products / slots(products, reads), whole / (outputs * pixels)


def of_blocks(spec: GpuSparseSpec, choice: GpuSparseChoice) -> tuple[float, float]:
    """The same where blocks of weights are zero; groups wait for the one with the longest row."""
    products, reads = spec.height * choice.columns, choice.columns + 1 + -(-spec.height // 4)
    wide = 1 if choice.kind == "sum" else choice.items * choice.columns
    whole = spec.longest * spec.rows * spec.height * -(-spec.pixels // wide) * wide
    return products / slots(products, reads), whole / max(1, spec.macs)


def of_words(spec: MmaConvSpec, choice: MmaChoice) -> tuple[float, float]:
    """The same on tensor cores, of the products that these compute; a warp reads the words of its small matrices."""
    products, reads = word_slots(spec, choice)
    whole = -(-spec.co // choice.outputs) * choice.outputs * -(-spec.pixels // choice.pixels) * choice.pixels
    return min(1.0, products / reads), whole / (spec.co * spec.pixels)


def work(spec: Any) -> float:
    """Floating-point operations: two a product, and a few a number where nothing is multiplied."""
    if isinstance(spec, RecurrentSpec):
        return 2.0 * outputs_of(spec) * GATES[spec.kind] * spec.hidden
    return 2.0 * float(spec.macs) if hasattr(spec, "macs") else 4.0 * outputs_of(spec)


def traffic(spec: Any) -> float:
    """Bytes of all operands, each once."""
    written, full = outputs_of(spec), sum(p.operand == "full" for p in getattr(spec, "post_ops", ()))
    if isinstance(spec, GpuConvSpec):
        read = spec.groups * spec.ci * spec.n * spec.size[0] * spec.size[1] + spec.stored
    elif isinstance(spec, MatmulSpec):
        read = spec.n * spec.h * spec.k * (spec.w + spec.blocks)
    elif isinstance(spec, RecurrentSpec):
        read = GATES[spec.kind] * (written + spec.hidden * spec.hidden)
    elif hasattr(spec, "size"):
        read = spec.blocks * spec.n * spec.size[0] * spec.size[1]
    else:
        read = _area(spec)
    total: float = 4.0 * (read + written * (1 + full))
    return total


def outputs_of(spec: Any) -> int:
    """Numbers that are written."""
    return spec.outputs if isinstance(spec, GpuConvSpec) else _area(spec)


def _area(spec: Any) -> int:
    for fields in (
        ("blocks", "n", "h", "w"),
        ("channels", "n", "h", "w"),
        ("outer", "inner"),
        ("n", "channels"),
        ("steps", "batch", "hidden"),
    ):
        if all(hasattr(spec, name) for name in fields):
            total = 1
            for name in fields:
                total *= int(getattr(spec, name))
            return total
    return len(spec.picks) * int(spec.n) * int(spec.h) * int(spec.w)
