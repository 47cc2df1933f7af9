"""Evidence of the input alone, what the pixels carry, complete maps and sign descent, in float64.

The oracle is the literal NumPy one; what it has no word for is written out here, with plain loops.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracle import Oracle
from short_methods import slow_beside
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.dmbp import loop
from dmbp_jax.dmbp.spreading import enlarge_sums
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

pytestmark = pytest.mark.usefixtures("x64")
LABEL = 1
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


class InputOracle(Oracle):
    """F_σ(x) − F_σ(0) instead of F_σ(x), with the gates and winners of x in both."""

    def gated(self, x, masks):
        return super().gated(x, masks) - super().gated(np.zeros_like(x), masks)

    def terms(self, masks):
        inverse = [1 - mask for mask in masks]
        opened = [np.ones_like(mask) for mask in masks]
        return tuple(self.gated(self.x, m) for m in (opened, masks, inverse))


def make_case(name, seed=0):
    layers = NETWORKS[name]
    params, x = make_params(layers, seed), make_image(seed)
    oracles = (Oracle(layers, params, x, LABEL), InputOracle(layers, params, x, LABEL))
    return apply_fn_of(layers), params, x, *oracles


def learn(name, seed=0, biases="drop", **options):
    """An attribution with masks far from ½, its two oracles, and the masks of both signs."""
    apply_fn, params, x, oracle, of_input = make_case(name, seed)
    result = dmbp_jax.attribute(
        params,
        x,
        LABEL,
        apply_fn=apply_fn,
        config=DMBP.quick(**options),
        biases=biases,
        return_masks=True,
    )
    masks = [np.asarray(mask) for mask in result.masks]
    assert max(abs(mask - 0.5).max() for mask in masks) > 0.2
    return result, oracle, of_input, (masks, [1 - mask for mask in masks])


def carried_by(oracle, of_input, masks):
    """|Σ map| over |Σ map| + |Σ∇bᵀb| of one sign, from two values of the gated network."""
    pixels = of_input.gated(of_input.x, masks)
    biases = oracle.gated(oracle.x, masks) - oracle.output_bias() - pixels
    return abs(pixels) / (abs(pixels) + abs(biases))


@pytest.mark.parametrize("seed", slow_beside([0, 1], 1))
@pytest.mark.parametrize("name", slow_beside(NETWORKS, "dense", "conv", "pool"))
def test_evidence_of_the_input_is_the_gated_network_at_x_less_that_at_zero(name, seed):
    a, oracle, of_input, (masks, inverse) = learn(name, seed, evidence="input")
    y, y_positive, y_negative = of_input.terms(masks)
    np.testing.assert_allclose(a.y_positive, y_positive, **CLOSE)
    np.testing.assert_allclose(a.y_negative, y_negative, **CLOSE)
    np.testing.assert_allclose(a.y_nuisance, y - y_positive - y_negative, **CLOSE)
    np.testing.assert_allclose(a.y, oracle.terms(masks)[0], **CLOSE)
    np.testing.assert_allclose(a.y_bias, oracle.terms(masks)[0] - y, **CLOSE)
    np.testing.assert_allclose(a.y, a.y_positive + a.y_negative + a.y_nuisance + a.y_bias, **CLOSE)
    np.testing.assert_allclose(a.positive.sum(), a.y_positive, **CLOSE)
    np.testing.assert_allclose(a.negative.sum(), a.y_negative, **CLOSE)
    np.testing.assert_allclose(a.positive, oracle.attribution(masks), **CLOSE)
    np.testing.assert_allclose(a.negative, oracle.attribution(inverse), **CLOSE)


@pytest.mark.parametrize("evidence", ["all", "input"])
@pytest.mark.parametrize("name", slow_beside(NETWORKS, "dense", "conv", "pool"))
def test_carried_is_the_share_of_the_pixels_in_each_sign(name, evidence):
    a, oracle, of_input, both = learn(name, evidence=evidence)
    expected = [carried_by(oracle, of_input, masks) for masks in both]
    np.testing.assert_allclose(a.carried, expected, **CLOSE)
    assert ((a.carried > 0) & (a.carried < 1)).all()  # every network here has biases


def test_evidence_of_all_counts_every_bias():
    a, oracle, _, (masks, _) = learn("residual")
    y, y_positive, y_negative = oracle.terms(masks)
    np.testing.assert_allclose([a.y, a.y_positive, a.y_negative], [y, y_positive, y_negative], 1e-9)
    assert a.y_bias == 0


def input_step(name, masks):
    """(y⁺, y⁻, ỹ) and ∂L/∂θ of the loop with evidence "input"."""
    apply_fn, params, x, _, _ = make_case(name)
    graph = trace(bind(params, apply_fn), jnp.asarray(x)[None]).graph()

    @jax.jit
    def step(x, theta):
        frozen = graph.freeze(x).without_biases(x)
        return loop.terms_and_gradient(frozen, theta, jnp.int32(LABEL), DMBP())

    return step(jnp.asarray(x)[None], tuple(jnp.asarray(logit(m))[None] for m in masks))


def logit(mask):
    return np.log(mask / (1 - mask))


def random_masks(oracle):
    rng = np.random.default_rng(2)
    return [rng.uniform(0.1, 0.9, size=shape) for shape in oracle.shapes]


@pytest.mark.parametrize("name", slow_beside(NETWORKS, "conv", "pool"))
def test_mask_gradient_of_the_input_evidence_is_the_oracles(name):
    *_, of_input = make_case(name)
    masks = random_masks(of_input)
    terms, gradient = input_step(name, masks)
    y, y_positive, y_negative = of_input.terms(masks)
    np.testing.assert_allclose(terms, [y_positive, y_negative, y - y_positive - y_negative], 1e-9)
    for ours, theirs, mask in zip(gradient, of_input.mask_gradient(masks), masks, strict=True):
        np.testing.assert_allclose(ours[0], theirs * mask * (1 - mask), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["conv", "residual"])
def test_mask_gradient_of_the_input_evidence_is_the_finite_difference(name):
    *_, of_input = make_case(name)
    masks = random_masks(of_input)
    _, gradient = input_step(name, masks)
    rng = np.random.default_rng(5)
    direction = [rng.normal(size=mask.shape) for mask in masks]
    # Central difference: error O(ε²) against rounding O(1e-16 / ε).
    epsilon = 1e-5

    def moved(step):
        thetas = [logit(m) + step * d for m, d in zip(masks, direction, strict=True)]
        return of_input.loss([1 / (1 + np.exp(-theta)) for theta in thetas])

    numeric = (moved(epsilon) - moved(-epsilon)) / (2 * epsilon)
    analytic = sum(float((g[0] * d).sum()) for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(analytic, numeric, rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "evidence"),
    slow_beside(
        list(itertools.product(NETWORKS, ["all", "input"])),
        *itertools.product(["dense", "conv"], ["all", "input"]),
        ("pool", "input"),
        ("pointwise", "all"),
        ("residual", "input"),
    ),
)
def test_maps_with_spread_biases_sum_to_the_gated_network(name, evidence):
    a, oracle, of_input, (masks, inverse) = learn(name, biases="spread", evidence=evidence)
    closed = oracle.output_bias()
    np.testing.assert_allclose(a.positive.sum(), oracle.gated(oracle.x, masks) - closed, **CLOSE)
    np.testing.assert_allclose(a.negative.sum(), oracle.gated(oracle.x, inverse) - closed, **CLOSE)
    # What the maps show changes nothing of what was learned.
    expected = [carried_by(oracle, of_input, m) for m in (masks, inverse)]
    np.testing.assert_allclose(a.carried, expected, **CLOSE)
    np.testing.assert_allclose(a.y, a.y_positive + a.y_negative + a.y_nuisance + a.y_bias, **CLOSE)


def enlarge_literally(layer, shape):
    """Bilinear resize by the tent of half-pixel centres, then every cell scaled to its sum."""
    (height, width), (rows, columns) = layer.shape, shape
    result = np.zeros(shape)
    for i, j in np.ndindex(height, width):
        down = tent_weights(i, height, rows)
        across = tent_weights(j, width, columns)
        share = np.outer(down, across)
        result += layer[i, j] * share / share.sum()
    return result


def tent_weights(cell, cells, pixels):
    """How much of each pixel's bilinear value comes from one cell."""
    weights = np.zeros(pixels)
    for pixel in range(pixels):
        place = (pixel + 0.5) * cells / pixels - 0.5
        tents = [max(0.0, 1 - abs(place - other)) for other in range(cells)]
        weights[pixel] = tents[cell] / sum(tents)
    return weights


@pytest.mark.parametrize(
    ("size", "shape"),
    slow_beside(
        [((3, 2), (6, 5)), ((1, 1), (4, 3)), ((4, 5), (4, 5)), ((2, 3), (7, 3))],
        ((4, 5), (4, 5)),
        ((2, 3), (7, 3)),
    ),
)
def test_a_layer_is_enlarged_with_the_sum_of_every_cell(size, shape, rng):
    layer = rng.normal(size=size)
    enlarged = enlarge_sums(jnp.asarray(layer), shape)
    np.testing.assert_allclose(enlarged, enlarge_literally(layer, shape), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(enlarged.sum(), layer.sum(), rtol=1e-12)


def test_a_layer_after_every_activation_is_not_spread():
    """Its bias is part of F_0, whatever positions it has."""
    rng = np.random.default_rng(0)
    one, two, w = (rng.normal(size=shape) for shape in ((2, 3), (3, 2), (8, 2)))
    b, late = rng.normal(size=(2, 2, 3)), rng.normal(size=(2, 2, 2))
    x = rng.normal(size=(2, 2, 2))

    def network(_, x):
        return (jax.nn.relu(x @ one + b) @ two + late).reshape(len(x), -1) @ w

    found = dmbp_jax.attribute(None, x, 0, apply_fn=network, config=DMBP(steps=0), biases="spread")
    at_unit = ((x @ one + b) > 0) * (w[:, 0].reshape(2, 2, 2) @ two.T) / 2
    expected = (at_unit @ one.T) * x + (at_unit * b).sum(-1, keepdims=True) / 2
    np.testing.assert_allclose(found.positive, expected, **CLOSE)


def test_spread_map_is_pixels_plus_the_enlarged_layer_plus_the_rest():
    """One convolution with a bias (2 × 2 positions), one dense layer: every part by hand."""
    layers = [("conv", 3, 2, 2, 0), ("relu",), ("flatten",), ("dense", 5), ("relu",), ("dense", 4)]
    shape = (4, 4, 2)
    params, x = make_params(layers, 0, shape), make_image(0, shape)
    oracle = Oracle(layers, params, x, LABEL)
    a = dmbp_jax.attribute(
        params,
        x,
        LABEL,
        apply_fn=apply_fn_of(layers),
        config=DMBP.quick(),
        biases="spread",
        return_masks=True,
    )
    first, second = (np.asarray(mask) for mask in a.masks)
    for masks, heat in (([first, second], a.positive), ([1 - first, 1 - second], a.negative)):
        late = params[5]["weight"][:, LABEL] * masks[1] * oracle.gates[1]
        early = (params[3]["weight"] @ late).reshape(2, 2, 3) * masks[0] * oracle.gates[0]
        layer = (early * params[0]["bias"]).sum(-1)
        without_place = (late * params[3]["bias"]).sum()
        drawn = enlarge_literally(layer, (4, 4)) + without_place / 16
        expected = oracle.attribution(masks) + drawn[..., None] / 2
        np.testing.assert_allclose(heat, expected, **CLOSE)


def descend_literally(oracle, rates):
    """θ ← θ − r_t sign(∂L/∂θ): masks, terms."""
    theta = [np.zeros(shape) for shape in oracle.shapes]
    history = []
    for rate in rates:
        masks = [1 / (1 + np.exp(-t)) for t in theta]
        y, y_positive, y_negative = oracle.terms(masks)
        history.append([y_positive, y_negative, y - y_positive - y_negative])
        for t, gradient in zip(theta, oracle.mask_gradient(masks), strict=True):
            t -= rate * np.where(abs(gradient) > 1e-12, np.sign(gradient), 0)
    return [1 / (1 + np.exp(-t)) for t in theta], history


@pytest.mark.parametrize("evidence", ["all", "input"])
@pytest.mark.parametrize("name", ["dense", pytest.param("conv", marks=pytest.mark.slow)])
def test_an_optimiser_with_a_schedule_is_the_literal_loop(name, evidence):
    apply_fn, params, x, oracle, of_input = make_case(name)
    optimizer = optax.sign_sgd(optax.linear_schedule(1.0, 0.5, 4))
    config = DMBP(steps=5, optimizer=optimizer, evidence=evidence)
    a = dmbp_jax.attribute(params, x, LABEL, apply_fn=apply_fn, config=config, return_masks=True)
    literal = of_input if evidence == "input" else oracle
    # Exact in float32, in which optax computes a rate that changes.
    masks, history = descend_literally(literal, [1, 0.875, 0.75, 0.625, 0.5])
    np.testing.assert_allclose(a.history, history, **CLOSE)
    for ours, theirs in zip(a.masks, masks, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)
