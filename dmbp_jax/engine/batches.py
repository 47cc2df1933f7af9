"""Equal batches of one compiled shape: the one place that cuts rows into pieces."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


class Batch(NamedTuple):
    """Rows of one compiled shape."""

    rows: Any  # a pytree with the batch on axis 0, padded
    count: int  # how many rows are real; those beyond repeat the first
    items: Sequence[Any] = ()  # what the source said of each real row


def equal_size(count: int, largest: int) -> int:
    """The size of equal batches of at most `largest` that need the least padding."""
    return -(-count // -(-count // largest)) if count else largest


def collect_rows(items: Iterable[tuple[Any, Any]], size: int) -> Iterator[Batch]:
    """Single rows as they come, `(item, row)`, in batches of `size`."""
    items = iter(items)
    while group := list(itertools.islice(items, size)):
        filled = [row for _, row in group] + [group[0][1]] * (size - len(group))
        rows = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
        yield Batch(rows, len(group), [item for item, _ in group])


class Cut(NamedTuple):
    """How rows in memory become pieces, each with the same number of rows of every shard.

    Piece i has the rows i, i + pieces, i + 2 pieces, … of each shard, so that a device works on
    its own rows only; inside a trace, where nothing is known of devices, the rows of a piece are
    spread over all of them.
    """

    shards: int  # of axis 0, each on its own device(s)
    rows: int  # of a shard
    size: int  # rows of a piece from each shard

    @property
    def pieces(self) -> int:
        """How many there are; the last rows of a shard are repeated to fill them."""
        return -(-self.rows // self.size)

    def piece(self, rows: Any, index: Any) -> Any:
        """Piece number `index` of a pytree of arrays."""
        missing = self.size * self.pieces - self.rows

        def cut(a: jax.Array) -> jax.Array:
            own = a.reshape(self.shards, self.rows, *a.shape[1:])
            if missing:
                own = jnp.concatenate([own, jnp.repeat(own[:, -1:], missing, axis=1)], axis=1)
            own = own.reshape(self.shards, self.size, self.pieces, *a.shape[1:])
            own = jax.lax.dynamic_index_in_dim(own, index, axis=2, keepdims=False)
            return own.reshape(self.shards * self.size, *a.shape[1:])

        return jax.tree.map(cut, rows)

    def join(self, results: Any) -> Any:
        """The results of all pieces, each array (pieces, rows of a piece, …), in order of rows."""

        def joined(a: Any) -> Any:
            own = a.reshape(self.pieces, self.shards, self.size, *a.shape[2:])
            own = own.transpose(1, 2, 0, *range(3, own.ndim))
            own = own.reshape(self.shards, self.size * self.pieces, *a.shape[2:])
            return own[:, : self.rows].reshape(self.shards * self.rows, *a.shape[2:])

        return jax.tree.map(joined, results)


def count_shards(a: jax.Array) -> int:
    """Into how many parts axis 0 is cut over devices; 1 inside a trace, where it is not known."""
    if isinstance(a, jax.core.Tracer) or not isinstance(a, jax.Array):
        return 1
    return len(a) // a.sharding.shard_shape(a.shape)[0]


def batch_sharding(a: jax.Array) -> NamedSharding | None:
    """How axis 0 lies on the devices of a mesh, for any array with that axis.

    None without a mesh, or where other axes alone are cut.
    """
    found = a.sharding
    if not isinstance(found, NamedSharding) or (count_shards(a) == 1 < found.mesh.size):
        return None
    return NamedSharding(found.mesh, PartitionSpec(*found.spec[:1]))
