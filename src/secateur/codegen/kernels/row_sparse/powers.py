"""Rows that keep one weight of each 2^b columns, as DARB leaves them: where it is takes four bits, not an address.

Rows of one power stand side by side, one a lane, so that the next weight of each meets the same few inputs: one vector
of them, two or four. These are in registers, and each lane takes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from secateur.codegen.plan.tensors import Floats, Ints

WORD = 32  # bits
WIDEST = 4  # vectors of inputs, of which a weight meets one: each takes an instruction


@dataclass(frozen=True)
class Power:
    """How ``lanes`` rows lie that keep at most one weight of each block of 2^``power`` of the ``columns``."""

    power: int
    lanes: int
    columns: int

    @property
    def vectors(self) -> int:
        """Weights of a row: one of each block. The last block may not be whole."""
        return -(-self.columns // (1 << self.power))

    @property
    def wide(self) -> int:
        """Vectors of inputs that a vector of weights meets."""
        return max(1, (1 << self.power) // self.lanes)

    @property
    def bits(self) -> int:
        """Of a place among these inputs: as many as make whole words. Where each has its weight there are none."""
        if not self.power:
            return 0
        return 4 if self.wide * self.lanes <= 16 else 8

    @property
    def each(self) -> int:
        """Places in a word, and vectors of weights in a round of the kernel's loop."""
        return WORD // (self.bits or 4)

    @property
    def words(self) -> int:
        """Words of a row."""
        return -(-self.vectors // self.each) if self.bits else 0


@dataclass(frozen=True, eq=False)
class Powers:
    """Vectors of rows, those of the largest power first.

    ``weight`` [vectors of rows, ``Power.vectors``, lanes] and ``words`` [vectors of rows, ``Power.words``, lanes] are
    flat; place i of a word are its bits from i times ``Power.bits`` on. Where a block keeps none, its weight is zero.
    ``starts``: the vector of rows at which each of ``powers`` begins, and the end. ``rows``: that of the dense weights
    in each lane.
    """

    powers: tuple[int, ...]
    weight: Floats
    words: Ints
    starts: Ints
    rows: Ints


def largest_powers(r: Floats, most: int) -> Ints:
    """Of each row of [rows, columns]: the largest power up to ``most`` of which no block keeps more than one weight."""
    kept = np.pad((r != 0).astype(np.uint8), ((0, 0), (0, -r.shape[1] % (1 << most))))  # 64 in a block at most
    found = np.zeros(len(r), np.int64)
    for power in range(1, most + 1):
        kept = kept[:, ::2] + kept[:, 1::2]
        found[kept.max(1) <= 1] = power
    return found


def choose_rows(r: Floats, lanes: int, pays: Callable[[Power, int], bool]) -> dict[int, Ints]:
    """The rows that lie by powers, a whole number of vectors of each, and no row without weights.

    A vector stays where it ``pays``, given what the row of it keeps that keeps most. Rows that are left over of a power
    go with those of the next smaller one, whose blocks they fit as well.
    """
    kept, most = (r != 0).sum(1), (WIDEST * lanes).bit_length() - 1
    largest = np.where(kept > 0, largest_powers(r, most), -1)
    left, found = np.zeros(0, np.int64), dict[int, Ints]()
    for power in range(most, -1, -1):
        mine = np.concatenate([left, np.flatnonzero(largest == power)])
        mine = mine[np.argsort(-kept[mine], kind="stable")]
        whole = len(mine) // lanes * lanes
        groups, left = mine[:whole].reshape(-1, lanes), mine[whole:]
        paying = [rows for rows in groups if pays(Power(power, lanes, r.shape[1]), int(kept[rows].max()))]
        if paying:
            found[power] = np.concatenate(paying)
    return found


def keep_powers(r: Floats, lanes: int, chosen: Mapping[int, Ints]) -> Powers:
    """The ``chosen`` rows of [rows, columns] by their power, as ``choose_rows`` finds them."""
    weights, words = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for power, rows in chosen.items():
        weight, word = _packed(r[rows], Power(power, lanes, r.shape[1]))
        weights.append(weight)
        words.append(word)
    starts = np.concatenate([[0], np.cumsum([len(rows) // lanes for rows in chosen.values()])]).astype(np.int64)
    every = np.concatenate([np.zeros(0, np.int64), *chosen.values()])
    return Powers(tuple(chosen), np.concatenate(weights), np.concatenate(words), starts, every)


def _packed(r: Floats, how: Power) -> tuple[Floats, Ints]:
    """Weights and words of rows of one power, flat."""
    block, rows, groups = 1 << how.power, len(r), len(r) // how.lanes
    blocks = np.pad(r, ((0, 0), (0, how.vectors * block - how.columns))).reshape(rows, how.vectors, block)
    inside = (blocks != 0).argmax(2)  # the first column of a block that keeps none, which there always is
    weight = np.take_along_axis(blocks, inside[:, :, None], 2)[:, :, 0]
    turned = weight.reshape(groups, how.lanes, how.vectors).swapaxes(1, 2)
    first = np.arange(how.vectors) * block % (how.wide * how.lanes)  # of the block, among the inputs in registers
    places = np.zeros((rows, how.words * how.each), np.int64)
    if how.bits:
        places[:, : how.vectors] = inside + first
    shifts = np.arange(how.each) * how.bits
    words = (places.reshape(rows, how.words, how.each) << shifts).sum(2).astype(np.uint32).astype(np.int32)
    lines = words.reshape(groups, how.lanes, how.words).swapaxes(1, 2)
    return turned.astype(np.float32).reshape(-1), lines.astype(np.int64).reshape(-1)
