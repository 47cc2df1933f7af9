"""Sums over many evaluations of each image: samples, points of a path or a curve, masks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmbp_jax.engine.batches import count_shards, equal_size
from dmbp_jax.engine.content import ByContent
from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.memory import rows_at_once
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.tracing import TracedNetwork


def sum_samples(
    sample: Callable[..., jax.Array],
    call: Call,
    count: int,
    *rows: jax.Array,
    title: str | None = None,
) -> jax.Array:
    """Σᵢ `sample(network, image, label, i, *row)`, i = 0 … count − 1, for every image.

    `chunk_size` evaluations (images times samples) are made at once and only sums are kept, so
    memory does not grow with `count` or with the batch; None is as many as fit.

    Args:
      sample: what it captures are numbers and names, so that equal calls compile once.
      call: the label is None where its caller named none.
      count: number of samples.
      rows: further arrays with a leading axis N.
      title: of a progress bar, or None.
    """
    shards, each = count_shards(call.images), call.network.trace.bytes_per_image
    own = len(call.images) // shards
    at_once = rows_at_once(own * count, call.chunk_size, each, call.images)
    images = min(own, at_once)
    samples = equal_size(count, min(count, at_once // images))
    explainer = SampleSum(call.network, ByContent(sample), count, samples)
    every = (call.images, call.labels, *rows)
    return explain(explainer, every, chunk_size=images * shards, progress=title)


class Sums(NamedTuple):
    """The sum over the samples of so many chunks."""

    rows: Any
    total: Any
    chunk: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SampleSum:
    """Σᵢ `sample(network, image, label, i, *rest)`, i = 0 … count − 1, for every row.

    A step adds one chunk of samples and is one compiled call: on CPUs JAX's input gradient of a
    convolution is about four times slower inside a compiled loop (why: `graph/convolution.py`).
    Forward passes are not slower.
    """

    network: TracedNetwork
    sample: ByContent = field(metadata={"static": True})
    count: int = field(metadata={"static": True})
    chunk: int = field(metadata={"static": True})  # samples at once

    steps_per_call = 1

    @property
    def steps(self) -> int:
        """Number of chunks."""
        return -(-self.count // self.chunk)

    @property
    def bytes_per_row(self) -> int:
        """A row is evaluated for a chunk of samples at once."""
        return self.network.trace.bytes_per_image * self.chunk

    def start(self, rows: Any) -> Sums:
        """Sums of nothing."""
        shape = jax.eval_shape(self._sum, rows, jnp.int32(0))
        return Sums(rows, jnp.zeros(shape.shape, shape.dtype), jnp.int32(0))

    def advance(self, state: Sums, steps: int) -> Sums:
        """Add chunks."""

        def add(_: Any, state: Sums) -> Sums:
            rows, total, chunk = state
            return Sums(rows, total + self._sum(rows, chunk), chunk + 1)

        return add(0, state) if steps == 1 else jax.lax.fori_loop(0, steps, add, state)

    def finish(self, state: Sums) -> Any:
        """The sums."""
        return state.total

    def _sum(self, rows: Any, chunk: jax.Array) -> jax.Array:
        index = chunk * self.chunk + jnp.arange(self.chunk, dtype=chunk.dtype)

        def one_row(image: jax.Array, label: jax.Array, *rest: jax.Array) -> jax.Array:
            parts = jax.vmap(lambda i: self.sample(self.network, image, label, i, *rest))(index)
            inside = (index < self.count).reshape(-1, *[1] * (parts.ndim - 1))
            return jnp.where(inside, parts, 0).sum(0)

        return jax.vmap(one_row)(*rows)
