"""What is timed of JAX: the compiled loop of DMBP, and the passes that bound it from below.

Every class compiles when it is made, keeps its arrays on the device, and runs when it is called.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

import dmbp_jax
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine.compiling import compiled
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.tracing import TracedNetwork


class Loop:
    """`steps` optimiser steps of DMBP a call, as `dmbp_jax.attribute` takes them.

    The state is donated: one copy of the masks and the optimiser's memory lives on the device.
    """

    def __init__(
        self,
        network: dmbp_jax.Network,
        x: jax.Array,
        labels: jax.Array,
        config: dmbp_jax.DMBP,
        steps: int,
    ) -> None:
        call = check_call(network, x, labels, dtype=config.dtype, precision=config.precision)
        self._explainer = DmbpExplainer(call.network, replace(config, steps=steps), low=call.low)
        self._rows = (call.images, call.labels)
        self._start = compiled(DmbpExplainer.start)
        self._run = self._start(self._explainer, self._rows)
        options = {"static_argnames": "steps", "donate_argnames": "state"}
        advance = compiled(DmbpExplainer.advance, **options)
        self._compiled = advance.lower(self._explainer, self._run, steps=steps).compile()

    def terms(self) -> jax.Array:
        """(N, steps, 3): y⁺, y⁻ and ỹ of the first steps, from a fresh start."""
        self._run = self._start(self._explainer, self._rows)
        return self()

    def __call__(self) -> jax.Array:
        """Go on from where the last call stopped; (N, steps, 3)."""
        self._run = self._compiled(self._explainer, self._run)
        history = self._run.history
        # The next call writes into the same places.
        self._run = self._run._replace(history=history + 0, done=jnp.zeros_like(self._run.done))
        return history

    def text(self) -> str:
        """The program that XLA compiled."""
        return self._compiled.as_text()

    def memory(self) -> dict[str, int]:
        """Bytes that XLA plans for a call: weights, other arguments and outputs, scratch."""
        memory = self._compiled.memory_analysis()
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(self._explainer))
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes
        return {
            "weights": weights,
            "state": held - memory.alias_size_in_bytes - weights,
            "scratch": memory.temp_size_in_bytes,
        }


class Forward:
    """`repeats` plain forward passes a call, compiled like any network: no masks, no freezing.

    With the options of the loop's program, or with `options=None` as `jax.jit` does by default.
    """

    def __init__(
        self,
        network: dmbp_jax.Network,
        x: jax.Array,
        config: dmbp_jax.DMBP,
        repeats: int,
        options: dict[str, str] | None,
    ) -> None:
        self._arguments = _cast((network, x), config)
        self._repeats = repeats
        with jax.default_matmul_precision(config.precision):
            function = jax.jit(lambda network, x: network(x), compiler_options=options)
            self._compiled = function.lower(*self._arguments).compile()

    def __call__(self) -> jax.Array:
        """Logits of the last pass."""
        results = [self._compiled(*self._arguments) for _ in range(self._repeats)]
        return jax.block_until_ready(results)[-1]


class Convolutions:
    """The three passes of `steps` steps with nothing but their linear part.

    ReLUs pass everything, max-pools take a fixed corner, and no mask is made, multiplied or
    updated; what is left is convolutions, dense layers, biases and residual additions.
    """

    def __init__(
        self, network: dmbp_jax.Network, x: jax.Array, config: dmbp_jax.DMBP, steps: int
    ) -> None:
        call = check_call(network, x, dtype=config.dtype, precision=config.precision)
        x = x.astype(config.dtype) if config.dtype else x
        with jax.default_matmul_precision(config.precision):
            passes = call.low or call.network
            self._arguments = (passes, x, _before_pieces(passes, x))
            looped = compiled(_linear_loop, static_argnums=3)
            self._compiled = looped.lower(*self._arguments, steps).compile()
            once = jax.jit(_linear_passes).lower(*self._arguments, jnp.zeros((), jnp.float32))
        costs = once.cost_analysis()
        self.flops = float((costs[0] if isinstance(costs, list) else costs)["flops"])

    def __call__(self) -> jax.Array:
        """A number that depends on every pass."""
        return self._compiled(*self._arguments)


@jax.jit
def _before_pieces(network: TracedNetwork, x: jax.Array) -> Any:
    graph = network.graph()
    return jax.vmap(lambda image: graph.before_pieces(image[None]))(x)


def _linear_loop(network: TracedNetwork, x: jax.Array, first: Any, steps: int) -> jax.Array:
    def body(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
        return _linear_passes(network, x, first, carry), None

    return jax.lax.scan(body, jnp.zeros((), jnp.float32), None, length=steps)[0]


def _linear_passes(
    network: TracedNetwork, x: jax.Array, first: Any, previous: jax.Array
) -> jax.Array:
    """Two forwards and one backward of the linear part; `previous` chains the steps of a loop."""
    graph = network.graph()

    def first_winner(index: int, piece: Any, z: jax.Array) -> jax.Array:
        return z if piece.masked else piece.apply(jnp.zeros_like(piece.choose(z)), z)

    rules = Rules(first_winner)
    # A value too small to matter, but one that the compiler cannot know: nothing can be moved out
    # of the loop, and the two forwards differ. Cotangents differ by image for the same reason.
    nudge = (1e-30 * previous).astype(x.dtype)
    scales = x[:, 0, 0, 0] + nudge

    def linear(boundary: Any) -> jax.Array:
        return graph.run_from(boundary, rules)[0]

    def pull(boundary: Any, scale: jax.Array) -> Any:
        logits, pull_back = jax.vjp(linear, boundary)
        return pull_back(jnp.full_like(logits, scale))

    both = jax.tree.map(lambda a: jnp.concatenate([a + nudge, nudge - a]), first)
    results = (jax.vmap(linear)(both), jax.vmap(pull)(first, scales))
    return sum(
        (leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(results)),
        start=jnp.zeros((), jnp.float32),
    )


def _cast(arguments: Any, config: dmbp_jax.DMBP) -> Any:
    if config.dtype is None:
        return arguments
    return jax.tree.map(lambda a: a.astype(config.dtype), arguments)
