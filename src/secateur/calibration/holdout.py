"""Which examples are held out: by their content, so that it is the same ones whenever the data are gone through.

A loader may shuffle, and a set may hold a picture twice: an example is known by a digest of its inputs, not by where it
stands. The digests are keyed by the seed, and the smallest are held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.sweep.batches import Item, checked, parts

SHARE = 0.25  # of the examples that are held out where nobody says otherwise
FEWEST = 4  # examples below which none is held out
ROWS = 64  # examples that are looked at together

Digest = bytes


def survey(graph: Graph, data: Iterable[object], seed: int) -> tuple[Digest, ...]:
    """Go through all data once, check all of it, and give a digest of every example.

    Raises InputError that names what does not fit.
    """
    found: list[Digest] = []
    kinds: set[bool] = set()
    for number, given in enumerate(data):
        where = f"calibration, batch {number}"
        item = checked(graph, given, where)
        for _ in parts(graph, item, where):  # looks at all values
            pass
        found += _digests(item, range(item.examples), seed)
        kinds.add(item.labels is not None)
        if len(kinds) > 1:
            raise InputError(f"{where}: some batches have labels and others none; label all or none")
    if not found:
        raise InputError("calibration: the data hold no example; give at least one batch")
    return tuple(found)


def held_out(found: Sequence[Digest], share: float) -> frozenset[Digest]:
    """The digests of about this share of the examples, of one at least; none where there are too few.

    Raises InputError for what is not a share.
    """
    total = len(found)
    if total < FEWEST or not share:
        return frozenset()
    wanted = min(max(1, int(total * share + 0.5)), total - 1)
    counts: dict[Digest, int] = {}
    for digest in found:
        counts[digest] = counts.get(digest, 0) + 1
    chosen: set[Digest] = set()
    for digest in sorted(counts):
        if counts[digest] <= wanted:
            chosen.add(digest)
            wanted -= counts[digest]
    return frozenset(chosen)


@dataclass(frozen=True, eq=False)
class Fold:
    """The examples that are held out, or all others, as items that a sweep takes; nothing is copied but a few rows."""

    graph: Graph
    data: Iterable[object]
    held: frozenset[Digest]
    inside: bool
    examples: int
    seed: int

    def __len__(self) -> int:
        return self.examples

    def __iter__(self) -> Iterator[object]:
        """Raises InputError at the end where the data were others than when they were split."""
        seen = 0
        for number, given in enumerate(self.data):
            item = checked(self.graph, given, f"calibration, batch {number}")
            for start in range(0, item.examples, ROWS):
                rows = range(start, min(start + ROWS, item.examples))
                mine = np.array([(digest in self.held) == self.inside for digest in _digests(item, rows, self.seed)])
                seen += int(mine.sum())
                if mine.any():
                    yield _part(item, start, mine)
        if seen != self.examples:
            raise InputError(
                "calibration: the data are others whenever they are gone through (random crops or noise?), so none can "
                "be held out; give fixed batches, such as list(loader), or holdout=0"
            )


def _part(item: Item, start: int, rows: Array) -> Any:
    whole = bool(rows.all())

    def cut(x: Array) -> Array:
        part: Array = x[start : start + len(rows)]
        return part if whole else part[rows]

    inputs = {name: cut(x) if x.ndim else x for name, x in item.inputs.items()}
    return inputs if item.labels is None else (inputs, cut(item.labels))


def _digests(item: Item, rows: Iterable[int], seed: int) -> list[Digest]:
    """16 bytes for each of these examples, of its numbers as they are stored."""
    key = str(seed).encode()[:64]
    found = []
    for row in rows:
        digest = hashlib.blake2b(key=key, digest_size=16)
        for x in item.inputs.values():
            digest.update(np.ascontiguousarray(x[row] if x.ndim else x).view(np.uint8).data)
        found.append(digest.digest())
    return found


def share_of(given: float | str) -> float:
    """``"25%"`` or 0.25 as 0.25; 0 holds nothing out. Raises InputError."""
    text = str(given).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if isinstance(given, bool) or not 0 <= share < 1:
        raise InputError(
            f"holdout {given}: give the share of examples to hold out, from 0 to below 1, such as 25% or 0.25"
        )
    return share
