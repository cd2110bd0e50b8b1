"""Which blocks of a weight are zero, packed: a bit for each block, in a text that stands next to the dense weights.

A file keeps its weights dense, so that every runtime reads it; what the zeros are is written in its metadata for those
that want to leave them out. There are no indices, so none can be out of range: a damaged text has the wrong number of
bits, or says of a block that it is zero which is not, and both are refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, InputError

from .pattern import Mask, padded

FORMAT = 1
LARGEST = 1 << 28  # blocks of a weight: more are refused before memory is taken for them


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A matrix without the blocks of ``rows`` x 1 numbers that are zero.

    ``kept`` [blocks of rows, columns] says which stay, ``values`` [kept, rows] are those, row of blocks by row; what is
    beyond the last row is zero.
    """

    shape: tuple[int, int]
    rows: int
    kept: Mask
    values: Array

    def text(self) -> str:
        """Which blocks stay, as text; the values are in the dense weight."""
        bits = zlib.compress(np.packbits(self.kept.reshape(-1)).tobytes(), 9)
        body = {"format": FORMAT, "shape": list(self.shape), "rows": self.rows, "kept": base64.b64encode(bits).decode()}
        return json.dumps(body, separators=(",", ":"))

    def unpacked(self) -> Array:
        """The dense matrix."""
        blocks, columns = self.kept.shape
        dense = np.zeros((blocks, columns, self.rows), self.values.dtype)
        dense[self.kept] = self.values
        whole: Array = np.ascontiguousarray(dense.transpose(0, 2, 1).reshape(-1, columns)[: self.shape[0]])
        return whole


def pack(matrix: Array, rows: int) -> PackedWeight:
    """The blocks of ``rows`` outputs by one column that hold something."""
    wide = padded(matrix, rows, 1)
    blocks = wide.reshape(-1, rows, matrix.shape[1]).transpose(0, 2, 1)
    kept = (blocks != 0).any(-1)
    return PackedWeight((matrix.shape[0], matrix.shape[1]), rows, kept, np.ascontiguousarray(blocks[kept]))


def read(text: str, matrix: Array, where: str) -> PackedWeight:
    """The inverse of ``text``, next to the dense matrix. Raises InputError for a text that is damaged or not of it."""
    try:
        body = json.loads(text)
        rows, shape = body["rows"], tuple(body["shape"])
        if body["format"] != FORMAT or type(rows) is not int or not 0 < rows <= LARGEST:
            raise ValueError("it is of another format")
        if shape != matrix.shape:
            raise ValueError(f"it is of a weight of {shape}, this one has {matrix.shape}")
        count = -(-matrix.shape[0] // rows) * matrix.shape[1]
        if count > LARGEST:
            raise ValueError(f"{count} blocks are more than {LARGEST}")
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(body["kept"], validate=True), -(-count // 8) + 1)
        if len(data) != -(-count // 8) or unzip.unconsumed_tail or not unzip.eof:
            raise ValueError(f"it has not {count} bits")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error, binascii.Error) as error:
        raise InputError(
            f"{where}: what is said of its zeros is damaged: {error}; leave it out, or save again"
        ) from error
    kept = np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool).reshape(-1, matrix.shape[1])
    found = pack(matrix, rows)
    if np.any(found.kept & ~kept):
        raise InputError(f"{where}: a block that is said to be zero is not; the weights were changed, so save again")
    blocks = padded(matrix, rows, 1).reshape(-1, rows, matrix.shape[1]).transpose(0, 2, 1)
    return PackedWeight((matrix.shape[0], matrix.shape[1]), rows, kept, np.ascontiguousarray(blocks[kept]))
