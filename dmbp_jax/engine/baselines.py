"""Pictures without information: what methods start from, and what pixels are inserted into.

Blurs are zero outside the image and work per channel in the network's preprocessed space, as RISE
does. Filtering along an axis is then a product with a banded Toeplitz matrix: one small matrix
product for any width, where a convolution would need hundreds of taps.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from PIL import Image

from dmbp_jax.checks import check_count, check_number
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.call import Call, check_images

Blur = str | tuple[str, int, float]
Baseline = Blur | ArrayLike

BLUR_SIGMA = 10.0  # pixels, of the preset "blur"
TRUNCATE = 4.0  # kernel radius in standard deviations, as scipy.ndimage.gaussian_filter


def make_baseline(baseline: Baseline, call: Call, name: str = "baseline") -> jax.Array:
    """The baseline x′ (N, H, W, C) of the images of a call, in preprocessed space.

    Args:
      baseline: "zero"; "mean", the mean colour of each image; "black", which asks the network for
        its preprocessing; a blur as in `blur_taps`; a number; or an array shaped like an image or
        like all of them.
      call: its images and its network.
      name: of the argument, for messages.
    """
    images = call.images
    if isinstance(baseline, tuple) or (isinstance(baseline, str) and baseline in ("blur", "rise")):
        return blur_images(images, baseline)  # pyrefly: ignore[bad-argument-type]
    if isinstance(baseline, str) and baseline == "mean":
        return jnp.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
    if isinstance(baseline, str) and baseline in ("zero", "black"):
        colour = jnp.float32(0) if baseline == "zero" else _black(call, name)
        return jnp.broadcast_to(colour.astype(images.dtype), images.shape)
    if isinstance(baseline, str):
        raise InputError(
            f"{name}: Expected one of 'zero', 'mean', 'black', 'blur', 'rise', or "
            f'("gaussian", size, sigma), or an array, got {baseline!r}.'
        )
    if isinstance(baseline, (float, np.floating, np.ndarray, jax.Array)) and not np.ndim(baseline):
        baseline = jnp.full(images.shape[1:], baseline, images.dtype)
    given, _ = check_images(baseline, name)
    if given.shape[1:] != images.shape[1:] or len(given) not in (1, len(images)):
        raise InputError(
            f"{name}: Expected shape {images.shape[1:]} or {images.shape}, got "
            f"{np.shape(baseline)}."
        )
    return jnp.broadcast_to(given.astype(images.dtype), images.shape)


def _black(call: Call, name: str) -> np.ndarray:
    """Colour (C,) of a black picture after the network's own preprocessing."""
    if not hasattr(call.params, "preprocess"):
        raise InputTypeError(
            f'{name}: Expected a dmbp_jax.Network for "black", which needs its preprocessing, '
            f"got {type(call.params).__name__}. "
            "Give the black image as an array, preprocessed as x is."
        )
    _, height, width, _ = call.images.shape
    return np.asarray(call.params.preprocess(Image.new("RGB", (width, height))))[0, 0]


def blur_taps(blur: Blur = "rise") -> np.ndarray:
    r"""One-dimensional taps of a blur; the two-dimensional kernel is their outer product.

    `"rise"` is the kernel of the RISE authors' code: `scipy.ndimage.gaussian_filter` with
    \(\sigma = 5\), radius 20, run over a unit impulse in an 11 x 11 grid. scipy reflects at the
    border, so the tails fold back and the kernel is nearly a box:
    .08795815 .08889612 .0904742 .09219112 .09348939 .09398206, mirrored.

    `"blur"` is a Gaussian of 10 pixels, cut at four of its widths. `("gaussian", size, sigma)` is
    \(\exp(-t^2 / 2\sigma^2)\) on `size` points, scaled to sum 1.

    Args:
      blur: `"rise"`, `"blur"` or `("gaussian", size, sigma)`; `size` odd, `sigma` > 0.

    Returns:
      (size,) float64, symmetric, sum 1.

    Raises:
      InputError: an unknown preset, an even size, or a sigma that is not positive.

    Example:
      >>> blur_taps("rise")[:3].round(8).tolist()
      [0.08795815, 0.08889612, 0.0904742]
    """
    if isinstance(blur, str) and blur == "rise":
        impulse = np.zeros(11)
        impulse[5] = 1
        taps = gaussian_taps(5.0, kernel_radius(5.0))
        return np.convolve(np.pad(impulse, 20, mode="symmetric"), taps, "valid")
    if isinstance(blur, str) and blur == "blur":
        return gaussian_taps(BLUR_SIGMA, kernel_radius(BLUR_SIGMA))
    if isinstance(blur, tuple) and len(blur) == 3 and blur[0] == "gaussian":
        size = check_count(blur[1], "blur size")
        sigma = check_number(blur[2], "blur sigma", low=0, above=True)
        if size % 2 == 0:
            raise InputError(f"blur: Expected an odd size, got {size}.")
        taps = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
        return taps / taps.sum()
    raise InputError(f'blur: Expected "rise", "blur" or ("gaussian", size, sigma), got {blur!r}.')


@jax.jit
def _blur(images: jax.Array, taps: jax.Array) -> jax.Array:
    return jax.vmap(lambda image: filter_separably(image, taps, taps))(images)


def blur_images(x: jax.Array, blur: Blur = "rise") -> jax.Array:
    """Blur every channel of images (N, H, W, C), zeros beyond the border."""
    precise = at_least_float32(x)
    return _blur(precise, jnp.asarray(blur_taps(blur), precise.dtype)).astype(x.dtype)


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
