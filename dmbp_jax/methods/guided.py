"""Guided backpropagation (Springenberg et al. 2015), Grad-CAM (Selvaraju et al., ICCV 2017), and
their product.

Guided: only positive cotangents pass a ReLU. Grad-CAM: a map of features, weighted by gradients.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.engine.mapping import each_image
from dmbp_jax.errors import SiteNotFoundError
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.pieces import Piece
from dmbp_jax.graph.positions import as_picture, check_positions
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.steps import needed_for
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import method


@method("nonaffine")
def guided_backprop(call: Call, *, multiply_by_inputs: bool = True) -> jax.Array:
    """The gradient in which every ReLU passes a cotangent only where both it and z are positive.

        backward through a ReLU:  c ↦ c ⊙ 1[z > 0] ⊙ 1[c > 0],   map = result ⊙ x

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
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
    return each_image(partial(guided_gradient, multiply_by_inputs=multiply_by_inputs), call)


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


positive_cotangent.defvjp(
    lambda value: (value, None), lambda _, cotangent: (jnp.maximum(cotangent, 0),)
)


@method("nonaffine")
def gradcam(call: Call, *, layer: str | None = None) -> jax.Array:
    """Channels of a late feature map A, weighted by how much the logit wants them.

        map = upsample( relu( Σ_k α_k A_k ) ),   α_k = Σ_positions ∂F_c/∂A_k

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
      layer: name of a ReLU or max-pool site, whose output is A (`dmbp_jax.sites` lists the
        names). None is the last ReLU whose output still has more than one position: relu5_3 of
        VGG16, the output of the last stage of a ResNet. Where it is one of several branches, as
        in an Inception module or a sum without a ReLU behind it, A has the channels of all ReLUs
        of its positions that the logits read beside it.
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
    return each_image(partial(class_activation, layers=find_layers(call, layer)), call)


def class_activation(
    network: TracedNetwork, image: jax.Array, label: jax.Array, *, layers: tuple[Site, ...]
) -> jax.Array:
    """The map of one image (H, W, C) at the input's size (H, W)."""
    graph = network.graph()
    numbers = [site.index for site in layers]

    def run(at_layer: Callable[[int, jax.Array], jax.Array]) -> jax.Array:
        """Logits (1, classes) with the output A of layer l replaced by `at_layer(l, A)`."""

        def rule(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
            return at_layer(index, piece(*z)) if index in numbers else piece(*z)

        return graph.run(image[None], Rules(rule))

    features: dict[int, jax.Array] = {}
    run(lambda index, value: features.setdefault(index, value))
    gradient = jax.grad(lambda features: run(lambda index, _: features[index])[0, label])(features)

    def weighted(site: Site) -> jax.Array:
        g, value = (as_picture(of[site.index], site) for of in (gradient, features))
        return (g.sum((1, 2), keepdims=True) * value).sum(-1)[0]

    heat = jax.nn.relu(sum(map(weighted, layers[1:]), start=weighted(layers[0])))
    return jax.image.resize(heat.astype(image.dtype), image.shape[:2], "linear", antialias=False)


def find_layers(call: Call, name: str | None) -> tuple[Site, ...]:
    """The ReLU or max-pool site called `name`; None is the last ReLU that has positions, with those
    of the same positions that the logits read without passing another one.
    """
    program = call.network.program()
    sites = [site for site in program.sites if site.kind not in ("bias", "frozen")]
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
    last = check_positions(fitting[-1])
    if name is not None:
        return (fitting[-1],)
    numbers = [site.index for site in fitting]
    values = {s.results[0]: s.index for s in program.steps if s.index in numbers}
    behind = needed_for([program.logits], program.steps, values)
    read = {program.logits, *(operand for step in behind for operand in step.operands)}
    directly = {index for value, index in values.items() if value in read}

    def beside(site: Site) -> bool:
        own = check_positions(site)
        return np.array_equal(own.rows, last.rows) and np.array_equal(own.columns, last.columns)

    return tuple(site for site in fitting if site.index in directly and beside(site))


@method("nonaffine")
def guided_gradcam(
    call: Call, *, layer: str | None = None, multiply_by_inputs: bool = True
) -> jax.Array:
    """The product of guided backpropagation and the bilinearly enlarged Grad-CAM.

        map = guided_backprop ⊙ gradcam      (gradcam is the same for every channel)

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
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
    layers = find_layers(call, layer)

    def rule(network: TracedNetwork, image: jax.Array, label: jax.Array) -> jax.Array:
        guided = guided_gradient(network, image, label, multiply_by_inputs=multiply_by_inputs)
        return guided * class_activation(network, image, label, layers=layers)[..., None]

    return each_image(rule, call)
