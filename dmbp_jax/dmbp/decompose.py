"""The decomposition for masks of the caller's own: `decompose` and `init_masks`, no optimisation.

They let a reader check Eq. 9 by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_number
from dmbp_jax.dmbp.decomposition import Masks, attribution_by_backward, mask_dtype
from dmbp_jax.engine.mapping import each_image
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.call import Call, check_call
from dmbp_jax.graph.model import ApplyFn, is_traced, plain_array
from dmbp_jax.graph.tracing import TracedNetwork


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decomposition:
    """The parts of Eq. 9 for given masks; a single image has no leading N.

    Attributes:
      y: (N,), the label's logit without the output bias.
      y_positive: (N,), y⁺.
      y_negative: (N,), y⁻.
      y_nuisance: (N,), ỹ: y = y⁺ + y⁻ + ỹ.
      positive: map ∇ₓF_σ ⊙ x, shape of x.
      negative: map ∇ₓF_{1−σ} ⊙ x, shape of x.
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


@on_any_mesh("x")
def init_masks(
    params: Any,
    x: ArrayLike,
    value: float = 0.5,
    *,
    apply_fn: ApplyFn | None = None,
    nonaffine: str = "refuse",
) -> Masks:
    """Masks σ_l filled with one value: a tuple of arrays, one per ReLU in order of evaluation.

    Args:
      params, apply_fn, nonaffine: the network, as in `attribute`.
      x: (H, W, C) or (N, H, W, C); only shape and dtype matter.
      value: in [0, 1]; the optimisation starts from ½.

    Returns:
      One float32 array per ReLU (float64 where x is): its shape per image, with the leading N of x.

    Raises:
      InputTypeError, InputError: `value` is no number in [0, 1]; and as `attribute`.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> masks = dmbp_jax.init_masks(jnp.eye(3), jnp.ones((2, 8, 8, 3)), apply_fn=network)
      >>> [mask.shape for mask in masks]
      [(2, 3)]
    """
    check_number(plain_array(value, "value").tolist(), "value", low=0, high=1)
    call = check_call(params, x, apply_fn=apply_fn, nonaffine=nonaffine)
    return tuple(jnp.full(shape, value, mask_dtype(call.images)) for shape in _mask_shapes(call))


@on_any_mesh("x")
def decompose(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    masks: Sequence[ArrayLike],
    *,
    apply_fn: ApplyFn | None = None,
    nonaffine: str = "refuse",
    pointwise: str = "secant",
    segments: int = 8,
) -> Decomposition:
    """Split the logit for given masks, without any optimisation (Eq. 9, 11, 14).

    y = F(x) − F_0, y⁺ = F_σ(x) − F_0, y⁻ = F_{1−σ}(x) − F_0, ỹ = y − y⁺ − y⁻, each from the
    backward form with Σ and 1 − Σ injected into the ReLUs' cotangents.

    Args:
      params, x, label, apply_fn, nonaffine: as in `attribute`.
      pointwise, segments: slope of the smooth activations, as in `DMBP`.
      masks: one array per ReLU as `init_masks` gives them; values in [0, 1].

    Returns:
      A `Decomposition`.

    Raises:
      InputTypeError, InputError: masks are no arrays of numbers, or number, shapes or range are
        wrong; and as `attribute`.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> x = jnp.ones((8, 8, 3))
      >>> masks = dmbp_jax.init_masks(jnp.eye(3), x, 0.25, apply_fn=network)
      >>> parts = dmbp_jax.decompose(jnp.eye(3), x, 0, masks, apply_fn=network)
      >>> round(float(parts.y_positive), 6), round(float(parts.y_negative), 6)
      (0.25, 0.75)

    Source: Ruiz et al., ICCV 2021. Eq. 1, 13 and 14 have no output bias; a network that has one is
    decomposed without it, as F(x) − F_0, so that both signs describe what filters produced.
    """
    slopes = {"nonaffine": nonaffine, "pointwise": pointwise, "segments": segments}
    call = check_call(params, x, label, apply_fn, **slopes)
    return call.unbatch(each_image(_decompose, call, _check_masks(masks, call)))


def _mask_shapes(call: Call) -> list[tuple[int, ...]]:
    """Shape of every mask: the activation's without its leading 1, with the N of a batch."""
    lead = () if call.single else (len(call.images),)
    sites = call.network.program().masked
    return [(*lead, *site.mask_shape) for site in sites]


def _check_masks(masks: Any, call: Call) -> Masks:
    shapes = _mask_shapes(call)
    if not isinstance(masks, (tuple, list)):
        raise InputTypeError(
            "masks: Expected a tuple with one array per ReLU (see init_masks), "
            f"got {type(masks).__name__}."
        )
    if len(masks) != len(shapes):
        raise InputError(f"masks: Expected {len(shapes)} arrays, one per ReLU, got {len(masks)}.")
    checked = []
    for index, (mask, shape) in enumerate(zip(masks, shapes, strict=True)):
        mask = mask if is_traced(mask) else plain_array(mask, f"masks[{index}]")
        if mask.shape != shape:
            raise InputError(f"masks[{index}]: Expected shape {shape}, got {mask.shape}.")
        if not is_traced(mask) and not (np.isrealobj(mask) and ((mask >= 0) & (mask <= 1)).all()):
            raise InputError(f"masks[{index}]: Expected values in [0, 1].")
        mask = jnp.asarray(mask, mask_dtype(call.images))
        checked.append(mask[None] if call.single else mask)
    return tuple(checked)


def _decompose(
    network: TracedNetwork, image: jax.Array, label: jax.Array | None, masks: Masks
) -> Decomposition:
    x, graph = image[None], network.graph()
    frozen = graph.freeze(x)
    logits, output_bias = frozen.fixed.logits, frozen.fixed.output_bias
    label = jnp.argmax(logits) if label is None else label
    sigma = [site.from_mask(mask) for site, mask in zip(graph.masked, masks, strict=True)]
    y_positive, positive = attribution_by_backward(frozen, x, sigma, label)
    y_negative, negative = attribution_by_backward(frozen, x, [1 - one for one in sigma], label)
    y = logits[label] - output_bias[label]
    return Decomposition(
        y, y_positive, y_negative, y - y_positive - y_negative, positive[0], negative[0]
    )
