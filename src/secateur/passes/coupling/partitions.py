"""Domains, cells and orbits: which units compete, and which must survive in step.

Every grouped convolution puts a partition on its input units and one on its output units, whose blocks must
keep equally many. Partitions on the same units meet in their common refinement, whose parts are the **cells**.
Where all cells of a kind (an **orbit**) are alike, keeping equally many of each satisfies every partition.
Where they are not (the shortcut of a ShuffleNet stage joins maps of 24 and of 216 channels, three groups in
either), the numbers that each cell may keep solve a small integer programme: its solutions are **levels**.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array
from secateur.passes.notes import Constraint, Levels, Slot

STEPS = 32  # levels that are asked for at most; equal ones are one


def components(size: int, pairs: Sequence[tuple[Array, Array]]) -> Array:
    """int[size]: the number of the connected component of each element under these pairs, from 0 by first element.

    Every element points to a smaller one of its component, or is its root: each round hooks the larger of two roots
    that a pair joins onto the smaller one, and then lets all point to their roots (Shiloach and Vishkin 1982).
    """
    left = np.concatenate([np.zeros(0, np.int64), *(a for a, _ in pairs)])
    right = np.concatenate([np.zeros(0, np.int64), *(b for _, b in pairs)])
    root = np.arange(size)
    while len(left):
        low, high = np.minimum(left, right), np.maximum(left, right)
        np.minimum.at(root, high, low)
        while not np.array_equal(root, above := root[root]):
            root = above
        left, right = root[left], root[right]
        apart = left != right
        left, right = left[apart], right[apart]
    number = np.cumsum(root == np.arange(size)) - 1
    return np.asarray(number[root], np.int64)


def domains(size: int, slots: Sequence[Slot], constraints: Sequence[Constraint]) -> Array:
    """int[size]: units with a producer or a constraint in common compete with each other."""
    stars = [_star(s.units) for s in slots if s.role == "out"] + [_star(c.units) for c in constraints]
    return components(size, stars)


def _star(units: Array) -> tuple[Array, Array]:
    """Pairs that join all of these units."""
    units = units[units >= 0]
    return np.broadcast_to(units[:1], (max(0, len(units) - 1),)), units[1:]


@dataclass(frozen=True, eq=False)
class Partition:
    """The numbers of each unit's cell and orbit, the levels of uneven orbits, and the units that must be frozen."""

    cell: Array
    orbit: Array
    levels: Mapping[int, Levels]
    stuck: tuple[tuple[Array, str], ...]


def partition(domain: Array, constraints: Sequence[Constraint], frozen: Array) -> Partition:
    """Cells and orbits under these constraints. Frozen units stay, and with them all that must keep step."""
    if not constraints:
        return Partition(domain.copy(), domain.copy(), {}, ())
    frozen, stuck = _spread(constraints, frozen)
    rng = np.random.default_rng(1)
    cell_sign, orbit_sign = np.zeros(len(domain), np.uint64), np.zeros(len(domain), np.uint64)
    for c in constraints:
        marks = rng.integers(1, 1 << 63, int(c.block.max()) + 2, dtype=np.uint64)
        np.add.at(cell_sign, c.units, marks[c.block])
        np.add.at(orbit_sign, c.units, np.broadcast_to(marks[-1], c.units.shape))
    cell, orbit = _number(domain, cell_sign, frozen), _number(domain, orbit_sign, frozen)
    free = [c for c in constraints if not frozen[c.units].any()]
    levels: dict[int, Levels] = {}
    solved: dict[bytes, Array | None] = {}  # the blocks of a stage pose the same problem again and again
    for group in _uneven(free, cell, orbit):
        units = np.unique(np.concatenate([c.units for c in group]))
        cells, equal, widest, sizes = _equations(group, cell, units)
        key = equal.tobytes() + widest.tobytes() + sizes.tobytes()
        if key not in solved:
            solved[key] = _counts(equal, widest, sizes)
        counts = solved[key]
        if counts is None:
            names = ", ".join(dict.fromkeys(c.node for c in group[:3]))
            stuck.append((units, f"the groups of {names} cannot keep equally many channels"))
        else:
            first = int(orbit[units].min())
            orbit[units] = first
            levels[first] = Levels(cells, counts)
    return Partition(cell, orbit, levels, tuple(stuck))


def _spread(constraints: Sequence[Constraint], frozen: Array) -> tuple[Array, list[tuple[Array, str]]]:
    """Freeze what shares a constraint with frozen units, until nothing changes."""
    frozen, stuck = frozen.copy(), []
    changed = True
    while changed:
        changed = False
        for c in constraints:
            here = frozen[c.units]
            if here.any() and not here.all():
                frozen[c.units] = changed = True
                stuck.append((c.units, f"the groups of {c.node} must keep step with channels that stay"))
    return frozen, stuck


def _number(domain: Array, sign: Array, frozen: Array) -> Array:
    keys = np.stack([domain.astype(np.uint64), sign, frozen.astype(np.uint64)])
    return np.asarray(np.unique(keys, axis=1, return_inverse=True)[1]).reshape(-1)


def _uneven(constraints: Sequence[Constraint], cell: Array, orbit: Array) -> list[list[Constraint]]:
    """Constraints bound together by shared orbits, where equal numbers per cell would not satisfy them all."""
    if not constraints:
        return []
    pairs = [_star(np.unique(orbit[c.units])) for c in constraints]
    part = components(int(orbit.max()) + 1, pairs)
    groups: dict[int, list[Constraint]] = {}
    for c in constraints:
        groups.setdefault(int(part[orbit[c.units[0]]]), []).append(c)
    return [group for group in groups.values() if not all(_even(c, cell, orbit) for c in group)]


def _even(c: Constraint, cell: Array, orbit: Array) -> bool:
    """Do its blocks hold, of every orbit, equally many cells, and are those of one size?"""
    triples, counts = np.unique(np.stack([orbit[c.units], c.block, cell[c.units]]), axis=1, return_counts=True)
    blocks = int(c.block.max()) + 1
    for o in np.unique(triples[0]):
        mine = triples[0] == o
        held = np.bincount(triples[1][mine], minlength=blocks)
        if held.min() != held.max() or counts[mine].min() != counts[mine].max():
            return False
    return True


def _equations(group: Sequence[Constraint], cell: Array, units: Array) -> tuple[Array, Array, Array, Array]:
    """(cell numbers, rows with ``rows @ survivors == 0`` where all blocks keep equally many, widest block, sizes).

    The last two are a row that counts the survivors of the widest block, and the sizes of the cells.
    """
    numbers, first, index = np.unique(cell[units], return_index=True, return_inverse=True)
    # By first unit, so that two blocks of one shape pose the problem in the same words.
    order = np.argsort(first)
    cells, index = numbers[order], np.argsort(order)[index]
    sizes = np.bincount(index)
    place = np.full(int(units.max()) + 1, -1)
    place[units] = index
    rows: dict[bytes, Array] = {}
    widest = np.zeros(len(cells))
    for c in group:
        table = np.zeros((int(c.block.max()) + 1, len(cells)))
        np.add.at(table, (c.block, place[c.units]), 1.0)
        table /= sizes  # positions per unit: a unit that stands in a block twice counts twice
        widest = max(widest, table[0], key=lambda row: float(row @ sizes))
        for row in table[1:] - table[0]:
            rows.setdefault(row.tobytes(), row)
    return cells, np.stack(list(rows.values())), widest, sizes


def _counts(equal: Array, widest: Array, sizes: Array) -> Array | None:
    """int[levels, cells]: rising numbers of survivors that satisfy the equations, spread over the whole range.

    They go up in steps of the widest block, by a power of two: so all widths are met that fill vectors.
    """
    found: list[Array] = []
    least = np.ones(len(sizes))
    wide = round(float(widest @ sizes))
    step = 1 << (-(-wide // STEPS) - 1).bit_length()
    for width in range(step, wide, step):
        solved = _level(equal, widest, width, sizes, least)
        if solved is None and not found:
            least = np.zeros(len(sizes))
            solved = _level(equal, widest, width, sizes, least)
        if solved is None:
            continue
        if solved.any() and not (found and np.array_equal(found[-1], solved)):
            found.append(solved)
            least = solved.astype(float)
    if not found:
        return None
    if not np.array_equal(found[-1], sizes):
        found.append(sizes)
    return np.stack(found)


def _level(equal: Array, widest: Array, width: int, sizes: Array, least: Array) -> Array | None:
    """Survivors with this many in the widest block; where that is impossible, as near as can be."""
    wanted = sizes * (width / (widest @ sizes))
    exact = _nearest(np.vstack([equal, widest]), np.append(np.zeros(len(equal)), width), wanted, least, sizes)
    return exact if exact is not None else _nearest(equal, np.zeros(len(equal)), wanted, least, sizes)


def _nearest(rows: Array, sums: Array, wanted: Array, least: Array, most: Array) -> Array | None:
    """The whole numbers between ``least`` and ``most`` with ``rows @ x == sums`` that differ least from ``wanted``."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # half a second that few networks need

    n = len(wanted)
    zeros, eye = np.zeros_like(rows), np.eye(n)
    constraints = [
        LinearConstraint(np.hstack([rows, zeros]), sums, sums),
        LinearConstraint(np.hstack([eye, -eye]), -np.inf, wanted),  # x - d <= wanted
        LinearConstraint(np.hstack([eye, eye]), wanted, np.inf),  # x + d >= wanted
    ]
    solved = milp(
        np.concatenate([np.zeros(n), np.ones(n)]),
        constraints=constraints,
        integrality=np.concatenate([np.ones(n), np.zeros(n)]),
        bounds=Bounds(np.concatenate([least, np.zeros(n)]), np.concatenate([most, np.full(n, np.inf)])),
        options={"time_limit": 2.0},
    )
    if solved.x is None:
        return None
    x = np.rint(solved.x[:n]).astype(np.int64)
    return x if np.abs(rows @ x - sums).max() < 1e-6 else None
