"""The decomposition y = y⁺ + y⁻ + ỹ (paper Eq. 8–14) of one network at one image for given masks.

`gated_logits` is the forward form (fast), `attribution_by_backward` the paper's backward form
with the masked ReLU; both give the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.dmbp.masked_relu import masked_relu
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.graph import Graph, Rules, list_sites, trace
from dmbp_jax.graph.model import (
    ApplyFn,
    Model,
    bind,
    check_images,
    check_labels,
    count_classes,
    is_traced,
)
from dmbp_jax.graph.pieces.max_pool import Pool

Masks = tuple[jax.Array, ...]


class Frozen(NamedTuple):
    """What one ordinary forward pass fixes: it does not change while the masks are learned."""

    gates: tuple[jax.Array, ...]  # H_l = 1[z_l > 0], bool, per ReLU
    winners: tuple[jax.Array, ...]  # per max-pool
    before_sites: tuple[jax.Array, ...]  # the first layer's pre-activation
    logits: jax.Array  # F(x), (classes,)
    output_bias: jax.Array  # F_0, (classes,)


def freeze(graph: Graph, x: jax.Array) -> Frozen:
    """Gates, pooling winners, F(x) and F_0 of one image `x` (1, H, W, C)."""
    gates: list[jax.Array] = []
    winners: list[jax.Array] = []

    def relu(index: int, z: jax.Array) -> jax.Array:
        gates.append(z > 0)
        return _select(gates[index], z)

    def max_pool(index: int, pool: Pool, z: jax.Array) -> jax.Array:
        winners.append(pool.winners(z))
        return pool.take(z, winners[index])

    before = graph.before_sites(x)
    logits = graph.run_from(before, Rules(relu, max_pool))[0]
    closed = Rules(
        relu=lambda index, z: jnp.zeros_like(z),
        max_pool=lambda index, pool, z: pool.take(z, winners[index]),
    )
    return Frozen(tuple(gates), tuple(winners), before, logits, graph.run_from(before, closed)[0])


def gated_logits(
    graph: Graph, frozen: Frozen, divisors: Sequence[jax.Array]
) -> tuple[jax.Array, Masks]:
    """F_σ(x) and what its ReLUs return, u_l = σ_l ⊙ H_l ⊙ z_l (the forward form, Eq. 8).

    Args:
      divisors: 1 / σ_l, in [1, ∞]. A product with σ_l would be the same number, but XLA repeats a
        product in everything that reads it (on CPU, down a whole residual stage), and keeps the
        result of a division.

    Returns:
      `(logits (classes,), (u_0, u_1, ...))`.
    """
    activations: list[jax.Array] = []

    def relu(index: int, z: jax.Array) -> jax.Array:
        activations.append(_select(frozen.gates[index], z) / divisors[index].astype(z.dtype))
        return activations[index]

    logits = graph.run_from(frozen.before_sites, Rules(relu, _frozen_pool(frozen)))[0]
    return logits, tuple(activations)


def masked_cotangents(
    graph: Graph, frozen: Frozen, divisors: Sequence[jax.Array], label: jax.Array
) -> tuple[Masks, Masks]:
    """The cotangents of F_σ's logit before and after every ReLU: one masked backward pass.

    With c_l after ReLU l, the one before it is d_l = σ_l ⊙ H_l ⊙ c_l; ∂F_σ/∂σ_l = H_l ⊙ z_l ⊙ c_l,
    so no double back-propagation is needed. Both are read off zeros added there.

    Args:
      divisors: 1 / σ_l, as in `gated_logits`.

    Returns:
      `((d_0, d_1, ...), (c_0, c_1, ...))`.
    """

    def logit(before: Sequence[jax.Array], after: Sequence[jax.Array]) -> jax.Array:
        def relu(index: int, z: jax.Array) -> jax.Array:
            # Divided first, so that the way back gates first and its last result is a division.
            masked = (z + before[index]) / divisors[index].astype(z.dtype)
            return _select(frozen.gates[index], masked) + after[index]

        return graph.run_from(frozen.before_sites, Rules(relu, _frozen_pool(frozen)))[0, label]

    zeros = [jnp.zeros(site.shape, site.dtype) for site in graph.relus]
    _, pull_back = jax.vjp(logit, zeros, zeros)
    before, after = pull_back(jnp.ones((), frozen.logits.dtype))
    return tuple(before), tuple(after)


def attribution_by_backward(
    graph: Graph, frozen: Frozen, x: jax.Array, masks: Sequence[jax.Array], label: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """y± and its map by the paper's backward form (Eq. 11, 14), for one sign's masks.

    y± = ∇ₓFᵀx + Σ_l ∇_{b_l}Fᵀb_l (the output bias left out), map = ∇ₓF ⊙ x.

    Args:
      x: (1, H, W, C).

    Returns:
      `(y_signed scalar, map (1, H, W, C))`.
    """
    biases: list[jax.Array] = []

    def relu(index: int, z: jax.Array) -> jax.Array:
        return masked_relu(z, frozen.gates[index], masks[index])

    def logit(x: jax.Array, probes: Sequence[jax.Array]) -> jax.Array:
        def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
            biases.append(constant)
            return value + probes[index]

        return graph.run(x, Rules(relu, _frozen_pool(frozen), bias))[0, label]

    probes = [jnp.zeros(site.shape, site.dtype) for site in graph.biases]
    _, pull_back = jax.vjp(logit, x, probes)
    gradient, bias_gradients = pull_back(jnp.ones((), frozen.logits.dtype))
    image_map = gradient * x
    from_biases = sum(jnp.vdot(g, b) for g, b in zip(bias_gradients, biases, strict=True))
    return image_map.sum() + from_biases - frozen.output_bias[label], image_map


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decomposition:
    """The parts of Eq. 9 for given masks; a single image has no leading N.

    Attributes:
      y, y_positive, y_negative, y_nuisance: (N,), with y = y⁺ + y⁻ + ỹ.
      positive, negative: maps ∇ₓF_σ ⊙ x and ∇ₓF_{1−σ} ⊙ x, shape of x.
    """

    y: jax.Array
    y_positive: jax.Array
    y_negative: jax.Array
    y_nuisance: jax.Array
    positive: jax.Array
    negative: jax.Array

    @property
    def map(self) -> jax.Array:
        """`positive + negative`."""
        return self.positive + self.negative


def init_masks(
    params: Any, x: ArrayLike, value: float = 0.5, *, apply_fn: ApplyFn | None = None
) -> Masks:
    """Masks σ_l filled with one value: a tuple of arrays, one per ReLU in order of evaluation.

    Args:
      params, apply_fn: the network, as in `attribute`.
      x: (H, W, C) or (N, H, W, C); only shape and dtype matter.
      value: in [0, 1]; the optimisation starts from ½.

    Returns:
      One float32 array per ReLU (float64 where x is): its shape per image, with the leading N of x.

    Raises:
      InputError: `value` outside [0, 1]; and as `attribute`.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> masks = dmbp_jax.init_masks(jnp.eye(3), jnp.ones((2, 8, 8, 3)), apply_fn=network)
      >>> [mask.shape for mask in masks]
      [(2, 3)]
    """
    if not 0 <= value <= 1:
        raise InputError(f"value: Expected a mask value in [0, 1], got {value}.")
    model = bind(params, apply_fn)
    images = check_images(x)
    count_classes(model, images.x)
    lead = () if images.single else (images.x.shape[0],)
    dtype = mask_dtype(images.x)
    return tuple(jnp.full((*lead, *shape), value, dtype) for shape in mask_shapes(model, images.x))


def mask_dtype(x: jax.Array) -> Any:
    """Masks are float32, or float64 for float64 images."""
    return jnp.promote_types(jnp.float32, jnp.result_type(x))


def mask_shapes(model: Model, x: jax.Array) -> list[tuple[int, ...]]:
    """Shape of every ReLU's mask for one image: the ReLU's shape without the leading 1."""
    return [
        site.shape[1:] if site.shape[:1] == (1,) else site.shape
        for site in list_sites(model, x)
        if site.kind == "relu"
    ]


def decompose(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    masks: Sequence[ArrayLike],
    *,
    apply_fn: ApplyFn | None = None,
) -> Decomposition:
    """Split the logit for given masks, without any optimisation (Eq. 9, 11, 14).

    y = F(x) − F_0, y⁺ = F_σ(x) − F_0, y⁻ = F_{1−σ}(x) − F_0, ỹ = y − y⁺ − y⁻, each from the
    backward form with Σ and 1 − Σ injected into the ReLUs' cotangents.

    Args:
      params, x, label, apply_fn: as in `attribute`.
      masks: one array per ReLU as `init_masks` gives them; values in [0, 1].

    Returns:
      A `Decomposition`.

    Raises:
      InputError: number, shapes or range of the masks are wrong; and as `attribute`.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> x = jnp.ones((8, 8, 3))
      >>> masks = dmbp_jax.init_masks(jnp.eye(3), x, 0.25, apply_fn=network)
      >>> parts = dmbp_jax.decompose(jnp.eye(3), x, 0, masks, apply_fn=network)
      >>> round(float(parts.y_positive), 6), round(float(parts.y_negative), 6)
      (0.25, 0.75)

    Source: Ruiz et al., ICCV 2021. The paper leaves the output bias in y; here y is F(x) − F_0,
    so that both signs describe what filters produced.
    """
    model = bind(params, apply_fn)
    images = check_images(x)
    classes = count_classes(model, images.x)
    labels = check_labels(label, images.x.shape[0], classes, images.single)
    shapes = mask_shapes(model, images.x)
    result = _decompose_batch(model, images.x, labels, _check_masks(masks, shapes, images))
    return jax.tree.map(lambda a: a[0], result) if images.single else result


def _check_masks(masks: Any, shapes: list[tuple[int, ...]], images: Any) -> Masks:
    if not isinstance(masks, (tuple, list)):
        raise InputTypeError(
            "masks: Expected a tuple with one array per ReLU (see init_masks), "
            f"got {type(masks).__name__}."
        )
    if len(masks) != len(shapes):
        raise InputError(f"masks: Expected {len(shapes)} arrays, one per ReLU, got {len(masks)}.")
    lead = () if images.single else (images.x.shape[0],)
    checked = []
    for index, (mask, shape) in enumerate(zip(masks, shapes, strict=True)):
        if np.shape(mask) != (*lead, *shape):
            raise InputError(
                f"masks[{index}]: Expected shape {(*lead, *shape)}, got {np.shape(mask)}."
            )
        if not is_traced(mask) and not bool(
            ((np.asarray(mask) >= 0) & (np.asarray(mask) <= 1)).all()
        ):
            raise InputError(f"masks[{index}]: Expected values in [0, 1].")
        mask = jnp.asarray(mask, mask_dtype(images.x))
        checked.append(mask[None] if images.single else mask)
    return tuple(checked)


@jax.jit
def _decompose_batch(
    model: Model, x: jax.Array, labels: jax.Array | None, masks: Masks
) -> Decomposition:
    graph = trace(model, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))
    shapes = [site.shape for site in graph.relus]

    def one_image(x: jax.Array, label: jax.Array | None, masks: Masks) -> Decomposition:
        frozen = freeze(graph, x[None])
        if label is None:
            label = jnp.argmax(frozen.logits)
        sigma = [mask.reshape(shape) for mask, shape in zip(masks, shapes, strict=True)]
        both = partial(attribution_by_backward, graph, frozen, x[None], label=label)
        y_positive, positive = both(sigma)
        y_negative, negative = both([1 - mask for mask in sigma])
        y = frozen.logits[label] - frozen.output_bias[label]
        return Decomposition(
            y, y_positive, y_negative, y - y_positive - y_negative, positive[0], negative[0]
        )

    return jax.vmap(one_image, in_axes=(0, None if labels is None else 0, 0))(x, labels, masks)


def _frozen_pool(frozen: Frozen) -> Any:
    return lambda index, pool, z: pool.take(z, frozen.winners[index])


def _select(gate: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.where(gate, value, jnp.zeros((), value.dtype))
