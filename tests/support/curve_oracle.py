"""A network whose curves are worked out by hand, a small random one, and the curve pixel by pixel.

The oracle is float64 NumPy and inserts one pixel after the other, as the metric is defined.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

# Two classes, four pixels in a row; logit 0 is the sum of the pixels, logit 1 is always 0.


def sums(params: Any, x: jax.Array) -> jax.Array:
    total = x.sum((1, 2, 3)) * params
    return jnp.stack([total, jnp.zeros_like(total)], axis=1)


ONE = jnp.float32(1)
LOG3 = float(np.log(3))
PIXELS = jnp.array([LOG3, 0.0, -LOG3, 2 * LOG3]).reshape(1, 4, 1)
# softmax of (s log 3, 0) is 3^s / (3^s + 1): s = 0, 1, 2, 3 -> 1/2, 3/4, 9/10, 27/28


_RNG = np.random.default_rng(7)
WEIGHTS = {
    "kernel": _RNG.normal(size=(3, 3, 2, 4)) / 3,
    "dense": _RNG.normal(size=(4, 5)),
}
X = _RNG.normal(size=(3, 9, 7, 2)).astype(np.float32)
MAPS = np.round(_RNG.normal(size=(3, 9, 7)), 1).astype(np.float32)  # rounded: there are ties
LABELS = np.array([4, 0, 2])
OTHERS = [[0, 1], [], [3]]


def small_cnn(params: Any, x: jax.Array) -> jax.Array:
    kernel = jnp.asarray(params["kernel"], x.dtype)
    z = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(z).mean((1, 2)) @ jnp.asarray(params["dense"], x.dtype)


def oracle_logits(x: np.ndarray) -> np.ndarray:
    height, width, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    z = sum(
        padded[i : i + height, j : j + width] @ WEIGHTS["kernel"][i, j]
        for i in range(3)
        for j in range(3)
    )
    return np.maximum(z, 0).mean((0, 1)) @ WEIGHTS["dense"]


def oracle_probabilities(x: np.ndarray, activation: str) -> np.ndarray:
    logits = oracle_logits(x)
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    return np.exp(logits) / np.exp(logits).sum()


def rise_blur(x: np.ndarray) -> np.ndarray:
    """As in the authors' code: a 2-D kernel from scipy, a convolution padded with zeros."""
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = ndimage.gaussian_filter(impulse, 5)
    channels = [ndimage.convolve(x[..., c], kernel, mode="constant") for c in range(x.shape[-1])]
    return np.stack(channels, -1)


def oracle_curve(
    start: np.ndarray,
    finish: np.ndarray,
    heatmap: np.ndarray,
    labels: list[int],
    sign: int,
    step: int,
    activation: str,
) -> tuple[list[float], list[float], float]:
    pixels = [(r, c) for r in range(heatmap.shape[0]) for c in range(heatmap.shape[1])]
    pixels.sort(key=lambda p: sign * float(heatmap[p]))  # Python's sort is stable
    picture = start.copy()
    fractions, scores, changed = [0.0], [], 0
    scores.append(float(np.mean(oracle_probabilities(picture, activation)[labels])))
    while changed < len(pixels):
        for p in pixels[changed : changed + step]:
            picture[p] = finish[p]
        changed = min(changed + step, len(pixels))
        fractions.append(changed / len(pixels))
        scores.append(float(np.mean(oracle_probabilities(picture, activation)[labels])))
    auc = sum(
        (fractions[i + 1] - fractions[i]) * (scores[i] + scores[i + 1]) / 2
        for i in range(len(scores) - 1)
    )
    return fractions, scores, auc
