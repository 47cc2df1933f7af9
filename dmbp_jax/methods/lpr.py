"""Learning propagation rules (Yang et al., ECCV 2020): weights on the backward pass, learned."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from dmbp_jax.core.chunks import in_chunks
from dmbp_jax.core.decomposition import Frozen, freeze
from dmbp_jax.core.inputs import ApplyFn, Model, check_count
from dmbp_jax.core.sites import Graph, Rules, trace
from dmbp_jax.methods.calling import check_call, check_number, progress_bar, repeat
from dmbp_jax.methods.probabilities import LOG_PROBABILITIES, find_activation

IMAGES_AT_ONCE = 16  # when chunk_size is None


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
    steps: int = 50,
    learning_rate: float = 0.1,
    area_weight: float = 1.0,
    activation: str | None = None,
    progress: bool = False,
) -> jax.Array:
    """A mask made by a weighted backward pass, whose weights are learned so that it suffices.

    backward through ReLU l:  c ↦ c ⊙ 1[z_l > 0] ⊙ w_l,   w_l = sigmoid(θ_l)
    m = relu(Σ_channels ∇ₓF_c ⊙ x), divided by its maximum
    θ minimises  −log P_c(x ⊙ m) + λ mean(m)
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
    largest = positive.max()
    return positive / jnp.where(largest > 0, largest, 1)
