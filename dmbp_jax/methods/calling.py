"""One calling convention for all compared methods: check, trace, label, explain, un-batch.

A method is written as `explain(call, **options)` of a checked call. Its equation for one image goes
to `engine.mapping.each_image` (one evaluation) or `engine.sampling.sum_samples` (a sum over many).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Protocol

import jax
from jax.typing import ArrayLike

from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.engine.scores import target_labels
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.tracing import TracedNetwork


class MethodFunction(Protocol):
    """What `method` makes; `inspect.signature` and `help` show the options of each."""

    __name__: str

    def __call__(
        self,
        params: Any,
        x: ArrayLike,
        label: ArrayLike | None = None,
        *,
        apply_fn: ApplyFn | None = None,
        key: Any = None,
        chunk_size: int | None = None,
        **options: Any,
    ) -> Any: ...


_SHARED = ("params", "x", "label", "apply_fn", "key", "chunk_size")


def method(*linearised: str) -> Callable[[Callable[..., Any]], MethodFunction]:
    """From `function(call, **options)` to a `MethodFunction`, which checks, labels and un-batches.

    Args:
      linearised: of "nonaffine", "pointwise" and "segments" the options that it takes too: they say
        how the network becomes affine, and are read before it is called.
    """

    def decorate(function: Callable[..., Any]) -> MethodFunction:
        own, known = signature(function), signature(Linearisation).parameters
        _, *options, _ = signature(MethodFunction.__call__).parameters.values()  # self, **options
        options += [*own.parameters.values()][1:]
        options += [known[name].replace(kind=Parameter.KEYWORD_ONLY) for name in linearised]
        whole = own.replace(parameters=options)

        @wraps(function)
        def public(*args: Any, **kwargs: Any) -> Any:
            try:
                given = whole.bind(*args, **kwargs)
            except TypeError as error:  # as of any function
                raise TypeError(f"{function.__name__}() {error}") from None
            given.apply_defaults()
            values = given.arguments
            params, x, label, apply_fn, key, chunk_size = map(values.pop, _SHARED)
            slopes = {name: values.pop(name) for name in linearised}
            call = check_call(params, x, label, apply_fn, chunk_size, **slopes)
            call = replace(call, labels=target_labels(call), key=key)
            return call.unbatch(function(call, **values))

        public.__signature__ = whole  # type: ignore[attr-defined]
        return on_any_mesh("x")(public)

    return decorate


def logit(network: TracedNetwork, image: jax.Array, label: jax.Array) -> jax.Array:
    """F_c(x): the logit of `label` for one image (H, W, C)."""
    return network.logits(image)[label]
