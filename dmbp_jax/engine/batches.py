"""Equal padded batches: the one place that cuts rows into pieces of one compiled shape."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Batch(NamedTuple):
    """Rows of one compiled shape.

    Attributes:
      rows: a pytree with the batch on axis 0, padded.
      count: how many rows are real; those beyond repeat the first.
      items: what the source said of each real row.
    """

    rows: Any
    count: int
    items: Sequence[Any] = ()


def equal_size(count: int, largest: int) -> int:
    """The size of equal batches of at most `largest` that need the least padding."""
    return -(-count // -(-count // largest)) if count else largest


def slice_rows(rows: Any, count: int, size: int) -> Iterator[Batch]:
    """The rows of arrays in batches of `size`."""
    for first in range(0, count, size):
        piece = jax.tree.map(lambda a, i=first: pad(a[i : i + size], size), rows)
        yield Batch(piece, min(size, count - first))


def collect_rows(items: Iterable[tuple[Any, Any]], size: int) -> Iterator[Batch]:
    """Single rows as they come, `(item, row)`, in batches of `size`."""
    items = iter(items)
    while group := list(itertools.islice(items, size)):
        filled = [row for _, row in group] + [group[0][1]] * (size - len(group))
        rows = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
        yield Batch(rows, len(group), [item for item, _ in group])


def fold(rows: Any, count: int, size: int) -> Any:
    """The rows as (batches, size, …), for a loop inside a trace."""
    batches = -(-count // size)
    return jax.tree.map(lambda a: pad(a, batches * size).reshape(batches, size, *a.shape[1:]), rows)


def pad(a: jax.Array, length: int) -> jax.Array:
    """Repeat the first row up to `length` rows: ordinary numbers, thrown away later."""
    missing = length - a.shape[0]
    return jnp.concatenate([a, jnp.repeat(a[:1], missing, axis=0)]) if missing else a
