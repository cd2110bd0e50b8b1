"""What is made of samples: a machine that is slow for a while makes no kernel look slower than another."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from secateur.codegen.tune.timing import interleaved, steady

SECONDS = st.floats(1e-6, 1.0)


@given(st.lists(SECONDS, min_size=1, max_size=8), st.lists(st.floats(0.25, 4.0), min_size=3, max_size=15), st.data())
def test_a_round_that_is_slow_as_a_whole_changes_nothing(
    true: list[float], rounds: list[float], data: st.DataObject
) -> None:
    """All but the first may have been dropped after three rounds, in which the machine was another."""
    lengths = [len(rounds), *(data.draw(st.sampled_from([3, len(rounds)])) for _ in true[1:])]
    found = steady({i: [t * r for r in rounds[:n]] for i, (t, n) in enumerate(zip(true, lengths, strict=True))})
    for i, t in enumerate(true):
        assert found[i] / found[0] == pytest.approx(t / true[0], rel=1e-9)


def test_medians_by_hand() -> None:
    """Twice as slow from the third round on; one sample of the second call was disturbed."""
    assert steady({0: [1.0, 1.0, 2.0, 2.0, 2.0]}) == {0: pytest.approx(1.0)}
    found = steady({0: [1.0, 1.0, 2.0, 2.0, 2.0], 1: [4.0, 4.0, 8.0, 80.0, 8.0], 2: [16.0, 16.0, 32.0]})
    assert found[1] / found[0] == pytest.approx(4.0)
    assert found[2] / found[0] == pytest.approx(16.0)
    assert found[0] == pytest.approx(1.0)
    assert steady({}) == {}


def test_the_slower_half_of_the_rounds_does_not_count() -> None:
    """While the cores share one, the second call is the faster; it is not where they are two."""
    found = steady({0: [2.0, 2.0, 2.0, 1.0, 1.0], 1: [1.8, 1.8, 1.8, 1.2, 1.2]})
    assert found == {0: pytest.approx(1.0), 1: pytest.approx(1.2)}
    dropped = steady({0: [2.0, 2.0, 2.0, 1.0, 1.0, 1.0], 1: [4.0, 4.0, 4.0]})
    assert dropped[1] / dropped[0] == pytest.approx(2.0), "it is in no fast round: its own are all there are"


def test_those_that_are_clearly_slower_are_left_early() -> None:
    counts = {0: 0, 1: 0}

    def quick() -> None:
        counts[0] += 1

    def slow() -> None:
        counts[1] += 1
        sum(range(400_000))

    begun: list[None] = []
    found = interleaved({0: quick, 1: slow}, 9, lambda: begun.append(None))
    assert len(begun) == 9
    assert counts[1] == 2 + 3, "to see how long it takes, then three rounds"
    assert found[0] < found[1]
