"""One calling convention for all compared methods: check, trace, label, explain, un-batch.

A method writes its equation for one image, as a module-level function, and hands it to
`each_image` (one evaluation per image) or `engine.sampling.sum_samples` (a sum over many).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jax.typing import ArrayLike

from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.mapping import BatchFunction
from dmbp_jax.engine.scores import target_labels
from dmbp_jax.graph.call import Call, check_call
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.tracing import TracedNetwork


def check_method_call(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    apply_fn: ApplyFn | None,
    chunk_size: int | None,
    **linearisation: Any,
) -> Call:
    """Check what every method takes; a label of None becomes the network's top-1 per image.

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
      linearisation: `nonaffine`, `pointwise` and `segments`, of methods that look into the network.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
    """
    call = check_call(params, x, label, apply_fn, chunk_size, **linearisation)
    return replace(call, labels=target_labels(call))


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
