"""Gradient × input (Simonyan et al. 2014; row "ND" of Table 1 and "Grad" of Table 2)."""

from typing import Any

import jax
from jax.typing import ArrayLike

from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import check_method_call, each_image, logit


@on_any_mesh("x")
def gradient(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    multiply_by_inputs: bool = True,
) -> jax.Array:
    """The gradient of the label's logit, times the input.

        map = ∂F_c/∂x ⊙ x

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: not used.
      chunk_size: images at once; None is as many as fit.
      multiply_by_inputs: False gives the bare gradient.

    Returns:
      Signed map, shape and dtype of x. Zero where the network does not react at all.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.

    Example:
      >>> import jax.numpy as jnp
      >>> from dmbp_jax.methods import gradient
      >>> def network(params, x):
      ...     return x.sum((1, 2)) @ params
      >>> gradient(jnp.eye(3), 2 * jnp.ones((4, 4, 3)), 0, apply_fn=network)[0, 0].tolist()
      [2.0, 0.0, 0.0]

    Source: Simonyan, Vedaldi, Zisserman, ICLR workshop 2014. They take the largest absolute
    value over channels; here the map keeps sign and channels. Needs no ReLU: any differentiable
    network will do.
    """
    call = check_method_call(params, x, label, apply_fn, chunk_size)
    return call.unbatch(each_image(_gradient, call, multiply_by_inputs=multiply_by_inputs))


def _gradient(
    network: TracedNetwork, image: jax.Array, label: jax.Array, *, multiply_by_inputs: bool
) -> jax.Array:
    g = jax.grad(logit, argnums=1)(network, image, label)
    return g * image if multiply_by_inputs else g
