"""The example inputs at other sizes and with more rows, for a capture that shows what follows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

Arguments = tuple[Any, ...]


def other_sizes(args: Arguments) -> Iterator[Arguments]:
    """The example at awkward sizes, then at multiples, in a batch that is not a likely multiple of any of them.

    Channels stand before the sizes, or after them.
    """
    for axes in (behind, _between, _last):
        for change in (_Awkward(), lambda size, back: size * (3, 2)[back % 2]):
            found = changed(more(args, 11) or args, change, axes)
            if found is not None:
                yield found
    shapes = [leaf.shape for leaf in pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)]
    if len({len(shape) for shape in shapes}) > 1:  # pictures, and sequences or vectors next to them
        most = max(map(len, shapes))
        for rest in (_between, _none):
            found = changed(more(args, 11) or args, _Awkward(), _largest(most, rest))
            if found is not None:
                yield found
    if more(args) is None and (found := _vertices(args)) is not None:
        yield found
    for size in sorted({n for shape in shapes for n in shape[1:]}):  # sequences, and matrices between their places
        found = changed(more(args, 11) or args, _only(size), lambda rank: range(1, rank))
        if found is not None:
            yield found


def _only(size: int) -> Callable[[int, int], int]:
    """Every axis of this size at another, that of others as it is."""
    return lambda old, back: int(size * 1.5) + 2 | 1 if old == size else old


def _vertices(args: Arguments) -> Arguments | None:
    """Graphs: more rows of features, one a vertex, and more edges, which are pairs of their numbers."""
    leaves, spec = pytree.tree_flatten(args)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.ndim]
    pairs = {id(t) for t in tensors if t.ndim == 2 and t.shape[0] == 2 and not t.is_floating_point()}
    rows = {t.shape[0] for t in tensors if t.is_floating_point()} | {t.shape[1] for t in tensors if id(t) in pairs}
    if not pairs or 0 in rows:
        return None
    change, found = _Awkward(), []
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor) and leaf.ndim:
            square = leaf.ndim == 2 and leaf.shape[0] == leaf.shape[1]
            for axis in (1,) if id(leaf) in pairs else (0, 1) if square else (0,):
                if (size := leaf.shape[axis]) in rows:
                    index = torch.arange(change(size, 0)) % size
                    leaf = leaf.index_select(axis, index.to(leaf.device))
        found.append(leaf)
    arguments: Arguments = pytree.tree_unflatten(found, spec)
    return arguments


def behind(rank: int) -> range:
    """After the channels, or after the batch where there is one axis more."""
    return range(min(2, rank - 1), rank)


def _between(rank: int) -> range:
    """Between the batch and the channels."""
    return range(1, rank - 1)


def _none(rank: int) -> range:
    return range(0)


def _largest(most: int, rest: Callable[[int], range]) -> Callable[[int], range]:
    """After the channels of what has the most axes; ``rest`` of the others."""
    return lambda rank: behind(rank) if rank == most else rest(rank)


def _last(rank: int) -> range:
    """Height and width of what has one axis more than a picture: frames."""
    return range(rank - 2, rank) if rank > 4 else range(0)


class _Awkward:
    """Odd sizes, half as large again and more, so that every stride shows, and none near that of another axis.

    The same size along axes that are the same from the end (``back``) becomes the same again.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], int] = {}

    def __call__(self, size: int, back: int) -> int:
        key = size, back % 2
        if key not in self._made:
            new = int(size * (1.5, 1.8)[back % 2]) + 2 | 1
            while any(abs(new - other) * 6 <= max(new, other) for other in self._made.values()):
                new += 2
            self._made[key] = new
        return self._made[key]


def changed(args: Arguments, change: Callable[[int, int], int], axes: Callable[[int], range]) -> Arguments | None:
    """Spatial axes, which ``axes`` gives for a rank, at other sizes."""
    leaves, spec = pytree.tree_flatten(args)
    found = []
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor) and leaf.ndim >= 2:
            for axis in axes(leaf.ndim):
                if change(leaf.shape[axis], leaf.ndim - 1 - axis) == leaf.shape[axis]:
                    continue
                index = torch.arange(change(leaf.shape[axis], leaf.ndim - 1 - axis)) % max(leaf.shape[axis], 1)
                leaf = leaf.index_select(axis, index.to(leaf.device)) if leaf.shape[axis] else leaf
        found.append(leaf)
    if all(a is b for a, b in zip(leaves, found, strict=True)):
        return None
    arguments: Arguments = pytree.tree_unflatten(found, spec)
    return arguments


def more(args: Arguments, rows: int = 1) -> Arguments | None:
    """The example with the first row of each input repeated; None if the inputs have no common batch."""
    leaves, spec = pytree.tree_flatten(args)
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in leaves if isinstance(leaf, torch.Tensor)}
    if len(sizes) != 1 or None in sizes or 0 in sizes:
        return None
    grown = [torch.cat([leaf, *[leaf[:1]] * rows]) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    arguments: Arguments = pytree.tree_unflatten(grown, spec)
    return arguments
