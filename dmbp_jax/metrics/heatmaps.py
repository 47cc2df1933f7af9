"""What counts as a heat map of an image: one signed number per pixel, checked before tracing.

Every metric takes its heat maps through here, so all of them accept the same shapes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.call import check_finite
from dmbp_jax.graph.model import is_traced, plain_array


def fit_heatmap(
    heatmap: Any, images: jax.Array, single: bool, *, finite: bool = False
) -> jax.Array:
    """Heat maps of images (N, H, W, C) as (N, H, W) floats; `single`: N was added to both.

    Accepted are (H, W) for a single image, (N, H, W) for a batch, an array of the shape of the
    images (its colour channels are summed), and anything with such an array as `.heatmap`.
    """
    values = as_array(getattr(heatmap, "heatmap", heatmap), "heatmap")
    image_shape = images.shape[1:] if single else images.shape
    if values.shape == image_shape:
        values = values.sum(-1)
    elif values.shape != image_shape[:-1]:
        raise InputError(
            f"heatmap: Expected shape {image_shape[:-1]}, or that of the images {image_shape}, "
            f"got {values.shape}."
        )
    if finite:
        check_finite(values, "heatmap")
    return values[None] if single else values


def check_maps(heatmap: Any, name: str = "heatmap") -> tuple[jax.Array, bool]:
    """Heat maps that come without their images, as (N, H, W) floats, and whether N was added."""
    values = as_array(getattr(heatmap, "heatmap", heatmap), name)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InputError(f"{name}: Expected shape (H, W) or (N, H, W), got {values.shape}.")
    check_finite(values, name)
    single = values.ndim == 2
    return (values[None] if single else values), single


def check_masks(masks: ArrayLike, maps: jax.Array, single: bool) -> jax.Array:
    """Masks of the heat maps (N, H, W) from `check_maps`, as booleans of the same shape."""
    array = as_array(masks, "masks")
    expected = maps.shape[1:] if single else maps.shape
    if array.shape != expected:
        raise InputError(f"masks: Expected shape {expected} as the maps, got {array.shape}.")
    with jax.ensure_compile_time_eval():  # of an array that a jitted function captured
        if not is_traced(array) and not bool(((array == 0) | (array == 1)).all()):
            raise InputError("masks: Expected booleans or 0/1, got other values.")
    return (array[None] if single else array).astype(bool)


def as_array(values: ArrayLike, name: str) -> jax.Array:
    """A real-valued array in a floating-point dtype."""
    if hasattr(values, "dtype") and not isinstance(values, jax.Array):
        values = plain_array(values, name)
    try:
        array = jnp.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{name}: Expected an array, got {type(values).__name__}.") from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise InputTypeError(f"{name}: Expected real numbers, got dtype {array.dtype}.")
    return at_least_float32(array)
