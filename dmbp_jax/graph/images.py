"""Images that a caller hands in, checked in plain Python before any tracing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.model import is_traced, plain_array


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
    if not isinstance(x, jax.Array):
        x = plain_array(x, name)
    dtype, shape = x.dtype, np.shape(x)
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
        with jax.ensure_compile_time_eval():  # of an array that a jitted function captured
            finite = is_traced(x) or bool(jax.device_get(_all_finite(x)))
    else:  # in NumPy: every operation of JAX would be a program to compile
        with np.errstate(over="ignore"):
            x = x.astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)
        finite = bool(np.isfinite(x).all())
    if not finite:
        x = jax.device_get(x)
        bad = np.argwhere(~np.isfinite(x.astype(np.float32)))[0]
        raise InputError(
            f"{name}: Expected finite values, got {x[tuple(bad)]} "
            f"at index {tuple(int(i) for i in bad)}."
        )
    return Images(jnp.asarray(x[None] if single else x), single)


@jax.jit
def _all_finite(x: jax.Array) -> jax.Array:
    return jnp.isfinite(x).all()
