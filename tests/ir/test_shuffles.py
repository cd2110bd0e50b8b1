"""One recogniser of channel shuffles, for canonicalize and for generated code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.ir import Graph, Node, Value
from secateur.ir.shuffles import grid_of, runs_of, shuffle_ending_in


def chain(shape: tuple[int, ...], split: tuple[int, ...], perm: tuple[int, ...], end: tuple[int, ...]) -> Graph:
    """Reshape, transpose, reshape."""
    nodes = (
        Node("reshape", ("x",), (Value("a", split),), {"shape": split}),
        Node("transpose", ("a",), (Value("b", tuple(split[p] for p in perm)),), {"perm": perm}),
        Node("reshape", ("b",), (Value("y", end),), {"shape": end}),
    )
    return Graph("shuffle", (Value("x", shape),), nodes, ("y",), {})


def test_the_picture_may_be_one_axis_in_between() -> None:
    """As files are written whose height and width are open."""
    graph = chain((1, 6, 4, 5), (1, 2, 3, 20), (0, 2, 1, 3), (1, 6, 4, 5))
    found = shuffle_ending_in(graph, graph.nodes[-1])
    assert found is not None
    assert found.order.tolist() == [0, 3, 1, 4, 2, 5]
    moved = chain((1, 6, 4, 5), (1, 2, 3, 20), (0, 3, 2, 1), (1, 6, 4, 5))
    assert shuffle_ending_in(moved, moved.nodes[-1]) is None


@given(st.data())
def test_the_order_is_what_the_chain_does(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = tuple(data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=3)))
    turn = data.draw(st.permutations(range(len(parts))))
    shape = (*shape[:axis], int(np.prod(parts)), *shape[axis + 1 :])
    split = (*shape[:axis], *parts, *shape[axis + 1 :])
    perm = (*range(axis), *(axis + t for t in turn), *range(axis + len(parts), len(split)))
    graph = chain(shape, split, perm, shape)
    found = shuffle_ending_in(graph, graph.nodes[-1])
    assert found is not None
    x = np.arange(np.prod(shape)).reshape(shape)
    wanted = x.reshape(split).transpose(perm).reshape(shape)
    assert np.array_equal(np.take(x, found.order, axis=found.axis), wanted)


@pytest.mark.parametrize(
    ("split", "perm", "end"),
    [
        ((1, 2, 4, 3, 3), (0, 2, 1, 3, 4), (1, 8, 9)),  # another shape at the end
        ((1, 2, 4, 3, 3), (0, 2, 1, 4, 3), (1, 8, 3, 3)),  # rows and columns change places as well
        ((1, 2, 4, 3, 3), (0, 3, 2, 1, 4), (1, 8, 3, 3)),  # channels and rows change places
    ],
)
def test_other_chains_are_none(split: tuple[int, ...], perm: tuple[int, ...], end: tuple[int, ...]) -> None:
    graph = chain((1, 8, 3, 3), split, perm, end)
    assert shuffle_ending_in(graph, graph.nodes[-1]) is None


@pytest.mark.parametrize(("groups", "width"), [(2, 2), (3, 8), (8, 3)])
def test_grids_are_known_by_their_order(groups: int, width: int) -> None:
    order = np.arange(groups * width).reshape(groups, width).T.reshape(-1)
    assert grid_of(order) == groups
    assert grid_of(order[::-1]) is None
    assert grid_of(np.roll(order, 1)) is None
    assert grid_of(np.arange(groups * width)) is None


def test_runs_put_together_are_the_order() -> None:
    order = np.array([4, 5, 0, 1, 6, 2, 3])
    assert runs_of(order) == [(4, 6), (0, 2), (6, 7), (2, 4)]
    assert np.array_equal(np.concatenate([np.arange(*run) for run in runs_of(order)]), order)
