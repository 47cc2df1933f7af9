"""The picture that pixels are inserted into or deleted onto: a blurred copy, zeros, any array.

The blur works per channel in the network's preprocessed space, with zero padding, as RISE does.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics.heatmaps import as_array, at_least_float32, check_finite

# "rise" (11 taps, sigma 5), ("gaussian", size, sigma), "zero", or an array shaped like the images.
Baseline = str | tuple[str, int, float] | ArrayLike


def blur_taps(blur: str | tuple[str, int, float] = "rise") -> np.ndarray:
    r"""One-dimensional taps of a blur; the two-dimensional kernel is their outer product.

    `"rise"` is the kernel of the RISE authors' code: `scipy.ndimage.gaussian_filter` with
    \(\sigma = 5\), radius 20, run over a unit impulse in an 11 x 11 grid. scipy reflects at the
    border, so the tails fold back and the kernel is nearly a box:
    .08795815 .08889612 .0904742 .09219112 .09348939 .09398206, mirrored.

    `("gaussian", size, sigma)` is \(\exp(-t^2 / 2\sigma^2)\) on `size` points, scaled to sum 1.

    Args:
      blur: `"rise"` or `("gaussian", size, sigma)`; `size` odd, `sigma` > 0.

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
        return np.convolve(np.pad(impulse, 20, mode="symmetric"), _gaussian(41, 5.0), "valid")
    if isinstance(blur, tuple) and len(blur) == 3 and blur[0] == "gaussian":
        size, sigma = check_count(blur[1], "blur size"), float(blur[2])
        if size % 2 == 0:
            raise InputError(f"blur: Expected an odd size, got {size}.")
        if not (np.isfinite(sigma) and sigma > 0):
            raise InputError(f"blur: Expected sigma > 0, got {blur[2]}.")
        return _gaussian(size, sigma)
    raise InputError(f'blur: Expected "rise" or ("gaussian", size, sigma), got {blur!r}.')


def blur_images(x: jax.Array, blur: str | tuple[str, int, float] = "rise") -> jax.Array:
    """Blur every channel of images (N, H, W, C), zeros beyond the border."""
    precise = at_least_float32(x)
    return _convolve(precise, jnp.asarray(blur_taps(blur), precise.dtype)).astype(x.dtype)


def baseline_images(baseline: Baseline, x: jax.Array, name: str) -> jax.Array:
    """The images (N, H, W, C) without any information of their pixels.

    Raises:
      InputTypeError: not a preset and not a numeric array.
      InputError: an unknown preset, or an array that does not have the shape of an image or of
        the batch, or is not finite.
    """
    if isinstance(baseline, str) and baseline == "zero":
        return jnp.zeros_like(x)
    if isinstance(baseline, (str, tuple)):
        return blur_images(x, baseline)  # pyrefly: ignore[bad-argument-type]
    if baseline is None:
        raise InputTypeError(f'{name}: Expected "rise", "zero", a tuple or an array, got None.')
    array = as_array(baseline, name)
    if array.shape not in (x.shape, x.shape[1:], ()):
        raise InputError(
            f"{name}: Expected a number or an array of shape {x.shape[1:]} or {x.shape}, "
            f"got {array.shape}."
        )
    check_finite(array, name)
    return jnp.broadcast_to(array, x.shape).astype(x.dtype)


def _gaussian(size: int, sigma: float) -> np.ndarray:
    t = np.arange(size) - size // 2
    taps = np.exp(-0.5 * (t / sigma) ** 2)
    return taps / taps.sum()


@jax.jit
def _convolve(x: jax.Array, taps: jax.Array) -> jax.Array:
    planes = x.transpose(0, 3, 1, 2)[..., None]  # every channel is a picture of its own
    planes = planes.reshape(-1, *planes.shape[2:])
    for kernel in (taps.reshape(-1, 1, 1, 1), taps.reshape(1, -1, 1, 1)):
        planes = jax.lax.conv_general_dilated(
            planes,
            kernel,
            (1, 1),
            [(n // 2, n // 2) for n in kernel.shape[:2]],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
    batch, height, width, channels = x.shape
    return planes.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)
