"""One calling convention for all compared methods: check, trace, label, explain, un-batch.

A method writes its equation for one image, as a module-level function, and hands it to
`each_image` (one evaluation per image) or `sum_samples` (a sum over many evaluations).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.mapping import BatchFunction, SampleSum
from dmbp_jax.engine.memory import fitting_rows
from dmbp_jax.engine.scores import with_labels
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.call import Call, check_call
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.tracing import TracedNetwork


def check_method_call(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    apply_fn: ApplyFn | None,
    chunk_size: int | None,
) -> Call:
    """Check what every method takes; a label of None becomes the network's top-1 per image.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
    """
    return with_labels(check_call(params, x, label, apply_fn, chunk_size))


def logit(network: TracedNetwork, image: jax.Array, label: jax.Array) -> jax.Array:
    """F_c(x): the logit of `label` for one image (H, W, C)."""
    return network.logits(image)[label]


def each_image(rule: Callable[..., Any], call: Call, *rows: jax.Array, **options: Any) -> Any:
    """`rule(network, image, label, *row, **options)` for every image, `chunk_size` at once.

    `rule` is a module-level function and `options` are hashable, so that equal calls compile
    once; `rows` are further arrays with a leading axis N.
    """
    static = (("rule", rule), *sorted(options.items()))
    explainer = BatchFunction(call.network, _each_image, static, call.network.trace.bytes_per_image)
    return explain(explainer, (call.images, call.labels, *rows), chunk_size=call.chunk_size)


def _each_image(network: TracedNetwork, rows: Any, *, rule: Callable[..., Any], **options: Any):
    return jax.vmap(lambda *row: rule(network, *row, **options))(*rows)


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
    batch, each = len(call.images), call.network.trace.bytes_per_image
    at_once = call.chunk_size or fitting_rows(batch * count, each, call.images)
    images = min(batch, at_once)
    chunks = -(-count // max(1, at_once // images))
    samples = -(-count // chunks)
    static = tuple(sorted(options.items()))
    explainer = SampleSum(call.network, sample, count, samples, static, each * samples)
    title = sample.__name__.strip("_") if progress else None
    return explain(explainer, (call.images, call.labels, *rows), chunk_size=images, progress=title)


def check_key(key: Any) -> jax.Array:
    """A JAX random key; None is `jax.random.key(0)`. Old-style `PRNGKey` arrays are accepted.

    Raises:
      InputTypeError: not a random key.
      InputError: more than one key.
    """
    if key is None:
        return jax.random.key(0)
    dtype, shape = getattr(key, "dtype", None), np.shape(key)
    if dtype is not None and dtype == np.uint32 and shape == (2,):
        return jax.random.wrap_key_data(key)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise InputTypeError(
            "key: Expected a random key such as jax.random.key(0), "
            f"got {type(key).__name__} {key!r}."
        )
    if shape != ():
        raise InputError(f"key: Expected one random key, got an array of keys of shape {shape}.")
    return key


def image_keys(key: Any, batch: int) -> jax.Array:
    """(N,) keys: image i of the batch uses `fold_in(key, i)`."""
    return jax.vmap(partial(jax.random.fold_in, check_key(key)))(jnp.arange(batch))
