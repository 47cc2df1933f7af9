"""Separable Gaussian blur on the device, zero outside the image: for Blur-IG and blurred baselines.

With zeros outside, filtering along an axis is a product with a banded Toeplitz matrix: one small
matrix product for any width, where a convolution would need hundreds of taps.
"""

import jax
import jax.numpy as jnp
import numpy as np

TRUNCATE = 4.0  # kernel radius in standard deviations, as scipy.ndimage.gaussian_filter


def kernel_radius(sigma: float) -> int:
    """Number of taps on each side of the centre."""
    return int(TRUNCATE * sigma + 0.5)


def gaussian_taps(sigma: float, reach: int) -> np.ndarray:
    """Normalised Gaussian cut at 4 sigma, (2·reach + 1,) float64; sigma = 0 is the identity."""
    distance = np.arange(-reach, reach + 1)
    if sigma == 0:
        return (distance == 0).astype(np.float64)
    taps = np.exp(-0.5 * (distance / sigma) ** 2) * (abs(distance) <= kernel_radius(sigma))
    return taps / taps.sum()


def filter_separably(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Filter (H, W, C) with taps `rows` along H and `columns` along W, zero outside the image."""
    height, width, _ = image.shape
    return jnp.einsum(
        "ij,jkc,lk->ilc",
        _toeplitz(rows.astype(image.dtype), height),
        image,
        _toeplitz(columns.astype(image.dtype), width),
        precision="highest",  # TensorFloat-32 is too coarse for Blur-IG's small differences
    )


def _toeplitz(taps: jax.Array, size: int) -> jax.Array:
    """(size, size) matrix with `taps[reach + i − j]` at (i, j), zero beyond their reach."""
    reach = taps.shape[0] // 2
    offset = np.arange(size)[:, None] - np.arange(size)[None, :]
    return jnp.where(abs(offset) <= reach, taps[np.clip(offset + reach, 0, 2 * reach)], 0)
