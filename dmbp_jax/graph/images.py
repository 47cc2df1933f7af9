"""Images that a caller hands in, checked in plain Python before any tracing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.model import is_traced


class Images(NamedTuple):
    """Checked images: `x` is always (N, H, W, C); `single` says that the N was added here."""

    x: jax.Array
    single: bool


def check_images(x: ArrayLike, name: str = "x") -> Images:
    """Check (H, W, C) or (N, H, W, C) floating-point images and add the batch axis.

    Raises:
      InputTypeError: not an array, or not a floating-point dtype.
      InputError: wrong rank, an empty axis, or a value that is not finite.
    """
    if isinstance(x, (str, bytes)) or not hasattr(x, "dtype"):
        try:
            x = np.asarray(x)
        except Exception as error:
            raise InputTypeError(f"{name}: Expected an array, got {type(x).__name__}.") from error
    dtype, shape = x.dtype, np.shape(x)  # pyrefly: ignore[missing-attribute]
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputTypeError(
            f"{name}: Expected a floating-point dtype (a preprocessed image), got {dtype}. "
            "Preprocess it first, for instance with net.preprocess(...)."
        )
    if len(shape) not in (3, 4):
        raise InputError(f"{name}: Expected shape (H, W, C) or (N, H, W, C), got {shape}.")
    if len(shape) == 4 and shape[0] == 0:
        raise InputError(f"{name}: Expected at least one image, got an empty batch {shape}.")
    if 0 in shape:
        raise InputError(f"{name}: Expected no empty axis, got shape {shape}.")
    x = jnp.asarray(x)
    if not is_traced(x) and not bool(jnp.isfinite(x).all()):
        bad = np.argwhere(~np.isfinite(np.asarray(x, np.float32)))[0]
        raise InputError(
            f"{name}: Expected finite values, got {np.asarray(x)[tuple(bad)]} "
            f"at index {tuple(int(i) for i in bad)}."
        )
    single = len(shape) == 3
    return Images(x[None] if single else x, single)
