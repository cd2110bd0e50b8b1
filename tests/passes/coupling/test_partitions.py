"""Connected components by rounds of hooking are those that a graph library finds, numbered by their first element."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from secateur.passes.coupling.partitions import components

PAIRS = st.integers(1, 40).flatmap(
    lambda size: st.tuples(st.just(size), st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))))
)


@given(PAIRS)
def test_components(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    size, pairs = drawn
    left, right = (np.array([p[side] for p in pairs], np.int64) for side in (0, 1))
    graph = coo_matrix((np.ones(len(pairs)), (left, right)), shape=(size, size))
    _, wanted = connected_components(graph, directed=False)
    half = len(pairs) // 2  # given in two lists
    found = components(size, [(left[:half], right[:half]), (right[half:], left[half:])])
    _, first = np.unique(wanted, return_index=True)
    assert found.tolist() == np.argsort(np.argsort(first))[wanted].tolist()


def test_a_long_chain_whose_ends_are_met_last() -> None:
    order = np.random.default_rng(0).permutation(5000)
    assert not components(5000, [(order[:-1], order[1:])]).any()
