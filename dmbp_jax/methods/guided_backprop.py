"""Guided backpropagation (Springenberg et al. 2015): only positive cotangents pass a ReLU."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import check_method_call, each_image


@on_any_mesh("x")
def guided_backprop(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    multiply_by_inputs: bool = True,
    nonaffine: str = "refuse",
) -> jax.Array:
    """The gradient in which every ReLU passes a cotangent only where both it and z are positive.

        backward through a ReLU:  c ↦ c ⊙ 1[z > 0] ⊙ 1[c > 0],   map = result ⊙ x

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: not used.
      chunk_size: images at once; None is as many as fit.
      multiply_by_inputs: False gives the guided gradient itself.
      nonaffine: as in `dmbp_jax.attribute`. With "freeze", products keep their ordinary gradient
        to both factors; activations inside a frozen factor are no sites, and are not guided.

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
    call = check_method_call(params, x, label, apply_fn, chunk_size, nonaffine=nonaffine)
    return call.unbatch(each_image(guided_gradient, call, multiply_by_inputs=multiply_by_inputs))


def guided_gradient(
    network: TracedNetwork, image: jax.Array, label: jax.Array, *, multiply_by_inputs: bool
) -> jax.Array:
    """The map of one image (H, W, C)."""
    graph = network.graph()
    rules = Rules(after=lambda index, value: positive_cotangent(value))
    g = jax.grad(lambda image: graph.run(image[None], rules)[0, label])(image)
    return g * image if multiply_by_inputs else g


@jax.custom_vjp
def positive_cotangent(value: jax.Array) -> jax.Array:
    """The value of an activation that passes back only positive cotangents."""
    return value


def _forward(value: jax.Array) -> tuple[jax.Array, None]:
    return value, None


def _backward(_: None, cotangent: jax.Array) -> tuple[jax.Array]:
    return (jnp.maximum(cotangent, 0),)


positive_cotangent.defvjp(_forward, _backward)
