"""Decomposition, loss and mask gradient against the literal NumPy oracle, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import Oracle
from short_methods import slow_beside
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax.dmbp import loop
from dmbp_jax.dmbp.decomposition import gated_logits, masked_cotangents
from dmbp_jax.dmbp.objective import OBJECTIVES, Objective
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

pytestmark = pytest.mark.usefixtures("x64")
LABEL = 1


def _case(name: str, seed: int = 0):
    layers = NETWORKS[name]
    params, x = make_params(layers, seed), make_image(seed)
    oracle = Oracle(layers, params, x, LABEL)
    rng = np.random.default_rng([seed, 2])
    masks = [rng.uniform(size=shape) for shape in oracle.shapes]
    return apply_fn_of(layers), params, x, oracle, masks


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_decompose_is_the_papers_equations(name, seed):
    apply_fn, params, x, oracle, masks = _case(name, seed)
    parts = dmbp_jax.decompose(params, x, LABEL, masks, apply_fn=apply_fn)
    y, y_positive, y_negative = oracle.terms(masks)
    np.testing.assert_allclose(parts.y, y, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(parts.y_positive, y_positive, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(parts.y_negative, y_negative, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(
        parts.y, parts.y_positive + parts.y_negative + parts.y_nuisance, rtol=1e-12
    )
    np.testing.assert_allclose(parts.positive, oracle.attribution(masks), rtol=1e-9, atol=1e-11)
    inverse = [1 - mask for mask in masks]
    np.testing.assert_allclose(parts.negative, oracle.attribution(inverse), rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(parts.map, parts.positive + parts.negative)


@pytest.mark.parametrize("name", NETWORKS)
def test_open_masks_are_the_network_and_closed_masks_its_output_bias(name):
    apply_fn, params, x, oracle, masks = _case(name)
    ones = [np.ones_like(mask) for mask in masks]
    parts = dmbp_jax.decompose(params, x, LABEL, ones, apply_fn=apply_fn)
    np.testing.assert_allclose(parts.y_positive, parts.y, rtol=1e-12)
    np.testing.assert_allclose(parts.y_negative, 0, atol=1e-12)
    np.testing.assert_allclose(parts.y + oracle.output_bias(), oracle.logits[LABEL], rtol=1e-12)
    by_jax = jax.jit(jax.grad(lambda x: apply_fn(params, x[None])[0, LABEL]))
    gradient = by_jax(jnp.asarray(x))
    np.testing.assert_allclose(parts.positive, gradient * x, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", slow_beside(NETWORKS, "conv", "dense"))
def test_forward_form_equals_backward_form(name):
    apply_fn, params, x, _, masks = _case(name)
    parts = dmbp_jax.decompose(params, x, LABEL, masks, apply_fn=apply_fn)
    graph = trace(bind(params, apply_fn), jnp.asarray(x)[None]).graph()

    @jax.jit
    def by_forward(x, masks):
        frozen = graph.freeze(x)
        divisors = [1 / mask for mask in masks]
        return (gated_logits(frozen, divisors)[0] - frozen.fixed.output_bias)[LABEL]

    y_positive = by_forward(jnp.asarray(x)[None], [jnp.asarray(mask)[None] for mask in masks])
    np.testing.assert_allclose(y_positive, parts.y_positive, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", NETWORKS)
def test_mask_gradient_is_the_oracles(name):
    """Of every objective, in one compiled program."""
    apply_fn, params, x, oracle, masks = _case(name)
    graph = trace(bind(params, apply_fn), jnp.asarray(x)[None]).graph()

    @jax.jit
    def steps(x, theta):
        frozen, label = graph.freeze(x), jnp.int32(LABEL)
        configs = {loss: dmbp_jax.DMBP(loss=loss) for loss in OBJECTIVES}
        return {
            loss: loop.terms_and_gradient(frozen, theta, label, config)
            for loss, config in configs.items()
        }

    theta = tuple(jnp.asarray(np.log(mask / (1 - mask)))[None] for mask in masks)
    found = steps(jnp.asarray(x)[None], theta)
    assert set(found) == {"all", "positive-negative", "positive"}
    y, y_positive, y_negative = oracle.terms(masks)
    expected = [y_positive, y_negative, y - y_positive - y_negative]
    for loss, (terms, gradient) in found.items():
        np.testing.assert_allclose(terms, expected, 1e-9)
        value = OBJECTIVES[loss].value(y, terms[0], terms[1])
        np.testing.assert_allclose(value, oracle.loss(masks, loss), rtol=1e-9)
        theirs = oracle.mask_gradient(masks, loss)
        for ours, one, mask in zip(gradient, theirs, masks, strict=True):
            np.testing.assert_allclose(ours[0], one * mask * (1 - mask), rtol=1e-9, atol=1e-11)


def test_mask_gradient_is_the_finite_difference():
    _, _, _, oracle, masks = _case("residual")
    rng = np.random.default_rng(5)
    direction = [rng.normal(size=mask.shape) for mask in masks]
    # Central difference of a smooth multilinear function: error O(ε²) against rounding O(1e-16/ε).
    epsilon = 1e-5

    def moved(step: float) -> float:
        return oracle.loss([m + step * d for m, d in zip(masks, direction, strict=True)])

    numeric = (moved(epsilon) - moved(-epsilon)) / (2 * epsilon)
    analytic = sum(
        (g * d).sum() for g, d in zip(oracle.mask_gradient(masks), direction, strict=True)
    )
    np.testing.assert_allclose(analytic, numeric, rtol=1e-7)


def squared(y, y_positive, y_negative):
    """y⁻ − y⁺ + ỹ²: an objective that the package does not have."""
    return y_negative - y_positive + (y - y_positive - y_negative) ** 2


def test_mask_gradient_of_the_callers_own_objective_is_the_finite_difference():
    """With both signs at once, and of a loss that is given as one-sided."""
    apply_fn, params, x, oracle, masks = _case("residual")
    graph = trace(bind(params, apply_fn), jnp.asarray(x)[None]).graph()
    theta = [np.log(mask / (1 - mask)) for mask in masks]
    objectives = {
        "derived": Objective(squared),
        "numbers": Objective(lambda y, p, n: n - 3 * p),
        "one sign": Objective(lambda y, p, n: 2 * n, one_sided=True),
    }

    @jax.jit
    def gradients(x, theta):
        frozen = graph.freeze(x)
        configs = {name: dmbp_jax.DMBP(loss=own) for name, own in objectives.items()}
        return {
            name: loop.terms_and_gradient(frozen, theta, jnp.int32(LABEL), config)[1]
            for name, config in configs.items()
        }

    found = gradients(jnp.asarray(x)[None], tuple(jnp.asarray(t)[None] for t in theta))
    rng = np.random.default_rng(6)
    direction, epsilon = [rng.normal(size=t.shape) for t in theta], 1e-5
    for name, own in objectives.items():
        by_side = [
            own.value(*oracle.terms([
                1 / (1 + np.exp(-t - step * d)) for t, d in zip(theta, direction, strict=True)
            ]))
            for step in (epsilon, -epsilon)
        ]  # fmt: skip
        analytic = sum((g[0] * d).sum() for g, d in zip(found[name], direction, strict=True))
        numeric = (by_side[0] - by_side[1]) / (2 * epsilon)
        np.testing.assert_allclose(analytic, numeric, rtol=1e-7, err_msg=name)


def test_no_double_back_propagation_is_needed():
    """Fact 2: u c = σ H z⁺ c⁺ equals σ times JAX's own derivative of y⁺ by the masks."""
    apply_fn, params, x, _, masks = _case("residual")
    graph = trace(bind(params, apply_fn), jnp.asarray(x)[None]).graph()

    @jax.jit
    def both(x, sigma):
        frozen = graph.freeze(x)

        def logit(masks):
            logits, _, activations = gated_logits(frozen, [1 / mask for mask in masks])
            return logits[LABEL], activations

        derivative, activations = jax.grad(logit, has_aux=True)(sigma)
        divisors = [1 / mask for mask in sigma]
        cotangents, _ = masked_cotangents(frozen, divisors, jnp.int32(LABEL))
        return activations, cotangents, derivative

    sigma = [jnp.asarray(mask)[None] for mask in masks]
    for u, c, derivative, s in zip(*both(jnp.asarray(x)[None], sigma), sigma, strict=True):
        np.testing.assert_allclose(u * c, s * derivative, rtol=1e-11, atol=1e-13)


def test_masks_are_checked():
    apply_fn, params, x, _, masks = _case("dense")
    with pytest.raises(InputError, match=r"masks: Expected 2 arrays.*got 1"):
        dmbp_jax.decompose(params, x, LABEL, masks[:1], apply_fn=apply_fn)
    with pytest.raises(InputError, match=r"masks\[1\]: Expected shape \(6,\), got \(7,\)"):
        dmbp_jax.decompose(params, x, LABEL, [masks[0], masks[0]], apply_fn=apply_fn)
    with pytest.raises(InputError, match=r"masks\[0\]: Expected values in \[0, 1\]"):
        dmbp_jax.decompose(params, x, LABEL, [masks[0] + 1, masks[1]], apply_fn=apply_fn)
    with pytest.raises(InputTypeError, match="masks: Expected a tuple"):
        dmbp_jax.decompose(params, x, LABEL, masks[0], apply_fn=apply_fn)
    for mask in (masks[0].astype(str), masks[0].astype(object), None):
        with pytest.raises(InputTypeError, match=r"masks\[0\]: Expected an array of numbers"):
            dmbp_jax.decompose(params, x, LABEL, [mask, masks[1]], apply_fn=apply_fn)
    with pytest.raises(InputError, match=r"masks\[0\]: Expected values in \[0, 1\]"):
        dmbp_jax.decompose(params, x, LABEL, [masks[0] + 0j, masks[1]], apply_fn=apply_fn)
    with pytest.raises(InputError, match=r"value: Expected a number in \[0, 1\]"):
        dmbp_jax.init_masks(params, x, 1.5, apply_fn=apply_fn)
    for value in ("½", None, [0.5, 0.5]):
        with pytest.raises(InputTypeError, match="value: Expected a"):
            dmbp_jax.init_masks(params, x, value, apply_fn=apply_fn)


def test_init_masks_has_one_mask_per_relu():
    apply_fn, params, x, oracle, _ = _case("pool")
    single = dmbp_jax.init_masks(params, x, apply_fn=apply_fn)
    assert [mask.shape for mask in single] == oracle.shapes
    batch = dmbp_jax.init_masks(params, np.stack([x, x]), apply_fn=apply_fn)
    assert [mask.shape for mask in batch] == [(2, *shape) for shape in oracle.shapes]
    assert all((mask == 0.5).all() for mask in batch)
