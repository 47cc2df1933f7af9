"""The baseline image of integrated gradients and DeepLift; what LPR puts at masked pixels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from PIL import Image

from dmbp_jax.checks import check_choice
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.images import check_images
from dmbp_jax.methods.gaussian_blur import filter_separably, gaussian_taps, kernel_radius

NAMES = ("zero", "mean", "black", "blur")
BLUR_SIGMA = 10.0  # pixels


def make_baseline(baseline: ArrayLike | str, params: Any, call: Call) -> jax.Array:
    """The baseline x′ (N, H, W, C) in preprocessed space, by name or as an array.

    Raises:
      InputError: an unknown name, a wrong shape, or "black" for a network that does not know
        its preprocessing.
      InputTypeError: not an array.
    """
    images = call.images
    if isinstance(baseline, str):
        check_choice(baseline, "baseline", NAMES)
        if baseline == "zero":
            return jnp.zeros_like(images)
        if baseline == "mean":
            return jnp.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
        if baseline == "black":
            return jnp.broadcast_to(_black(params, images).astype(images.dtype), images.shape)
        taps = jnp.asarray(gaussian_taps(BLUR_SIGMA, kernel_radius(BLUR_SIGMA)), images.dtype)
        return jax.vmap(lambda image: filter_separably(image, taps, taps))(images)
    given = check_images(baseline, "baseline")
    if given.x.shape[1:] != images.shape[1:] or len(given.x) not in (1, len(images)):
        raise InputError(
            f"baseline: Expected shape {images.shape[1:]} or {images.shape}, "
            f"got {np.shape(baseline)}."
        )
    return jnp.broadcast_to(given.x.astype(images.dtype), images.shape)


def _black(params: Any, images: jax.Array) -> np.ndarray:
    """Colour (C,) of a black picture after the network's own preprocessing."""
    if not hasattr(params, "preprocess"):
        raise InputTypeError(
            'baseline: Expected a dmbp_jax.Network for "black", which needs its preprocessing, '
            f"got {type(params).__name__}. "
            "Give the black image as an array, preprocessed as x is."
        )
    _, height, width, _ = images.shape
    return np.asarray(params.preprocess(Image.new("RGB", (width, height))))[0, 0]
