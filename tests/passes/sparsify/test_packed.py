"""Packed weights: the identity, and what damaged texts are told."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import InputError
from secateur.passes.sparsify.packed import pack, read


def matrix(rows: int, columns: int, keep: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((rows, columns)).astype(np.float32)
    return dense * (rng.random((rows, columns)) < keep)


@given(st.integers(0, 20), st.integers(1, 30), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99))
def test_packing_and_back(rows: int, columns: int, block: int, keep: float, seed: int) -> None:
    """Also rows that no block fills, no row at all, and nothing but zeros; with the text between."""
    dense = matrix(rows, columns, keep, seed)
    packed = pack(dense, block)
    np.testing.assert_array_equal(packed.unpacked(), dense)
    again = read(packed.text(), dense, "w")
    np.testing.assert_array_equal(again.kept, packed.kept)
    np.testing.assert_array_equal(again.unpacked(), dense)


def test_packing_by_hand() -> None:
    packed = pack(np.float32([[1, 0, 3], [2, 0, 0], [0, 5, 0]]), 2)
    np.testing.assert_array_equal(packed.kept, [[True, False, True], [False, True, False]])
    np.testing.assert_array_equal(packed.values, [[1, 2], [3, 0], [5, 0]])


@given(st.integers(0, 300), st.integers(0, 255), st.integers(0, 99))
@settings(max_examples=200)
def test_damaged_texts_are_refused_or_read_whole(place: int, byte: int, seed: int) -> None:
    """Any byte may be another: nothing is read beyond the weight, and no block is lost."""
    dense = matrix(16, 12, 0.3, seed)
    text = bytearray(pack(dense, 4).text().encode())
    text[place % len(text)] = byte
    try:
        found = read(text.decode("latin-1"), dense, "w")
    except InputError:
        return
    np.testing.assert_array_equal(found.unpacked(), dense)


def test_what_is_wrong_is_said() -> None:
    dense = matrix(8, 8, 0.5, 0)
    body = json.loads(pack(dense, 4).text())
    for change, message in (
        ({"shape": [8, 9]}, r"a weight of \(8, 9\)"), ({"rows": 0}, "another format"), ({"kept": "no"}, "damaged"),
        ({"rows": 1 << 40}, "another format"), ({"rows": 2}, "has not 32 bits"), ({"format": 9}, "another format"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read(json.dumps({**body, **change}), dense, "w")
    with pytest.raises(InputError, match="weights were changed"):
        read(pack(dense * (np.arange(8) > 3)[:, None], 4).text(), dense, "w")
