"""Learning propagation rules (Yang et al., ECCV 2020): weights on the backward pass, learned."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count, check_number
from dmbp_jax.dmbp.decomposition import Frozen, freeze
from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.scores import LOG_PROBABILITIES, find_activation
from dmbp_jax.graph.graph import Graph, Rules, applying
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import check_method_call

SATURATION = 0.9  # the share of pixels below which the mask is not yet 1


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
    call = check_method_call(params, x, label, apply_fn, chunk_size)
    check_count(steps, "steps", minimum=0)
    explainer = LprExplainer(
        call.network,
        steps,
        check_number(learning_rate, "learning_rate", low=0, above=True),
        check_number(area_weight, "area_weight", low=0),
        find_activation(activation, params, apply_fn),
    )
    call.network.program()  # refuses what is not supported, before anything is compiled
    title = "lpr" if progress else None
    rows = (call.images, call.labels)
    return call.unbatch(explain(explainer, rows, chunk_size=chunk_size, progress=title))


class Run(NamedTuple):
    """A batch while its weights are learned."""

    images: jax.Array
    labels: jax.Array
    frozen: Frozen
    theta: tuple[jax.Array, ...]  # w = sigmoid(θ)
    optimizer: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LprExplainer:
    """The method for the engine (`engine.Explainer`)."""

    network: TracedNetwork
    steps: int = field(metadata={"static": True})
    learning_rate: float = field(metadata={"static": True})
    area_weight: float = field(metadata={"static": True})
    activation: str = field(metadata={"static": True})

    steps_per_call = 1

    @property
    def bytes_per_row(self) -> int:
        """A step differentiates one backward pass and one forward pass."""
        return 3 * self.network.trace.bytes_per_image

    def start(self, rows: tuple[jax.Array, jax.Array]) -> Run:
        """Gates and winners of every image, θ = 0."""
        images, labels = rows
        graph = self.network.graph()
        theta = tuple(jnp.zeros((len(images), *site.shape), images.dtype) for site in graph.masked)
        frozen = jax.vmap(lambda image: freeze(graph, image[None]))(images)
        return Run(images, labels, frozen, theta, jax.vmap(self._adam().init)(theta))

    def advance(self, state: Run, steps: int) -> Run:
        """Take steps of Adam."""
        graph = self.network.graph()

        def one_image(run: Run) -> Run:
            options = {"area_weight": self.area_weight, "activation": self.activation}
            gradient = jax.grad(loss, argnums=3)(
                self.network, graph, run.frozen, run.theta, run.images, run.labels, **options
            )
            updates, optimizer = self._adam().update(gradient, run.optimizer)
            theta = optax.apply_updates(run.theta, updates)
            return run._replace(theta=theta, optimizer=optimizer)

        for _ in range(steps):
            state = jax.vmap(one_image)(state)
        return state

    def finish(self, state: Run) -> jax.Array:
        """The maps."""
        graph = self.network.graph()
        return jax.vmap(
            lambda run: propagated_mask(graph, run.frozen, run.theta, run.images, run.labels)
        )(state)

    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)


def loss(
    network: TracedNetwork,
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
    logits = network.logits(image * mask[..., None])
    return -LOG_PROBABILITIES[activation](logits)[label] + area_weight * mask.mean()


def propagated_mask(
    graph: Graph, frozen: Frozen, theta: tuple[jax.Array, ...], image: jax.Array, label: jax.Array
) -> jax.Array:
    """The mask m (H, W) in [0, 1] for the weights w = sigmoid(θ).

    Weights on the values give the same gradient as weights on the cotangents, since the network
    with frozen gates is linear between its sites, and can be differentiated with respect to w.
    """
    rules = Rules(
        applying(frozen.gates),
        applying(frozen.winners),
        after=lambda index, value: jax.nn.sigmoid(theta[index]) * value,
    )
    g = jax.grad(lambda image: graph.run(image[None], rules)[0, label])(image)
    positive = jax.nn.relu((g * image).sum(-1))
    scale = jnp.quantile(positive, SATURATION)
    scale = jnp.where(scale > 0, scale, positive.max())
    return jnp.minimum(positive / jnp.where(scale > 0, scale, 1), 1)
