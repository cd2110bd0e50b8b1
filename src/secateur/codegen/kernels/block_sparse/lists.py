"""Single kept weights, each with its own input: of some outputs one list each, which are read side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.codegen.plan.tensors import Floats, Ints

from .packing import PIECES, even_shares, piece


@dataclass(frozen=True, eq=False)
class Lists:
    """The kept weights: one part of the inputs after the other, in each some outputs at a time.

    ``weight``, ``channel`` and ``tap`` [kept, rows] say what each output of a group has at each step. Outputs that keep
    about as many of a part are a group; shorter lists end with weights of 0 for inputs that the longest one reads.
    ``starts`` [parts * groups + 1]: where the lists of each group begin. ``outputs`` [parts * groups * rows]: whose
    they are. ``shares`` [workers + 1]: the output block at which each worker begins, and the end. Groups are of outputs
    of one worker, and each worker's are in the place of its blocks.
    """

    weight: Floats
    channel: Ints
    tap: Ints
    starts: Ints
    outputs: Ints
    shares: Ints

    @property
    def table(self) -> Ints:
        """What a kernel reads besides weights and offsets."""
        return np.concatenate([self.starts, self.shares, self.outputs])


def pack_lists(weight: Floats, lanes: int, rows: int, parts: int, workers: int = 1, places: Ints | None = None,
               room: int = 0) -> Lists:  # fmt: skip
    """The kept weights of [O, I, kh, kw], of ``rows`` outputs at a time (O is whole blocks of ``lanes``).

    ``places``: the lane of each input channel, of ``room``, by which they are ordered and parted; else in order.
    """
    o, i, kh, kw = weight.shape
    places, room = (np.arange(i), i) if places is None else (places, room)
    dense = weight.reshape(o, i, kh * kw)
    output, channel, tap = np.nonzero(dense)
    part = places[channel] // (piece(room, lanes) * (PIECES // parts))
    counts = np.zeros((parts, o), np.int64)
    np.add.at(counts, (part, output), 1)
    shares = even_shares(counts.sum(0).reshape(-1, lanes).sum(1), workers)
    owner = np.repeat(np.arange(workers), np.diff(shares) * lanes)
    outputs = np.stack([np.lexsort((-each, owner)) for each in counts])
    lengths = np.take_along_axis(counts, outputs, 1).reshape(-1, rows)[:, 0]  # the first is the longest
    starts = np.concatenate([[0], np.cumsum(lengths)])
    at = np.empty_like(outputs)  # where each output stands in a part
    np.put_along_axis(at, outputs, np.arange(o)[None], 1)
    order = np.lexsort((channel, tap, places[channel] // lanes, output, part))
    output, channel, tap, part = output[order], channel[order], tap[order], part[order]
    before = np.concatenate([[0], np.cumsum(counts.reshape(-1))])[:-1]
    step = np.arange(len(order)) - before[part * o + output] + starts[(part * o + at[part, output]) // rows]
    row = at[part, output] % rows
    found = [np.zeros((starts[-1], rows), kind) for kind in (np.float32, np.int64, np.int64)]
    for table, kept in zip(found, (dense[output, channel, tap], channel, tap), strict=True):
        table[step, row] = kept
    empty = found[0] == 0
    for table in found[1:]:
        table[empty] = np.broadcast_to(table[:, :1], table.shape)[empty]
    return Lists(found[0], found[1], found[2], starts, outputs.reshape(-1), shares)
