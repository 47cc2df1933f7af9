"""Sums over many evaluations of each image: samples, points of a path or a curve, masks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmbp_jax.engine.batches import count_shards, equal_size
from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.mapping import Options
from dmbp_jax.engine.memory import rows_at_once
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.tracing import TracedNetwork


def sum_samples(
    sample: Callable[..., jax.Array],
    call: Call,
    count: int,
    *rows: jax.Array,
    progress: bool = False,
    **options: Any,
) -> jax.Array:
    """Σᵢ `sample(network, image, label, i, *row, **options)`, i = 0 … count − 1, for every image.

    `chunk_size` evaluations (images times samples) are made at once and only sums are kept, so
    memory does not grow with `count` or with the batch; None is as many as fit.
    """
    shards, each = count_shards(call.images), call.network.trace.bytes_per_image
    own = len(call.images) // shards
    at_once = rows_at_once(own * count, call.chunk_size, each, call.images)
    images = min(own, at_once)
    samples = equal_size(count, min(count, at_once // images))
    static = tuple(sorted(options.items()))
    explainer = SampleSum(call.network, sample, count, samples, static, each * samples)
    title = sample.__name__.strip("_") if progress else None
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
    """Σᵢ `sample(network, image, label, i, *rest, **options)`, i = 0 … count − 1, for every row.

    Rows are (images, labels, rest...). Only sums are kept, so memory does not grow with `count`.

    A step adds one chunk of samples and is one compiled call: on CPUs XLA runs the input gradient
    of a convolution about four times slower inside a compiled loop. JAX writes it with the kernel
    flipped and its features swapped, and inside a loop XLA misses its fast kernel for that layout.
    Forward passes are not slower, nor are gradients whose kernels were prepared outside the loop,
    as `graph/convolution.py` does for the loop of DMBP.
    """

    network: TracedNetwork
    sample: Callable[..., jax.Array] = field(metadata={"static": True})
    count: int = field(metadata={"static": True})
    chunk: int = field(metadata={"static": True})  # samples at once
    options: Options = field(metadata={"static": True})
    bytes_per_row: int = field(metadata={"static": True})

    @property
    def steps(self) -> int:
        """Number of chunks."""
        return -(-self.count // self.chunk)

    @property
    def steps_per_call(self) -> int:
        """One chunk a call."""
        return 1

    def start(self, rows: Any) -> Sums:
        """Sums of nothing."""
        shape = jax.eval_shape(self._sum, rows, jnp.int32(0))
        return Sums(rows, jnp.zeros(shape.shape, shape.dtype), jnp.int32(0))

    def advance(self, state: Sums, steps: int) -> Sums:
        """Add chunks."""

        def add(state: Sums, _: None) -> tuple[Sums, None]:
            total = state.total + self._sum(state.rows, state.chunk)
            return Sums(state.rows, total, state.chunk + 1), None

        if steps == 1:
            return add(state, None)[0]
        return jax.lax.scan(add, state, None, length=steps)[0]

    def finish(self, state: Sums) -> Any:
        """The sums."""
        return state.total

    def _sum(self, rows: Any, chunk: jax.Array) -> jax.Array:
        index = chunk * self.chunk + jnp.arange(self.chunk)

        def one_row(image: jax.Array, label: jax.Array, *rest: jax.Array) -> jax.Array:
            def one_sample(i: jax.Array) -> jax.Array:
                options = dict(self.options)
                return self.sample(self.network, image, label, i, *rest, **options)

            parts = jax.vmap(one_sample)(index)
            inside = (index < self.count).reshape(-1, *[1] * (parts.ndim - 1))
            return jnp.where(inside, parts, 0).sum(0)

        return jax.vmap(one_row)(*rows)
