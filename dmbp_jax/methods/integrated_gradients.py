"""Integrated gradients (Sundararajan et al., ICML 2017): the straight path from a baseline."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.engine.baselines import make_baseline
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.engine.sampling import sum_samples
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import check_method_call, each_image, logit

RULES = ("gauss-legendre", "trapezoid")


@on_any_mesh("x")
def integrated_gradients(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    n_steps: int = 50,
    rule: str = "gauss-legendre",
    baseline: ArrayLike | str = "zero",
    multiply_by_inputs: bool = True,
    return_residual: bool = False,
    progress: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """The mean gradient on the straight line from a baseline to the image, times their difference.

        map = (x − x′) ⊙ Σᵢ wᵢ ∂F_c/∂x (x′ + αᵢ (x − x′)),   Σᵢ wᵢ = 1

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: not used.
      chunk_size: evaluations (images times points) at once; None is 64.
      n_steps: number of points, at least 1 (2 for the trapezoid rule).
      rule: "gauss-legendre", or "trapezoid" with both ends among the points.
      baseline: x′ in preprocessed space. "zero" (the mean colour of the data set for networks
        that subtract it); "mean", the image's own mean colour; "black", a black picture as the
        network's own preprocessing gives it (a `dmbp_jax.Network` only); "blur", the image
        blurred with σ = 10 pixels; or an array, (H, W, C) or (N, H, W, C).
      multiply_by_inputs: False gives the mean gradient, without the factor x − x′.
      return_residual: also return Σ map − (F_c(x) − F_c(x′)), the completeness that the number
        of points leaves over: () for a single image, else (N,).
      progress: show a bar.

    Returns:
      Signed map, shape and dtype of x; with `return_residual` the pair (map, residual).

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`, and for the options above.

    Example:
      >>> import jax.numpy as jnp
      >>> from dmbp_jax.methods import integrated_gradients
      >>> def network(params, x):
      ...     return (x**2).sum((1, 2)) @ params
      >>> heat, residual = integrated_gradients(
      ...     jnp.eye(3), jnp.ones((4, 4, 3)), 0, apply_fn=network, return_residual=True)
      >>> [round(v, 5) for v in heat[0, 0].tolist()], bool(abs(residual) < 1e-4)
      ([1.0, 0.0, 0.0], True)

    Source: Sundararajan, Taly, Yan, ICML 2017. 50 points and Gauss-Legendre are Captum's
    defaults. Weights sum to 1 for every rule and number of points (Captum's "riemann_trapezoid"
    sums to (n − 1)/n; PAIR's rule is 2 % off at its 25 points). A quarter of a percent of the
    logit is a usual residual for ReLU networks at 50 points; the authors advise more points
    above 5 %.
    """
    call = check_method_call(params, x, label, apply_fn, chunk_size)
    check_choice(rule, "rule", RULES)
    check_count(n_steps, "n_steps", minimum=2 if rule == "trapezoid" else 1)
    start = make_baseline(baseline, call.images, params=params)
    mean_gradient = sum_samples(
        _weighted_gradient, call, n_steps, start, progress=progress, n_steps=n_steps, rule=rule
    )
    shares = mean_gradient * (call.images - start)
    heat = shares if multiply_by_inputs else mean_gradient
    if not return_residual:
        return call.unbatch(heat)
    residual = shares.sum((1, 2, 3)) - each_image(_change_of_logit, call, start)
    return call.unbatch((heat, residual))


def _weighted_gradient(
    network: TracedNetwork,
    image: jax.Array,
    label: jax.Array,
    i: jax.Array,
    start: jax.Array,
    *,
    n_steps: int,
    rule: str,
) -> jax.Array:
    alphas, weights = (jnp.asarray(a, image.dtype) for a in quadrature(n_steps, rule))
    on_path = start + alphas[i] * (image - start)
    return weights[i] * jax.grad(logit, argnums=1)(network, on_path, label)


@lru_cache(maxsize=16)
def quadrature(n_steps: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions αᵢ in [0, 1] and weights wᵢ that sum to 1, (n_steps,) float64 each."""
    if rule == "trapezoid":
        weights = np.full(n_steps, 1 / (n_steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, n_steps), weights
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)  # on [−1, 1]
    return (nodes + 1) / 2, weights / 2


def _change_of_logit(
    network: TracedNetwork, image: jax.Array, label: jax.Array, start: jax.Array
) -> jax.Array:
    return logit(network, image, label) - logit(network, start, label)
