"""Large batches in equal pieces: the last piece is padded, so that one compilation serves all."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.errors import DeviceMemoryError
from dmbp_jax.graph.model import is_traced


def in_chunks(
    function: Callable[..., Any], arguments: tuple[Any, ...], batch: int, chunk_size: int
) -> Any:
    """Apply a batched function to pieces of at most `chunk_size` and concatenate the results.

    Args:
      function: maps batched arguments to a pytree of batched arrays (axis 0).
      arguments: pytrees with the batch on axis 0 (None passes through).
      batch: length of that axis.
      chunk_size: at least 1; a batch that fits is passed whole.

    Raises:
      DeviceMemoryError: the device ran out of memory.
    """
    if chunk_size >= batch:
        return guarded(function, arguments, chunk_size)
    if is_traced(arguments):
        pieces = -(-batch // chunk_size)
        folded = jax.tree.map(
            lambda a: _pad(a, pieces * chunk_size).reshape(pieces, chunk_size, *a.shape[1:]),
            arguments,
        )
        results = jax.lax.map(lambda piece: function(*piece), folded)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:batch], results)
    results = []
    for first in range(0, batch, chunk_size):
        piece = jax.tree.map(lambda a, i=first: _pad(a[i : i + chunk_size], chunk_size), arguments)
        count = min(chunk_size, batch - first)
        result = guarded(function, piece, chunk_size)
        results.append(jax.tree.map(lambda a, n=count: a[:n], result))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)


def _pad(a: jax.Array, length: int) -> jax.Array:
    """Repeat the first row up to `length` rows: ordinary numbers, thrown away later."""
    missing = length - a.shape[0]
    return jnp.concatenate([a, jnp.repeat(a[:1], missing, axis=0)]) if missing else a


def guarded(function: Callable[..., Any], arguments: tuple[Any, ...], chunk_size: int) -> Any:
    """Call and wait; out of memory becomes a `DeviceMemoryError` that names `chunk_size`."""
    try:
        result = function(*arguments)
        return result if is_traced(result) else jax.block_until_ready(result)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DeviceMemoryError(
            f"The device ran out of memory with chunk_size={chunk_size}; "
            f"pass a smaller one, for instance chunk_size={max(1, chunk_size // 2)}."
        ) from error
