"""The call of the project: network and image in, signed attribution maps out (paper Sec. 3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.dmbp import loop
from dmbp_jax.dmbp.attribution import Attribution
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.decompose import drop_leading_one
from dmbp_jax.dmbp.decomposition import Frozen, gated_logits, mask_dtype, masked_map
from dmbp_jax.engine.driver import explain
from dmbp_jax.errors import InputTypeError
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.graph import Graph
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.tracing import TracedNetwork


def attribute(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    config: DMBP = DMBP(),  # noqa: B008 (frozen)
    chunk_size: int | None = None,
    progress: bool = False,
    return_masks: bool = False,
) -> Attribution:
    """Attribute a network's logit to the pixels of its input, for and against (DMBP).

    Learns a mask σ_l ∈ [0, 1] on every ReLU so that y = y⁺ + y⁻ + ỹ with y⁺ large, y⁻ small and
    ỹ near 0 (Eq. 9, 10); the maps are ∇ₓF_σ ⊙ x and ∇ₓF_{1−σ} ⊙ x.

    Args:
      params: with `apply_fn`, any pytree and the network is `apply_fn(params, x) -> logits`;
        without it, a callable pytree (a `dmbp_jax.Network`, an NNX or Equinox module).
      x: (H, W, C) or (N, H, W, C) preprocessed images, floating point, finite.
      label: int, (N,) ints, or None for the network's top-1 of each image.
      apply_fn: maps (params, (N, H, W, C)) to logits (N, classes) with affine operations, ReLUs
        and max-pools only. A function that lives on (not a new lambda each call) compiles once.
      config: see `DMBP`.
      chunk_size: images optimised at once; None chooses from the memory that is free. Never
        changes the result of an image.
      progress: show a progress bar over the steps; ignored inside `jit` and `vmap`.
      return_masks: keep the learned masks (37 MiB an image for ResNet50).

    Returns:
      An `Attribution`; for a single image the leading N is absent everywhere. An image whose
      numbers overflow has `status` False; nothing is raised for it.

    Raises:
      InputTypeError: x is not floating point, label not integer, params not callable.
      InputError: wrong rank or channel count, empty batch, non-finite x, label out of range or of
        the wrong length, chunk_size below 1.
      NoReluError, ControlFlowError, NonAffineError: the network is not supported; the message
        names the operation and its scope.
      DeviceMemoryError: the device ran out of memory.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> att = dmbp_jax.attribute(jnp.eye(3), jnp.ones((8, 8, 3)), 0, apply_fn=network)
      >>> att.map.shape, att.history.shape, bool(att.status)
      ((8, 8, 3), (200, 3), True)

    Source: Ruiz, Agudo, Moreno-Noguer, ICCV 2021. Same optimisation as the paper's; no double
    back-propagation is needed (`dmbp_jax.dmbp.loop`), and the output bias is left out of y.
    """
    if not isinstance(config, DMBP):
        raise InputTypeError(f"config: Expected a DMBP, got {type(config).__name__}.")
    call = check_call(
        params, x, label, apply_fn, chunk_size, dtype=config.dtype, precision=config.precision
    )
    explainer = DmbpExplainer(call.network, config, return_masks)
    call.network.program()  # refuses what is not supported, before anything is compiled
    result = explain(
        explainer,
        (call.images, call.labels),
        chunk_size=chunk_size,
        progress=f"DMBP {len(call.images)} image(s)" if progress else None,
    )
    if call.single:
        return call.unbatch(result)
    return result.replace_history(result.history.swapaxes(0, 1))


# Per unit, in mask-sized values: θ and the optimiser's memory (2), both signs' values (2),
# cotangents in flight, gates and winners. Measured with `benchmarks/speed.py` on CPU: ResNet50
# 5.7 at batch 1 (adjoint kernels included) and 4.6 at batch 8, VGG16 6.0 and 5.0.
_VALUES_PER_UNIT = 6


def bytes_per_image(masked: Sequence[Site]) -> int:
    """Device memory of one image in the loop, in bytes, rounded up."""
    return _VALUES_PER_UNIT * sum(4 * math.prod(site.shape) for site in masked)


class Run(NamedTuple):
    """A batch while its masks are learned."""

    images: jax.Array
    labels: jax.Array
    frozen: Frozen
    state: loop.State
    history: jax.Array  # (N, steps, 3)
    done: jax.Array  # steps taken by the batch


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DmbpExplainer:
    """The paper's method for the engine: freeze, learn masks, take maps (`engine.Explainer`)."""

    network: TracedNetwork
    config: DMBP = field(metadata={"static": True})
    return_masks: bool = field(metadata={"static": True}, default=False)

    steps_per_call = None

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.config.steps

    @property
    def bytes_per_row(self) -> int:
        """Device memory of one image in the loop."""
        return bytes_per_image(self.network.program().masked)

    def start(self, rows: tuple[jax.Array, jax.Array | None]) -> Run:
        """Gates, winners, and masks at their initial value; a label of None becomes the top-1."""
        images, labels = rows
        graph = self.network.graph()
        cast = images.astype(self.config.dtype) if self.config.dtype else images
        begin = partial(loop.start, graph, config=self.config, dtype=mask_dtype(images))
        frozen, state = jax.vmap(lambda image: begin(image[None]))(cast)
        if labels is None:
            labels = jnp.argmax(frozen.logits, axis=-1).astype(jnp.int32)
        history = jnp.zeros((len(images), self.steps, 3), state.terms.dtype)
        return Run(images, labels, frozen, state, history, jnp.int32(0))

    def advance(self, state: Run, steps: int) -> Run:
        """Take optimiser steps with every image."""
        run = state
        if steps == 0:
            return run
        learned, terms = loop.advance(
            self.network.graph(), run.frozen, run.state, run.labels, self.config, steps
        )
        history = jax.lax.dynamic_update_slice_in_dim(run.history, terms, run.done, axis=1)
        return run._replace(state=learned, history=history, done=run.done + steps)

    def finish(self, state: Run) -> Attribution:
        """Maps and terms of the learned masks; `history` is (N, steps, 3)."""
        finish = partial(_finish, self.network.graph(), return_masks=self.return_masks)
        return jax.vmap(finish)(*state[:5])


def _finish(
    graph: Graph,
    x: jax.Array,
    label: jax.Array,
    frozen: Frozen,
    state: loop.State,
    history: jax.Array,
    return_masks: bool,
) -> Attribution:
    """Maps of the learned masks by the masked backward pass, terms by the gated forward pass."""
    dtype = mask_dtype(x)
    cast = x.astype(frozen.logits.dtype)[None]

    sigma = loop.masks_of(state.theta)

    def signed(sign: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The value by the forward form: the same number as the backward form's, with the biases'
        # gradients left out of the program.
        logits, _ = gated_logits(graph, frozen, loop.divisors(state.theta, sign))
        masks = loop.signed_masks(sigma, sign)
        image_map = masked_map(graph, frozen, cast, masks, label)
        return loop.signed_part(frozen, logits, label), image_map

    (y_positive, y_negative), maps = jax.vmap(signed)(jnp.array([1.0, -1.0], dtype))
    positive, negative = maps[:, 0].astype(dtype)
    y = loop.signed_part(frozen, frozen.logits, label)
    finite = jnp.isfinite(jnp.stack([y, y_positive, y_negative])).all()
    finite &= jnp.isfinite(positive).all() & jnp.isfinite(negative).all()
    masks = None
    if return_masks:
        masks = tuple(mask.reshape(drop_leading_one(mask.shape)) for mask in sigma)
    return Attribution(
        positive=positive,
        negative=negative,
        y=y,
        y_positive=y_positive,
        y_negative=y_negative,
        y_nuisance=y - y_positive - y_negative,
        label=label.astype(jnp.int32),
        history=history,
        status=finite,
        steps=state.steps,
        masks=masks,
    )
