"""DMBP itself under the convention of the compared methods."""

from typing import Any

import jax
from jax.typing import ArrayLike

from dmbp_jax.dmbp.attribute import attribute
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.graph.model import ApplyFn


def dmbp(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    config: DMBP = DMBP(),  # noqa: B008 (frozen)
    progress: bool = False,
    nonaffine: str = "refuse",
    biases: str = "drop",
) -> jax.Array:
    """`dmbp_jax.attribute(...).map`: positive and negative part added.

    Args:
      params, x, label, apply_fn, chunk_size, config, progress, nonaffine, biases: as in
        `dmbp_jax.attribute`.
      key: not used.

    Returns:
      Signed map, shape of x.

    Raises:
      The errors of `dmbp_jax.attribute`.

    Example:
      >>> import jax.numpy as jnp
      >>> from dmbp_jax.methods import dmbp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> dmbp(jnp.eye(3), jnp.ones((8, 8, 3)), 0, apply_fn=network).shape
      (8, 8, 3)
    """
    result = attribute(
        params,
        x,
        label,
        apply_fn=apply_fn,
        config=config,
        chunk_size=chunk_size,
        progress=progress,
        nonaffine=nonaffine,
        biases=biases,
    )
    return result.map
