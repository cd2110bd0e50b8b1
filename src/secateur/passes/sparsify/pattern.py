"""What a pattern of zeros is: from the importance of each weight of a matrix to which weights stay."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from secateur.ir import Array, InputError

Mask = NDArray[np.bool_]


class Pattern(Protocol):
    """Where zeros may stand. A frozen dataclass, named as ``--block`` names it.

    ``nested``: may what stays for a larger share always be chosen among what stays for a smaller one?
    """

    name: ClassVar[str]
    nested: ClassVar[bool] = True

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights of [rows, columns] that stay: those of most importance such that at least ``sparsity`` go.

        ``importance``: 0 or more for each weight; what a set of weights is worth is their sum. Raises InputError for a
        share that the pattern cannot express.
        """
        ...

    def of(self, taps: int, columns: int, units: int) -> Pattern:
        """The pattern in a layer of so many ``columns``, in which the ``taps`` of an input follow each other.

        ``units``: the rows of a gate of a recurrent layer, all rows of others.
        """
        return self

    def toward(self, importance: Array, share: float, sparsity: float) -> Mask:
        """The weights that stay while ``share`` has gone, of the share ``sparsity`` that goes in the end."""
        return self.mask(importance, share)


def kept_of(count: int, sparsity: float) -> int:
    """How many of so many stay, so that at least this share goes; a hair is given for shares that are not binary."""
    return int(np.floor(count * (1 - sparsity) + 1e-9))


def largest(values: Array, count: int) -> Mask:
    """The ``count`` largest along the last axis, the first of equal ones."""
    order = np.argsort(-values, axis=-1, kind="stable")
    found = np.zeros(values.shape, bool)
    np.put_along_axis(found, order[..., :count], True, axis=-1)
    return found


def padded(matrix: Array, rows: int, columns: int) -> Array:
    """The matrix with zeros such that blocks of these sizes fill it."""
    more = [(0, -size % step) for size, step in zip(matrix.shape, (rows, columns), strict=True)]
    return np.pad(matrix, more)


def cannot(pattern: str, sparsity: float, why: str) -> InputError:
    """The error of a pattern for a share of zeros that it cannot express."""
    return InputError(f"--block {pattern} with sparsity {sparsity:.4g}: {why}")
