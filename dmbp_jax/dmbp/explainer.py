"""The paper's method for the engine: freeze at x, learn the masks, take the maps.

`attribute` hands it to the driver; a large run does the same with pictures from a disk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dmbp_jax.dmbp import loop
from dmbp_jax.dmbp.attribution import Attribution
from dmbp_jax.dmbp.carrying import carry_biases
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.decomposition import (
    bias_products,
    gated_logits,
    mask_dtype,
    masked_map,
    signed_value,
)
from dmbp_jax.dmbp.refining import refine
from dmbp_jax.dmbp.spreading import spread_biases
from dmbp_jax.errors import InputError
from dmbp_jax.graph.graph import Fixed, FrozenNetwork, Graph
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.tracing import TracedNetwork

# Per unit, in mask-sized values: θ and the optimiser's memory (2), both signs' values (2),
# cotangents in flight, gates and winners. Measured with `python -m benchmarks speed` on a CPU:
# ResNet50 5.7 at batch 1 (adjoint kernels included) and 4.6 at batch 8, VGG16 6.0 and 5.0.
_VALUES_PER_UNIT = 6


def bytes_per_image(masked: Sequence[Site]) -> int:
    """Device memory of one image in the loop, in bytes, rounded up."""
    return _VALUES_PER_UNIT * sum(4 * math.prod(site.shape) for site in masked)


class Run(NamedTuple):
    """A batch while its masks are learned."""

    images: jax.Array
    labels: jax.Array
    fixed: Fixed  # what is frozen at each image
    state: loop.State
    history: jax.Array  # (N, steps, 3)
    done: jax.Array  # steps taken by the batch


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DmbpExplainer:
    """An `engine.Explainer` of one network and one setting."""

    network: TracedNetwork
    config: DMBP = field(metadata={"static": True})
    # "drop", "spread", "refine" or "carry", as in `attribute`
    biases: str = field(metadata={"static": True}, default="drop")
    # whether the result keeps the masks
    return_masks: bool = field(metadata={"static": True}, default=False)
    # the network in `config.dtype`, for the loop alone: gates of rounded values would be those of
    # another image, and they decide the maps more than all rounding in the loop
    low: TracedNetwork | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.config.steps

    @property
    def steps_per_call(self) -> int:
        """About twenty; all of them where no such number divides them."""
        parts = [n for n in range(5, self.steps + 1) if self.steps % n == 0]
        return min(parts or [self.steps], key=lambda n: abs(n - 20))

    @property
    def bytes_per_row(self) -> int:
        """Device memory of one image in the loop."""
        program = self.network.program()
        choices = sum(  # slope and intercept
            2 * 4 * math.prod(step.shape)
            for step in program.steps
            if step.piece is not None and step.piece.masked and step.piece.has_intercept
        )
        factors = sum(4 * math.prod(s.shape) for s in program.sites if s.kind == "frozen")
        return bytes_per_image(program.masked) + choices + factors

    @property
    def identity(self) -> str | None:
        """Everything that the program depends on; None with an optimiser, a loss or a config class
        of the caller's.
        """
        networks = [self.network.identity, "" if self.low is None else self.low.identity]
        is_named = self.config.optimizer is None and isinstance(self.config.loss, str)
        if None in networks or not is_named or type(self.config) is not DMBP:
            return None
        return f"{networks} {self.config} {self.biases} {self.return_masks} {optax.__version__}"

    def start(self, rows: tuple[jax.Array, jax.Array | None]) -> Run:
        """Gates, winners, and masks at their initial value; a label of None becomes the top-1."""
        images, labels = rows
        graph = self.network.graph()
        dtype = mask_dtype(images)

        def begin(image: jax.Array) -> tuple[Fixed, loop.State]:
            return graph.freeze(image[None]).fixed, loop.start(graph, self.config, dtype)

        fixed, state = jax.vmap(begin)(images.astype(self.network.trace.image_dtype))
        if labels is None:
            labels = jnp.argmax(fixed.logits, -1).astype(jnp.int32)
        history = jnp.zeros((len(images), self.steps, 3), dtype)
        return Run(images, labels, fixed, state, history, jnp.int32(0))

    def advance(self, state: Run, steps: int) -> Run:
        """Take optimiser steps with every image."""
        run = state
        if steps == 0:
            return run
        graph = self.network.graph()
        images = run.images.astype(self.network.trace.image_dtype)
        fixed = jax.vmap(
            lambda fixed, image: self._learned(FrozenNetwork(graph, fixed), image[None]).fixed
        )(run.fixed, images)
        if self.low is not None:
            graph, fixed = self.low.graph(), self._lowered(fixed, images)
        if self.config.evidence == "input":
            graph = graph.without_biases()
        learned, terms = loop.advance(graph, fixed, run.state, run.labels, self.config, steps)
        history = jax.lax.dynamic_update_slice_in_dim(run.history, terms, run.done, axis=1)
        return run._replace(state=learned, history=history, done=run.done + steps)

    def _learned(self, whole: FrozenNetwork, x: jax.Array) -> FrozenNetwork:
        """The network whose evidence is counted: with evidence "input" without its biases."""
        return whole.without_biases(x) if self.config.evidence == "input" else whole

    def _lowered(self, fixed: Fixed, images: jax.Array) -> Fixed:
        """What is frozen, in the precision of the loop; F(x) and F_0 stay as they are."""
        assert self.low is not None
        low = self.low.graph()
        image = jax.ShapeDtypeStruct((1, *images.shape[1:]), self.low.trace.image_dtype)
        wanted = jax.eval_shape(lambda x: low.freeze(x).fixed, image)
        found = jax.tree.map(lambda a: a.shape[1:], fixed)  # without the batch
        if found != jax.tree.map(lambda a: a.shape, wanted):
            raise InputError(
                f"dtype: Expected a network with the same activations in {self.config.dtype}, "
                "got one that chooses them by the dtype of its input."
            )
        cast = jax.tree.map(lambda a, like: a.astype(like.dtype), fixed, wanted)
        return cast._replace(logits=fixed.logits, output_bias=fixed.output_bias)

    def finish(self, state: Run) -> Attribution:
        """Maps and terms of the learned masks."""
        finish = partial(self._finish, self.network.graph())
        in_axes = Run._make([0] * 5 + [None])  # the steps taken are those of the batch
        return jax.vmap(finish, in_axes=(in_axes,))(state)

    def _finish(self, graph: Graph, run: Run) -> Attribution:
        """The result of one image."""
        label, theta = run.labels, run.state.theta
        dtype = mask_dtype(run.images)
        x = run.images.astype(self.network.trace.image_dtype)[None]
        whole = FrozenNetwork(graph, run.fixed)
        learned = self._learned(whole, x)
        sigma = tuple(map(jax.nn.sigmoid, theta))

        def signed(sign: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            """y± with biases, Σ map and the map of one sign."""
            if self.biases == "drop":
                # The value by the forward form: with the gradients to the biases, which no map of
                # the pixels needs, this program would take twice as long to compile.
                divisors = loop.divisors(theta, sign)
                total = loop.signed_part(whole, gated_logits(whole, divisors)[0], label)
                image_map = masked_map(whole, x, divisors, label)
                return total, image_map.sum().astype(dtype), image_map
            found = bias_products(whole, x, loop.signed_masks(sigma, sign), label)
            total = signed_value(whole, found, label)
            image_map, products = found
            outside = whole.output_products(x, label)
            inside = [part - out for part, out in zip(products, outside, strict=True)]
            if self.biases == "carry":
                complete = carry_biases(whole, x, image_map, inside, total)
            else:
                complete = spread_biases(image_map, inside, graph.biases, total)
            return total, image_map.sum().astype(dtype), complete

        totals, sums, maps = jax.vmap(signed)(jnp.array([1.0, -1.0], dtype))
        if self.biases == "refine":
            maps = refine(graph, x[0], label, maps[:, 0], totals)[:, None]
        positive, negative = maps[:, 0].astype(dtype)
        y = loop.signed_part(whole, whole.fixed.logits, label)
        counted = loop.signed_part(learned, learned.fixed.logits, label)
        y_positive, y_negative = sums if self.config.evidence == "input" else totals
        finite = jnp.isfinite(jnp.stack([y, *totals, *sums])).all()
        finite &= jnp.isfinite(positive).all() & jnp.isfinite(negative).all()
        masks = None
        if self.return_masks:
            pairs = zip(graph.masked, sigma, strict=True)
            masks = tuple(site.to_mask(mask) for site, mask in pairs)
        return Attribution(
            positive=positive,
            negative=negative,
            y=y,
            y_positive=y_positive,
            y_negative=y_negative,
            y_nuisance=counted - y_positive - y_negative,
            y_bias=y - counted,
            carried=carried_share(sums, totals),
            label=label.astype(jnp.int32),
            history=run.history,
            status=finite,
            logits=whole.fixed.logits.astype(y.dtype),
            masks=masks,
            frozen=self.network.program().frozen,
        )


def carried_share(sums: jax.Array, totals: jax.Array) -> jax.Array:
    """|Σ map| / (|Σ map| + |biases' part|) of each sign, in [0, 1]; 1 where both are 0."""
    by_pixels, by_biases = jnp.abs(sums), jnp.abs(totals - sums)
    whole = by_pixels + by_biases
    return jnp.where(whole == 0, 1, by_pixels / jnp.where(whole == 0, 1, whole))
