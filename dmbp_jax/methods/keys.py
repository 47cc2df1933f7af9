"""Random keys of SmoothGrad and RISE: one for the call, or one for each image.

`image_key` makes the key of an image from its name or its bytes, whatever batch it comes in.
"""

from functools import partial
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.engine.keys import THREEFRY, check_key


def image_key(seed: int, identity: str | bytes) -> jax.Array:
    """A random key that depends on `seed` and on the image, not on its place in a batch.

        key = fold_in(key(seed), first 32 bits of SHA-256(identity)), a Threefry key

    Args:
      seed: as of `jax.random.key`.
      identity: what tells the image apart: a name, or its content (`x.tobytes()`, or the bytes
        of its file). A name is encoded as UTF-8.

    Returns:
      One random key. Two different identities share a key with probability 2⁻³².

    Example:
      >>> import jax.numpy as jnp
      >>> from dmbp_jax.methods.keys import image_key
      >>> keys = jnp.stack([image_key(0, name) for name in ("dog.jpg", "cat.jpg")])
      >>> keys.shape, bool(keys[1] == image_key(0, "cat.jpg"))
      ((2,), True)
    """
    content = identity.encode(errors="surrogateescape") if isinstance(identity, str) else identity
    return jax.random.fold_in(
        jax.random.key(seed, impl=THREEFRY), int.from_bytes(sha256(content).digest()[:4], "little")
    )


def image_keys(key: Any, batch: int) -> jax.Array:
    """(N,) keys of samples that differ between images.

    Image i uses `fold_in(key, i)`. Of N given keys it uses `fold_in(key[i], 0)`: what it uses
    when it is explained alone with `key[i]`.
    """
    checked = check_key(key, batch)
    if checked.shape:
        return jax.vmap(lambda one: jax.random.fold_in(one, 0))(checked)
    return jax.vmap(partial(jax.random.fold_in, checked))(jnp.arange(batch))


def shared_keys(key: Any, batch: int) -> jax.Array:
    """(N,) keys of samples that are the same for all images: N times `key`, or N given keys."""
    return jnp.broadcast_to(check_key(key, batch), (batch,))
