"""The public list of a network's sites: every activation, pool, frozen factor and bias."""

from typing import Any

import jax
from jax.typing import ArrayLike

from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.program import Site


@jax.transfer_guard("allow")  # of a picture of NumPy, which is asked for
def sites(
    params: Any, x: ArrayLike, *, apply_fn: ApplyFn | None = None, nonaffine: str = "refuse"
) -> tuple[Site, ...]:
    """List every activation, pool, frozen factor and bias of a network, in order of evaluation.

    Args:
      params: a callable pytree, or any pytree when `apply_fn` is given.
      x: (H, W, C) or (N, H, W, C) float image; only its shape and dtype matter.
      apply_fn: `(params, x) -> logits`.
      nonaffine: as in `attribute`; with "freeze" the factors that are constants at x are listed
        with kind "frozen".

    Returns:
      A tuple of `Site`; `site.name` is what `gradcam(layer=...)` takes.

    Raises:
      InputError, InputTypeError: as `attribute`.
      NonAffineError, ControlFlowError, NoReluError: the network is not supported; the message
        names the operation and its scope.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> [(s.kind, s.name, s.shape) for s in
      ...  dmbp_jax.sites(jnp.eye(3), jnp.ones((8, 8, 3)), apply_fn=network)]
      [('relu', 'relu', (1, 3))]
    """
    call = check_call(params, x, apply_fn=apply_fn, nonaffine=nonaffine)
    return tuple(site.as_network for site in call.network.program().sites)
