"""Random keys that callers hand in, checked and of one kind, whose numbers no batching changes.

JAX's "rbg" and "unsafe_rbg" draw other numbers inside `jax.vmap` than outside: a sample of an image
would depend on how many are made at once. Threefry does not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import InputError, InputTypeError

THREEFRY = "threefry2x32"


def check_key(key: Any, batch: int | None = None) -> jax.Array:
    """One Threefry key, or `batch` of them; None is `jax.random.key(0)`.

    A Threefry key stays what it is. One of another kind becomes the key of its first two words,
    with each further word folded in.

    Args:
      key: a random key or several, new-style or old-style (uint32 `PRNGKey`s), of any kind.
      batch: how many there may be; None wants one.
    """
    if key is None:
        return jax.random.key(0, impl=THREEFRY)
    dtype, shape = getattr(key, "dtype", None), np.shape(key)
    if dtype is not None and dtype == np.uint32 and shape[-1:] in ((2,), (4,)):
        words = jnp.asarray(key)
    elif dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        words = jax.random.key_data(key)
    else:
        raise InputTypeError(
            "key: Expected a random key such as jax.random.key(0), "
            f"got {type(key).__name__} {key!r}."
        )
    shape = words.shape[:-1]
    if shape != () and (batch is None or shape != (batch,)):
        several = "" if batch is None else f" or {batch}, one for each image"
        raise InputError(f"key: Expected one random key{several}, got keys of shape {shape}.")
    return _of_words(words) if shape == () else jax.vmap(_of_words)(words)


def _of_words(words: jax.Array) -> jax.Array:
    key = jax.random.wrap_key_data(jnp.resize(words[:2], (2,)), impl=THREEFRY)
    for word in words[2:]:
        key = jax.random.fold_in(key, word)
    return key
