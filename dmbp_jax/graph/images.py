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
    single = len(shape) == 3
    if isinstance(x, jax.Array):
        finite = is_traced(x) or bool(_all_finite(x))
    else:  # in NumPy: every operation of JAX would be a program to compile
        with np.errstate(over="ignore"):
            x = np.asarray(x).astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)
        finite = bool(np.isfinite(x).all())
    if not finite:
        bad = np.argwhere(~np.isfinite(np.asarray(x, np.float32)))[0]
        raise InputError(
            f"{name}: Expected finite values, got {np.asarray(x)[tuple(bad)]} "
            f"at index {tuple(int(i) for i in bad)}."
        )
    return Images(jnp.asarray(x[None] if single else x), single)


@jax.jit
def _all_finite(x: jax.Array) -> jax.Array:
    return jnp.isfinite(x).all()
