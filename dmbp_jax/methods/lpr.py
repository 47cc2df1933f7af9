"""Learning propagation rules (Yang et al., ECCV 2020): weights on the backward pass, learned."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count, check_number
from dmbp_jax.dmbp.decomposition import Frozen, freeze
from dmbp_jax.engine.chunks import in_chunks
from dmbp_jax.engine.scores import LOG_PROBABILITIES, find_activation
from dmbp_jax.graph.graph import Graph, Rules, trace
from dmbp_jax.graph.model import ApplyFn, Model
from dmbp_jax.methods.calling import check_call, progress_bar, repeat

IMAGES_AT_ONCE = 16  # when chunk_size is None
SATURATION = 0.9  # the share of pixels below which the mask is not yet 1


class State(NamedTuple):
    """What a step changes: w = sigmoid(θ), and the optimiser's memory."""

    theta: tuple[jax.Array, ...]
    optimizer: Any


def lpr(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    steps: int = 20,
    learning_rate: float = 0.1,
    area_weight: float = 1.0,
    activation: str | None = None,
    progress: bool = False,
) -> jax.Array:
    """A mask from a weighted backward pass, with weights learned so that the mask suffices.

        backward through ReLU l:  c ↦ c ⊙ 1[z_l > 0] ⊙ w_l,   w_l = sigmoid(θ_l)
        m = min(1, relu(Σ_channels ∇ₓF_c ⊙ x) / its 90th percentile)
        θ minimises  −log P_c(x ⊙ m) + λ mean(m)

    θ_l has the shape of ReLU l's value (position and channel) and starts at 0; λ is
    `area_weight`; the map is m after the last step.

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: not used.
      chunk_size: images at once; None is at most 16.
      steps: number of optimiser steps; 0 gives the mask of equal weights.
      learning_rate: of Adam, whose other settings are optax's defaults.
      area_weight: λ, what a mask that keeps everything costs.
      activation: "softmax" or "sigmoid", as in `rise`.
      progress: show a bar.

    Returns:
      (H, W) or (N, H, W) in [0, 1], dtype of x. Zero where no positive evidence reaches the input.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`, and for the options above.
      NoReluError, NonAffineError, ControlFlowError: the network is not supported.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dmbp_jax.methods import lpr
      >>> def network(params, x):
      ...     return jax.nn.relu(x).sum((1, 2)) @ params
      >>> spot = jnp.zeros((4, 4, 3)).at[1, 2, 0].set(3.0)
      >>> lpr(jnp.eye(3), spot, 0, apply_fn=network)[1].tolist()
      [0.0, 0.0, 1.0, 0.0]

    Source: the idea is that of Yang et al., *Learning Propagation Rules for
    Attribution Map Generation*, ECCV 2020, which came without code: learnable weights per unit in
    the backward pass, a mask, the masked image classified again. **Every choice above is ours**:
    sigmoid weights that start equal, gradient × input as the map, masked pixels zero in
    preprocessed space, the loss, Adam, 20 steps. Scaling by the 90th percentile lets the mask
    keep a tenth of the image at full strength; scaled by the maximum, all but a handful of pixels
    stay dark and the weights learn an adversarial pattern.
    """
    call = check_call(params, x, label, apply_fn, chunk_size)
    check_count(steps, "steps", minimum=0)
    optimizer = check_number(learning_rate, "learning_rate", low=0, above=True)
    area_weight = check_number(area_weight, "area_weight", low=0)
    static = (optimizer, area_weight, find_activation(activation, params, apply_fn))
    batch = len(call.images)
    at_once = call.chunk_size or min(batch, IMAGES_AT_ONCE)

    def one_piece(images: jax.Array, labels: jax.Array) -> jax.Array:
        frozen, state = _start(call.model, images, learning_rate=optimizer)
        inputs = (call.model, images, labels, frozen)
        state = repeat(_step, steps, state, inputs, static, bar, at_once)
        return _finish(state, inputs)

    with progress_bar(lpr, steps * -(-batch // at_once), progress, call) as bar:
        return call.unbatch(in_chunks(one_piece, (call.images, call.labels), batch, at_once))


@partial(jax.jit, static_argnames="learning_rate")
def _start(model: Model, images: jax.Array, *, learning_rate: float) -> tuple[Frozen, State]:
    """Gates and winners of every image, θ = 0."""

    def one_image(image: jax.Array) -> tuple[Frozen, State]:
        graph = trace(model, image[None])
        theta = tuple(jnp.zeros(site.shape, image.dtype) for site in graph.relus)
        return freeze(graph, image[None]), State(theta, optax.adam(learning_rate).init(theta))

    return jax.vmap(one_image)(images)


def _step(state: State, i: jax.Array, inputs: Any, static: Any) -> State:
    learning_rate, area_weight, activation = static
    model, images, labels, frozen = inputs

    def one_image(state: State, image: jax.Array, label: jax.Array, frozen: Frozen) -> State:
        graph = trace(model, image[None])

        gradient = jax.grad(loss, argnums=3)(
            model,
            graph,
            frozen,
            state.theta,
            image,
            label,
            area_weight=area_weight,
            activation=activation,
        )
        updates, optimizer = optax.adam(learning_rate).update(gradient, state.optimizer)
        return State(optax.apply_updates(state.theta, updates), optimizer)

    return jax.vmap(one_image)(state, images, labels, frozen)


@jax.jit
def _finish(state: State, inputs: Any) -> jax.Array:
    model, images, labels, frozen = inputs

    def one_image(state: State, image: jax.Array, label: jax.Array, frozen: Frozen) -> jax.Array:
        return propagated_mask(trace(model, image[None]), frozen, state.theta, image, label)

    return jax.vmap(one_image)(state, images, labels, frozen)


def loss(
    model: Model,
    graph: Graph,
    frozen: Frozen,
    theta: tuple[jax.Array, ...],
    image: jax.Array,
    label: jax.Array,
    *,
    area_weight: float,
    activation: str,
) -> jax.Array:
    """−log P_c(x ⊙ m) + λ mean(m)."""
    mask = propagated_mask(graph, frozen, theta, image, label)
    logits = model((image * mask[..., None])[None])[0]
    return -LOG_PROBABILITIES[activation](logits)[label] + area_weight * mask.mean()


def propagated_mask(
    graph: Graph, frozen: Frozen, theta: tuple[jax.Array, ...], image: jax.Array, label: jax.Array
) -> jax.Array:
    """The mask m (H, W) in [0, 1] for the weights w = sigmoid(θ).

    Weights on the values give the same gradient as weights on the cotangents, since the network
    with frozen gates is linear between its sites, and can be differentiated with respect to w.
    """
    rules = Rules(
        relu=lambda index, z: jnp.where(frozen.gates[index], jax.nn.sigmoid(theta[index]) * z, 0),
        max_pool=lambda index, pool, z: pool.take(z, frozen.winners[index]),
    )
    g = jax.grad(lambda image: graph.run(image[None], rules)[0, label])(image)
    positive = jax.nn.relu((g * image).sum(-1))
    scale = jnp.quantile(positive, SATURATION)
    scale = jnp.where(scale > 0, scale, positive.max())
    return jnp.minimum(positive / jnp.where(scale > 0, scale, 1), 1)
