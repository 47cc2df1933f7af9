"""Grad-CAM (Selvaraju et al., ICCV 2017): a feature map weighted by its gradient's sum."""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import SiteNotFoundError
from dmbp_jax.graph.axes import as_picture, check_axes
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.pieces import Piece
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import check_method_call, each_image


@on_any_mesh("x")
def gradcam(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    layer: str | None = None,
    nonaffine: str = "refuse",
) -> jax.Array:
    """Channels of a late feature map A, weighted by how much the logit wants them.

        map = upsample( relu( Σ_k α_k A_k ) ),   α_k = Σ_positions ∂F_c/∂A_k

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: not used.
      chunk_size: images at once; None is as many as fit.
      layer: name of a ReLU or max-pool site, whose output is A (`dmbp_jax.sites` lists the
        names). None is the last ReLU whose output still has more than one position: relu5_3 of
        VGG16, the output of the last stage of a ResNet.
      nonaffine: as in `dmbp_jax.attribute`; the gradient is the ordinary one, frozen factors or
        not.

    Returns:
      (H, W) or (N, H, W), not negative, dtype of x, bilinear (half-pixel centres) at the size of
      x. All zero where every weighted sum is negative.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
      SiteNotFoundError: no such layer (the message lists all), or none with positions.
      UnknownAxesError: it is not known where the layer's rows and columns are.
      NoReluError, NonAffineError, ControlFlowError: the network is not supported.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dmbp_jax.methods import gradcam
      >>> def network(params, x):
      ...     return jax.nn.relu(x).mean((1, 2)) @ params
      >>> spot = jnp.zeros((4, 4, 3)).at[1, 2, 0].set(1.0)
      >>> gradcam(jnp.eye(3), spot, 0, apply_fn=network)[1].tolist()
      [0.0, 0.0, 1.0, 0.0]

    Source: Selvaraju et al., ICCV 2017, and their code: logit, **sum** over positions, ReLU,
    bilinear. Captum takes the mean over positions (a constant factor) and no ReLU by default;
    others also scale every map to [0, 1], which hides an empty one.
    """
    call = check_method_call(params, x, label, apply_fn, chunk_size, nonaffine=nonaffine)
    return call.unbatch(each_image(class_activation, call, layer=find_layer(call, layer)))


def class_activation(
    network: TracedNetwork, image: jax.Array, label: jax.Array, *, layer: Site
) -> jax.Array:
    """The map of one image (H, W, C) at the input's size (H, W)."""
    graph = network.graph()

    def run(at_layer: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Logits (1, classes) with the layer's output A replaced by `at_layer(A)`."""

        def rule(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
            return at_layer(piece(*z)) if index == layer.index else piece(*z)

        return graph.run(image[None], Rules(rule))

    outputs: list[jax.Array] = []
    run(lambda value: outputs.append(value) or value)
    features = outputs.pop()
    g = jax.grad(lambda features: run(lambda _: features)[0, label])(features)
    g, features = as_picture(g, layer), as_picture(features, layer)
    heat = jax.nn.relu((g.sum((1, 2), keepdims=True) * features).sum(-1)[0])
    return jax.image.resize(heat.astype(image.dtype), image.shape[:2], "linear", antialias=False)


def find_layer(call: Call, name: str | None) -> Site:
    """The ReLU or max-pool site called `name`; None is the last ReLU that has positions.

    Raises:
      SiteNotFoundError: none fits.
      UnknownAxesError: it is not known where its rows and columns are.
    """
    sites = [site for site in call.network.program().sites if site.kind not in ("bias", "frozen")]
    spatial = [site for site in sites if site.has_positions]
    if name is not None:
        fitting = [site for site in spatial if site.name == name]
    else:
        fitting = [site for site in spatial if site.masked]
    if not fitting:
        wanted = "a ReLU whose output has positions" if name is None else f"{name!r}"
        names = ", ".join(site.name for site in spatial) or "none"
        raise SiteNotFoundError(
            f"layer: Expected a ReLU or max-pool with positions, got {wanted}, "
            f"which the network does not have. Its layers: {names}."
        )
    check_axes(fitting[-1])
    return fitting[-1]
