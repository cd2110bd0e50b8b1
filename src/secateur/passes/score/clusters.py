"""Spectral clustering of channels: shared by the criteria that look for channels that say the same."""

from __future__ import annotations

import numpy as np

from secateur.ir import Array

MOST_VECTORS = 128  # more do not separate clusters better, and cost the cube of their number
MANY, RESTARTS = 256, (10, 2)  # beyond so many channels k-means starts less often


def spectral_embedding(affinity: Array, count: int) -> tuple[Array, Array]:
    """(f64[c, count] rows of eigenvectors over sqrt(degree), all eigenvalues of the symmetric Laplacian, rising).

    ``affinity``: symmetric, zero diagonal. The signs of the vectors are made canonical (Shi and Malik 2000).
    """
    from scipy.linalg import eigh

    degree = affinity.sum(1)
    scale = 1.0 / np.sqrt(np.maximum(degree, 1e-12))
    laplacian = np.eye(len(affinity)) - affinity * scale[:, None] * scale[None, :]
    values, vectors = eigh(laplacian, subset_by_index=[0, min(count, len(affinity)) - 1])
    largest = np.abs(vectors).argmax(0)
    vectors = vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    return vectors * scale[:, None], values


def spectral_clusters(affinity: Array, count: int, seed: int = 0) -> Array:
    """int[c]: labels from 0 of ``count`` clusters, by k-means on the spectral embedding, restarted from a seed.

    The embedding has as many vectors as there are clusters, 128 at most.
    """
    if count >= len(affinity):
        return np.arange(len(affinity))
    from sklearn.cluster import KMeans

    rows, _ = spectral_embedding(affinity, min(count, MOST_VECTORS))
    spread = float(np.abs(rows).max()) or 1.0
    distinct = len(np.unique(np.round(rows / spread, 9), axis=0))
    restarts = RESTARTS[len(rows) > MANY]
    found: Array = KMeans(min(count, distinct), n_init=restarts, random_state=seed).fit_predict(rows)
    return found


def gaussian_affinity(descriptors: Array, sigma: float | None = None) -> Array:
    """f64[c, c]: exp(-distance^2 / 2 sigma^2), zero diagonal; sigma is the median distance unless given."""
    x = descriptors.astype(np.float64)
    squares = np.einsum("ij,ij->i", x, x)
    gaps = np.maximum(squares[:, None] + squares[None, :] - 2 * (x @ x.T), 0.0)
    if sigma is None:
        off = np.sqrt(gaps[~np.eye(len(x), dtype=bool)])
        sigma = float(np.median(off)) if off.size else 1.0
    affinity: Array = np.exp(-gaps / (2 * max(sigma, 1e-12) ** 2))
    np.fill_diagonal(affinity, 0.0)
    return affinity
