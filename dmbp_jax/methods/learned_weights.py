"""Learning propagation rules (Yang et al., ECCV 2020): weights on the backward pass, learned."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count, check_number
from dmbp_jax.engine.baselines import make_baseline
from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.graph import Fixed, FrozenNetwork
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import method

SATURATION = 0.9  # the share of pixels below which the mask is not yet 1


@method("nonaffine", "pointwise", "segments")
def lpr(
    call: Call,
    *,
    steps: int = 20,
    learning_rate: float = 0.03,
    area_weight: float = 1.0,
    baseline: ArrayLike | str = "blur",
    progress: bool = False,
) -> jax.Array:
    """The positive evidence of a weighted backward pass, with weights learned from a masked image.

        backward through ReLU l:  c ↦ c ⊙ 1[z_l > 0] ⊙ w_l,   w_l = sigmoid(θ_l)
        map:           s = relu(Σ_channels ∇ₓF_c ⊙ x)
        masked image:  x_m = m ⊙ x + (1 − m) ⊙ x′,   m = min(1, s / its 90th percentile)
        θ minimises    relu(F_c(x) − F_c(x_m)) / |F_c(x)| + λ mean(m)

    θ_l has the shape of ReLU l's value (position and channel) and starts at 0; λ is
    `area_weight`; x′ is `baseline`. The mask is clipped so that a tenth of the pixels can be
    shown in full; the map is s after the last step and is not clipped.

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
      steps: number of optimiser steps; 0 gives the positive part of gradient × input, scaled.
      learning_rate: of Adam, whose other settings are optax's defaults.
      area_weight: λ, the cost of a mask that is 1 everywhere.
      baseline: x′, what masked pixels are replaced with; names and arrays as in
        `integrated_gradients`. "blur", the default, is the image blurred with σ = 10 pixels.
      progress: show a bar.
      nonaffine: as in `dmbp_jax.attribute`; no gradient flows into frozen factors, and the masked
        image is classified by the network itself.
      pointwise, segments: slope of the smooth activations, as in `DMBP`.

    Returns:
      (H, W) or (N, H, W), not negative, dtype of x. Only the order and the ratios of the values
      within an image mean something. Zero where no positive evidence reaches the input.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`, and for the options above.
      NoReluError, NonAffineError, ControlFlowError: the network is not supported.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dmbp_jax.methods import lpr
      >>> def network(params, x):
      ...     return jax.nn.relu(x).sum((1, 2)) @ params
      >>> spot = jnp.zeros((4, 4, 3)).at[1, 2, 0].set(3.0)
      >>> (lpr(jnp.eye(3), spot, 0, apply_fn=network)[1] > 0).tolist()
      [False, False, True, False]

    Source: the idea is that of Yang et al., *Learning Propagation Rules for
    Attribution Map Generation*, ECCV 2020, which came without code: learnable weights per unit in
    the backward pass, a mask, the masked image classified again. **Every choice above is ours**:
    sigmoid weights that start equal, gradient × input as the map, the fill, the loss, the clipped
    mask, Adam, its learning rate, 20 steps. Two of them guard against adversarial masks. The loss
    asks the masked image to keep the logit: a cross-entropy goes on rewarding a mask under which
    the network is surer of the label than it is of the image. Masked pixels are blurred: zeros
    make edges of their own. A higher learning rate (0.1) raises the insertion metric further and
    may move the maximum of the map off the object (docs/methods.md).
    """
    check_count(steps, "steps", minimum=0)
    explainer = LprExplainer(
        call.network,
        steps,
        check_number(learning_rate, "learning_rate", low=0, above=True),
        check_number(area_weight, "area_weight", low=0),
    )
    rows = (call.images, call.labels, make_baseline(baseline, call))
    call.network.program()  # refuses what is not supported, before anything is compiled
    title = "lpr" if progress else None
    heat = explain(explainer, rows, chunk_size=call.chunk_size, progress=title)
    return heat.astype(call.images.dtype)


class Run(NamedTuple):
    """A batch while its weights are learned."""

    images: jax.Array
    labels: jax.Array
    fill: jax.Array
    fixed: Fixed
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

    steps_per_call = 1

    @property
    def bytes_per_row(self) -> int:
        """A step differentiates one backward pass and one forward pass."""
        return 3 * self.network.trace.bytes_per_image

    def start(self, rows: tuple[jax.Array, jax.Array, jax.Array]) -> Run:
        """Gates and winners of every image, θ = 0."""
        graph, images = self.network.graph(), rows[0]
        fixed = jax.vmap(lambda image: graph.freeze(image[None]).fixed)(images)
        dtype = at_least_float32(images).dtype
        theta = tuple(jnp.zeros((len(images), *site.shape), dtype) for site in graph.masked)
        return Run(*rows, fixed, theta, jax.vmap(self._adam().init)(theta))

    def advance(self, state: Run, steps: int) -> Run:
        """Take steps of Adam."""
        graph = self.network.graph()

        def one_image(run: Run) -> Run:
            gradient = jax.grad(loss, argnums=1)(
                FrozenNetwork(graph, run.fixed),
                run.theta,
                run.images,
                run.labels,
                run.fill,
                area_weight=self.area_weight,
            )
            with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
                updates, optimizer = self._adam().update(gradient, run.optimizer)
                theta = optax.apply_updates(run.theta, updates)
            return run._replace(theta=theta, optimizer=optimizer)

        if steps == 1:  # outside of a loop: see `engine.sampling.SampleSum`
            return jax.vmap(one_image)(state)
        return jax.lax.fori_loop(0, steps, lambda _, run: jax.vmap(one_image)(run), state)

    def finish(self, state: Run) -> jax.Array:
        """The maps."""
        graph = self.network.graph()

        def one_image(run: Run) -> jax.Array:
            network = FrozenNetwork(graph, run.fixed)
            return evidence(network, run.theta, run.images, run.labels)

        return jax.vmap(one_image)(state)

    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)


def loss(
    network: FrozenNetwork,
    theta: tuple[jax.Array, ...],
    image: jax.Array,
    label: jax.Array,
    fill: jax.Array,
    *,
    area_weight: float,
) -> jax.Array:
    """relu(F_c(x) − F_c(x_m)) / |F_c(x)| + λ mean(m); not divided where F_c(x) = 0."""
    mask = clipped_mask(evidence(network, theta, image, label))
    kept = mask[..., None].astype(image.dtype)
    shown = kept * image + (1 - kept) * fill
    logits = network.fixed.logits, network.graph.run(shown[None])[0]
    y, masked = (at_least_float32(one[label]) for one in logits)
    size = jnp.where(y == 0, 1, jnp.abs(y))
    return jax.nn.relu(y - masked) / size + area_weight * mask.mean()


def clipped_mask(positive: jax.Array) -> jax.Array:
    """The map (H, W) over its 90th percentile, at most 1; over its maximum where that is zero."""
    scale = jnp.quantile(positive, SATURATION)
    scale = jnp.where(scale > 0, scale, positive.max())
    return jnp.minimum(positive / jnp.where(scale > 0, scale, 1), 1)


def evidence(
    network: FrozenNetwork, theta: tuple[jax.Array, ...], image: jax.Array, label: jax.Array
) -> jax.Array:
    """The map s (H, W), not negative, of the weights w = sigmoid(θ).

    Weights on the values give the same gradient as weights on the cotangents, since the network
    with frozen gates is linear between its sites, and can be differentiated with respect to w.
    """

    def weighted(number: int, value: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(theta[number]).astype(value.dtype) * value

    rules = network.rules(after=weighted)
    g = jax.grad(lambda image: network.graph.run(image[None], rules)[0, label])(image)
    return jax.nn.relu((at_least_float32(g) * at_least_float32(image)).sum(-1))
