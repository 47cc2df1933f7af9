"""Gradients along a path to the image, times how the image changes on it; they sum to F_c's change.

Integrated gradients (Sundararajan et al., ICML 2017): the straight path from a baseline. Blur
integrated gradients (Xu et al., CVPR 2020): the path from a blurred image.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_choice, check_count, check_number
from dmbp_jax.engine.baselines import (
    filter_separably,
    gaussian_taps,
    kernel_radius,
    make_baseline,
)
from dmbp_jax.engine.mapping import each_image
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.engine.sampling import sum_samples
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import logit, method

RULES = ("gauss-legendre", "trapezoid")
SPACINGS = ("linear", "sqrt")


@method()
def integrated_gradients(
    call: Call,
    *,
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
      chunk_size: evaluations (images times points) at once; None is as many as fit.
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
    check_choice(rule, "rule", RULES)
    n = check_count(n_steps, "n_steps", minimum=2 if rule == "trapezoid" else 1)
    start = make_baseline(baseline, call)

    def sample(
        network: TracedNetwork, image: jax.Array, label: jax.Array, i: jax.Array, start: jax.Array
    ) -> jax.Array:
        change = at_least_float32(image - start)
        alphas, weights = (jnp.asarray(a, change.dtype) for a in quadrature(n, rule))
        on_path = start + (alphas[i] * change).astype(image.dtype)
        g = at_least_float32(jax.grad(logit, argnums=1)(network, on_path, label))
        return weights[i] * g

    title = "integrated_gradients" if progress else None
    mean_gradient = sum_samples(sample, call, n, start, title=title)
    shares = mean_gradient * at_least_float32(call.images - start)
    heat = (shares if multiply_by_inputs else mean_gradient).astype(call.images.dtype)
    if not return_residual:
        return heat
    return heat, shares.sum((1, 2, 3)) - each_image(_change_of_logit, call, start)


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
    here, there = logit(network, image, label), logit(network, start, label)
    return at_least_float32(here) - at_least_float32(there)


@method()
def blur_ig(
    call: Call,
    *,
    max_sigma: float = 50.0,
    n_steps: int = 100,
    grad_step: float = 0.01,
    spacing: str = "linear",
    return_residual: bool = False,
    progress: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Gradients along the path of ever more blurred images, times how the image changes on it.

        map = − Σᵢ (σᵢ₊₁ − σᵢ) · ∂F_c/∂x (b(σᵢ)) ⊙ (b(σᵢ + δ) − b(σᵢ)) / δ

    b(σ) is the image blurred with a Gaussian of width σ pixels, channel by channel, zero outside
    the image (`scipy.ndimage.gaussian_filter(mode="constant")`, cut at 4 σ).

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      chunk_size: evaluations (images times steps) at once; None is as many as fit.
      max_sigma: widest blur, in pixels, above 0.
      n_steps: number of steps from σ = 0, at least 1.
      grad_step: δ, above 0.
      spacing: "linear", σᵢ = max_sigma · i / n_steps, or "sqrt", σᵢ = max_sigma · √(i / n_steps).
        Both end at max_sigma. Every step is weighted by its own width σᵢ₊₁ − σᵢ.
      return_residual: also return Σ map − (F_c(x) − F_c(b(max_sigma))), which the number of
        steps and the kinks of the network leave over: () for a single image, else (N,).
      progress: show a bar.

    Returns:
      Signed map, shape and dtype of x; with `return_residual` the pair (map, residual). There is
      no `multiply_by_inputs`: the change of the image along the path is a factor already.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`, and for the options above.

    Example:
      >>> import jax.numpy as jnp
      >>> from dmbp_jax.methods import blur_ig
      >>> def network(params, x):
      ...     return x.sum((1, 2)) @ params
      >>> spot = jnp.zeros((9, 9, 3)).at[4, 4].set(1.0)
      >>> heat = blur_ig(jnp.eye(3), spot, 0, apply_fn=network, max_sigma=4.0)
      >>> bool(heat[4, 4, 0] > 0.8), bool(heat[4, 5, 0] < 0)
      (True, True)

    Source: Xu, Venugopalan, Sundararajan, CVPR 2020, and the authors' code in PAIR's `saliency`,
    whose defaults these are. That code weights a batch of steps with the width of the last one
    (with "sqrt" the sum is off by up to 35 %); here every step has its own. Its square-root
    schedule is σᵢ = √(max_sigma · i / n_steps), which ends at √max_sigma, 7.07 pixels for 50;
    `max_sigma=50**0.5, spacing="sqrt"` gives the same σᵢ here. The differences of the kernels
    are taken in float64 before they touch the image.
    """
    widest = check_number(max_sigma, "max_sigma", low=0, above=True)
    n = check_count(n_steps, "n_steps")
    delta = check_number(grad_step, "grad_step", low=0, above=True)
    check_choice(spacing, "spacing", SPACINGS)

    def sample(
        network: TracedNetwork, image: jax.Array, label: jax.Array, i: jax.Array
    ) -> jax.Array:
        precise = at_least_float32(image)
        tables = (jnp.asarray(t, precise.dtype) for t in _path(widest, n, delta, spacing))
        width, blur, further, slope = (table[i] for table in tables)
        blurred = filter_separably(precise, blur, blur).astype(image.dtype)
        # (B′xB′ᵀ − BxBᵀ)/δ with B′ = B + δD
        change = filter_separably(precise, slope, further) + filter_separably(precise, blur, slope)
        g = at_least_float32(jax.grad(logit, argnums=1)(network, blurred, label))
        return -width * g * change

    shares = sum_samples(sample, call, n, title="blur_ig" if progress else None)
    heat = shares.astype(call.images.dtype)
    if not return_residual:
        return heat

    def change(network: TracedNetwork, image: jax.Array, label: jax.Array) -> jax.Array:
        precise = at_least_float32(image)
        taps = jnp.asarray(gaussian_taps(widest, kernel_radius(widest)), precise.dtype)
        blurred = filter_separably(precise, taps, taps).astype(image.dtype)
        return _change_of_logit(network, image, label, blurred)

    return heat, shares.sum((1, 2, 3)) - each_image(change, call)


@lru_cache(maxsize=8)
def _path(
    max_sigma: float, n_steps: int, grad_step: float, spacing: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Widths (n_steps,) and kernels (n_steps, taps) at σᵢ, at σᵢ + δ, and their slope; float64."""
    fraction = np.arange(n_steps + 1) / n_steps
    sigmas = max_sigma * (np.sqrt(fraction) if spacing == "sqrt" else fraction)
    reach = kernel_radius(max_sigma + grad_step)
    blurs = np.stack([gaussian_taps(sigma, reach) for sigma in sigmas[:-1]])
    further = np.stack([gaussian_taps(sigma + grad_step, reach) for sigma in sigmas[:-1]])
    return np.diff(sigmas), blurs, further, (further - blurs) / grad_step
