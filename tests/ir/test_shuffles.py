"""One recogniser of channel shuffles, for canonicalize and for generated code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.ir import Graph, Node, Value
from secateur.ir.shuffles import shuffle_ending_in


def chain(shape: tuple[int, ...], split: tuple[int, ...], perm: tuple[int, ...], end: tuple[int, ...]) -> Graph:
    """Reshape, transpose, reshape."""
    nodes = (
        Node("reshape", ("x",), (Value("a", split),), {"shape": split}),
        Node("transpose", ("a",), (Value("b", tuple(split[p] for p in perm)),), {"perm": perm}),
        Node("reshape", ("b",), (Value("y", end),), {"shape": end}),
    )
    return Graph("shuffle", (Value("x", shape),), nodes, ("y",), {})


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
