"""The call of the project: network and image in, signed attribution maps out (paper Sec. 3)."""

from typing import Any

from jax.typing import ArrayLike

from dmbp_jax.catalogue import BIASES
from dmbp_jax.checks import check_choice
from dmbp_jax.dmbp.attribution import Attribution
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputTypeError, UnknownAxesError
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.positions import check_positions


@on_any_mesh("x")
def attribute(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    config: DMBP = DMBP(),  # noqa: B008 (frozen)
    chunk_size: int | None = None,
    progress: bool = False,
    return_masks: bool = False,
    biases: str = "drop",
    nonaffine: str = "refuse",
) -> Attribution:
    """Attribute a network's logit to the pixels of its input, for and against (DMBP).

    Learns a mask σ_l ∈ [0, 1] on every ReLU so that y = y⁺ + y⁻ + ỹ with y⁺ large, y⁻ small and
    ỹ near 0 (Eq. 9, 10); the maps are ∇ₓF_σ ⊙ x and ∇ₓF_{1−σ} ⊙ x.

    Args:
      params: with `apply_fn`, any pytree and the network is `apply_fn(params, x) -> logits`;
        without it, a callable pytree (a `dmbp_jax.Network`, an NNX or Equinox module).
      x: (H, W, C) or (N, H, W, C) preprocessed images, floating point, finite.
      label: int, (N,) ints, or None for the network's top-1 of each image.
      apply_fn: maps (params, (N, H, W, C)) to logits (N, classes) with affine operations,
        activations and pools, and with `nonaffine="freeze"` gates; each image by itself. Arrays
        that it captures are read at every call; Python values are part of the program.
      config: see `DMBP`.
      chunk_size: images optimised at once; None chooses from the memory that is free. Never
        changes the result of an image.
      progress: show a progress bar over the steps; ignored inside `jit` and `vmap`.
      return_masks: keep the learned masks (37 MiB an image for ResNet50).
      biases: "drop" gives the paper's maps, what the pixels carry. The others add the biases' part
        of y± (ours): Σ positive and Σ negative are then F_σ(x) − F_0 and F_{1−σ}(x) − F_0.
        "spread" resizes it from its layers to the picture, as coarse as these; "refine" gives
        half of that map to the pixels whose gradient pulls the same way; "carry" takes it back
        layer by layer, to what gave each unit its value, as crisp as the map.
      nonaffine: what becomes of the product of two values that depend on x. "refuse" raises an
        error that names it. "freeze" takes the factor that is a nonlinear function of x
        (normalisation statistics, attention weights, gates) as a constant at x (ours).

    Returns:
      An `Attribution`; for a single image the leading N is absent everywhere. An image whose
      numbers overflow has `status` False; nothing is raised for it.

    Raises:
      InputTypeError: x is not floating point, label not integer, params not callable.
      InputError: wrong rank or channel count, empty batch, non-finite x, label out of range or of
        the wrong length, chunk_size below 1.
      NoReluError, ControlFlowError, NonAffineError: the network is not supported; the message
        names the operation and its scope, and what "freeze" would take as constants.
      UnknownAxesError: with biases="spread" or "refine", it is not known where a layer's rows and
        columns are.
      DeviceMemoryError: the device ran out of memory.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> att = dmbp_jax.attribute(jnp.eye(3), jnp.ones((8, 8, 3)), 0, apply_fn=network)
      >>> att.map.shape, att.history.shape, bool(att.status)
      ((8, 8, 3), (200, 3), True)

    Source: Ruiz, Agudo, Moreno-Noguer, ICCV 2021. Same optimisation as the paper's; no double
    back-propagation is needed (`dmbp_jax.dmbp.loop`), and the output bias is left out of y.
    """
    if not isinstance(config, DMBP):
        raise InputTypeError(f"config: Expected a DMBP, got {type(config).__name__}.")
    check_choice(biases, "biases", BIASES)
    call = check_call(
        params,
        x,
        label,
        apply_fn,
        chunk_size,
        dtype=config.dtype,
        precision=config.precision,
        nonaffine=nonaffine,
        pointwise=config.pointwise,
        segments=config.segments,
    )
    program = call.network.program()  # refuses what is not supported, before anything is compiled
    for site in program.biases if biases in ("spread", "refine") else ():
        try:
            check_positions(site)
        except UnknownAxesError as error:
            raise UnknownAxesError(f'biases: {error} Take "carry", which need not know.') from error
    result = explain(
        DmbpExplainer(call.network, config, biases, return_masks, call.low),
        (call.images, call.labels),
        chunk_size=chunk_size,
        progress=f"DMBP {len(call.images)} image(s)" if progress else None,
    )
    return call.unbatch(result)
