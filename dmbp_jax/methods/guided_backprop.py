"""Guided backpropagation (Springenberg et al. 2015): only positive cotangents pass a ReLU."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.graph.graph import Rules, trace
from dmbp_jax.graph.model import ApplyFn, Model
from dmbp_jax.methods.calling import check_call, each_image


def guided_backprop(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    multiply_by_input: bool = True,
) -> jax.Array:
    """The gradient in which every ReLU passes a cotangent only where both it and z are positive.

        backward through a ReLU:  c ↦ c ⊙ 1[z > 0] ⊙ 1[c > 0],   map = result ⊙ x

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: not used.
      chunk_size: images at once; None takes the whole batch.
      multiply_by_input: False gives the guided gradient itself.

    Returns:
      Signed map, shape and dtype of x. Zero where no positive path reaches the input.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
      NoReluError, NonAffineError, ControlFlowError: the network is not supported.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dmbp_jax.methods import guided_backprop
      >>> def network(params, x):
      ...     return jax.nn.relu(x.sum((1, 2))) @ params
      >>> signs = jnp.array([[1.0], [-1.0], [1.0]])
      >>> guided_backprop(signs, jnp.ones((4, 4, 3)), 0, apply_fn=network)[0, 0].tolist()
      [1.0, 0.0, 1.0]

    Source: Springenberg et al., ICLR workshop 2015. ReLUs are found in the program, so one that
    is used twice or written as `jnp.maximum(z, 0)` is guided like any other (module hooks miss
    those silently); at z = 0 exactly nothing passes.
    """
    call = check_call(params, x, label, apply_fn, chunk_size)
    return call.unbatch(each_image(guided_gradient, call, multiply_by_input=multiply_by_input))


def guided_gradient(
    model: Model, image: jax.Array, label: jax.Array, *, multiply_by_input: bool
) -> jax.Array:
    """The map of one image (H, W, C)."""
    graph = trace(model, image[None])
    rules = Rules(relu=lambda index, z: guided_relu(z))
    g = jax.grad(lambda image: graph.run(image[None], rules)[0, label])(image)
    return g * image if multiply_by_input else g


@jax.custom_vjp
def guided_relu(z: jax.Array) -> jax.Array:
    """ReLU that passes back only positive cotangents."""
    return jax.nn.relu(z)


def _forward(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.nn.relu(z), z > 0


def _backward(gate: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(gate & (cotangent > 0), cotangent, 0),)


guided_relu.defvjp(_forward, _backward)
