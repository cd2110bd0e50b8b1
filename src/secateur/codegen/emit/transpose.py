"""Square matrices in registers, transposed: between pixels side by side and channels side by side."""

from __future__ import annotations

from collections.abc import Sequence

from .builder import KernelBuilder
from .types import Buffer, Expr, Var

QUARTER = 4  # float32 in the 128 bits within which processors interleave


def transpose(k: KernelBuilder, rows: Sequence[Expr]) -> list[Var]:
    """As many vectors as they have lanes, a power of two from 4 up: element j of the i-th is the i-th of the j-th."""
    found = [k.vector(row) for row in rows]
    for first in range(0, len(found), QUARTER):
        found[first : first + QUARTER] = _quarters(k, found[first : first + QUARTER])
    step = QUARTER
    while step < len(found):
        found = _swap(k, found, step)
        step *= 2
    return found


def load_transposed(k: KernelBuilder, buffer: Buffer, starts: Sequence[Expr]) -> list[Var]:
    """``transpose`` of vectors in memory.

    Where two quarters are a vector, each is loaded to its place, which takes none of the units that shuffle.
    """
    if k.lanes != 2 * QUARTER:
        return transpose(k, [k.load(buffer, start) for start in starts])
    found: list[Var] = []
    for half in range(2):
        parts = [k.load(buffer, start + half * QUARTER, QUARTER) for start in starts]
        pairs = zip(parts[:QUARTER], parts[QUARTER:], strict=True)
        found += _quarters(k, [k.vector(k.shuffle(pair, range(k.lanes))) for pair in pairs])
    return found


def _quarters(k: KernelBuilder, rows: Sequence[Var]) -> list[Var]:
    """Four rows: each 4x4 part of them in its place."""
    a, b, c, d = rows
    low, high = _interleave(k.lanes, 1, 0), _interleave(k.lanes, 1, 2)
    ab, cd, ab2, cd2 = (k.vector(k.shuffle(*x)) for x in (([a, b], low), ([c, d], low), ([a, b], high), ([c, d], high)))
    low, high = _interleave(k.lanes, 2, 0), _interleave(k.lanes, 2, 2)
    pairs = (([ab, cd], low), ([ab, cd], high), ([ab2, cd2], low), ([ab2, cd2], high))
    return [k.vector(k.shuffle(*pair)) for pair in pairs]


def _interleave(lanes: int, size: int, first: int) -> list[int]:
    """Of each quarter: ``size`` elements of one vector, as many of the other, in turn, from ``first`` on."""
    one = [first + start + i + other * lanes for start in range(0, 2, size) for other in (0, 1) for i in range(size)]
    return [q + lane for q in range(0, lanes, QUARTER) for lane in one]


def _swap(k: KernelBuilder, rows: Sequence[Var], step: int) -> list[Var]:
    """Blocks of ``step`` x ``step`` off the diagonal change places."""
    found = list(rows)
    lanes = range(k.lanes)
    upper = [j if not j & step else k.lanes + j - step for j in lanes]
    lower = [j + step if not j & step else k.lanes + j for j in lanes]
    for i in range(len(rows)):
        if not i & step:
            pair = [rows[i], rows[i + step]]
            found[i], found[i + step] = k.vector(k.shuffle(pair, upper)), k.vector(k.shuffle(pair, lower))
    return found
