"""Guided Grad-CAM (Selvaraju et al., ICCV 2017): guided backpropagation, where Grad-CAM looks."""

from typing import Any

import jax
from jax.typing import ArrayLike

from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import check_method_call, each_image
from dmbp_jax.methods.gradcam import class_activation, find_layer
from dmbp_jax.methods.guided_backprop import guided_gradient


@on_any_mesh("x")
def guided_gradcam(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    layer: str | None = None,
    multiply_by_inputs: bool = True,
    nonaffine: str = "refuse",
) -> jax.Array:
    """The product of guided backpropagation and the bilinearly enlarged Grad-CAM.

        map = guided_backprop ⊙ gradcam      (gradcam is the same for every channel)

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: not used.
      chunk_size: images at once; None is as many as fit.
      layer: as in `gradcam`.
      multiply_by_inputs: as in `guided_backprop`.
      nonaffine: as in `guided_backprop`.

    Returns:
      Signed map, shape and dtype of x. All zero where Grad-CAM is.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
      SiteNotFoundError: as `gradcam`.
      NoReluError, NonAffineError, ControlFlowError: the network is not supported.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dmbp_jax.methods import guided_gradcam
      >>> def network(params, x):
      ...     return jax.nn.relu(x).sum((1, 2)) @ params
      >>> spot = jnp.zeros((4, 4, 3)).at[1, 2, 0].set(2.0)
      >>> guided_gradcam(jnp.eye(3), spot, 0, apply_fn=network)[1, :, 0].tolist()
      [0.0, 0.0, 64.0, 0.0]

    Source: Selvaraju et al., ICCV 2017. Captum enlarges with nearest neighbours by default and
    returns an empty array when a layer does not fit; here bilinear, and an error.
    """
    call = check_method_call(params, x, label, apply_fn, chunk_size, nonaffine=nonaffine)
    heat = each_image(
        _guided_gradcam,
        call,
        layer=find_layer(call, layer),
        multiply_by_inputs=multiply_by_inputs,
    )
    return call.unbatch(heat)


def _guided_gradcam(
    network: TracedNetwork,
    image: jax.Array,
    label: jax.Array,
    *,
    layer: Site,
    multiply_by_inputs: bool,
) -> jax.Array:
    guided = guided_gradient(network, image, label, multiply_by_inputs=multiply_by_inputs)
    return guided * class_activation(network, image, label, layer=layer)[..., None]
