"""Weights to the last bit: digests, and which weights of a slim network no cut of the original gives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from secateur.ir import Array, Graph


def digest(array: Array) -> str:
    """SHA-256 over an array's shape, type and bytes."""
    return fingerprint({"": array})


def digests(dense: Graph, rewritten: Graph, cut: Graph, slim: Graph) -> dict[str, str]:
    """Digests of the slim network's weights that no cut of the original gives: of rewrites, and of compensation."""
    made = {n for n, w in rewritten.weights.items() if w.dtype.kind == "f" and not same(w, dense.weights.get(n))}
    changed = {n for n, w in slim.weights.items() if not same(w, cut.weights.get(n))}
    return {name: digest(slim.weights[name]) for name in sorted(made | changed) if name in slim.weights}


def same(one: Array, other: Array | None) -> bool:
    """Are the two the same to the last bit?"""
    if one is other:
        return True
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(np.array_equal(_bytes(one), _bytes(other))) if one.dtype != object else bool((one == other).all())


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def fingerprint(weights: Mapping[str, Array]) -> str:
    """SHA-256 over names, shapes and bytes of the weights, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name]
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
