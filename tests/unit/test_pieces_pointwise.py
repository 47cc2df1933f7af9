"""Smooth activations against the literal network in float64: three slopes, F exact at x."""

import itertools
import math
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pointwise_oracle import IMAGE, FrozenDense, apply_fn_of, make_params
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.dmbp import loop
from dmbp_jax.dmbp.decomposition import attribution_by_backward
from dmbp_jax.errors import DmbpError
from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("x64")
LABEL = 1
PARAMS = make_params(3)
X = np.random.default_rng(8).normal(size=IMAGE)
SCALE, ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _erf(z):
    return np.vectorize(math.erf)(z)


def _gelu_by_tanh(z):
    return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


@jax.jit
def mine(z):
    return (z + jnp.sqrt(z * z + 4)) / 2


# activation -> kind, f(z) by formula
SMOOTH = {
    "silu": (jax.nn.silu, "silu", lambda z: z * _sigmoid(z)),
    "gelu": (
        lambda z: jax.nn.gelu(z, approximate=False),
        "pointwise",
        lambda z: z * (1 + _erf(z / np.sqrt(2))) / 2,
    ),
    "gelu by tanh": (jax.nn.gelu, "pointwise", _gelu_by_tanh),
    "tanh": (jnp.tanh, "tanh", np.tanh),
    "sigmoid": (jax.nn.sigmoid, "logistic", _sigmoid),
    "softplus": (jax.nn.softplus, "softplus", lambda z: np.log(1 + np.exp(z))),
    "elu": (jax.nn.elu, "elu", lambda z: np.where(z > 0, z, np.exp(z) - 1)),
    "selu": (
        jax.nn.selu,
        "selu",
        lambda z: SCALE * np.where(z > 0, z, ALPHA * (np.exp(z) - 1)),
    ),
    "mish": (jax.nn.mish, "mish", lambda z: z * np.tanh(np.log(1 + np.exp(z)))),
    "mish by hand": (
        lambda z: z * jnp.tanh(jnp.log1p(jnp.exp(z))),
        "pointwise",
        lambda z: z * np.tanh(np.log(1 + np.exp(z))),
    ),
    "hard_swish": (jax.nn.hard_swish, "hard_silu", lambda z: z * np.clip(z + 3, 0, 6) / 6),
    "celu": (jax.nn.celu, "celu", lambda z: np.maximum(z, 0) + np.exp(np.minimum(z, 0)) - 1),
    "a user's own": (mine, "mine", lambda z: (z + np.sqrt(z * z + 4)) / 2),
    "divided": (
        lambda z: 1 / (1 + jax.nn.relu(z)),
        "pointwise",
        lambda z: 1 / (1 + np.maximum(z, 0)),
    ),
}


def _slope(f, choice):
    """The slope by formula; f′(z) by central differences of two step sizes."""

    def secant(z):
        return (f(z) - f(np.zeros_like(z))) / z

    def tangent(z):
        wide, narrow = ((f(z + h) - f(z - h)) / (2 * h) for h in (2e-3, 1e-3))
        return narrow + (narrow - wide) / 3  # Richardson, the error is of order h⁴

    def segments(z, count=8):
        corners = np.concatenate([[-8], np.linspace(-4, 4, count + 1), [8]])
        slopes = np.diff(f(corners)) / np.diff(corners)
        return slopes[np.searchsorted(corners[1:-1], z, side="right")]

    return {"secant": secant, "tangent": tangent, "segments": segments}[choice]


@pytest.mark.parametrize("name", SMOOTH)
def test_every_one_is_one_masked_site(name):
    activation, kind, _ = SMOOTH[name]
    sites = dmbp_jax.sites(PARAMS, X, apply_fn=apply_fn_of(activation))
    assert [site.kind for site in sites if site.masked] == [kind, kind]


@pytest.mark.parametrize(
    "name",
    slow_beside(
        SMOOTH,
        "gelu by tanh",
        "softplus",
        "selu",
        "mish",
        "mish by hand",
        "celu",
        "divided",
        "hard_swish",
        "elu",
    ),
)
def test_its_decomposition_is_the_literal_secant(name):
    activation, _, f = SMOOTH[name]
    apply_fn, rng = apply_fn_of(activation), np.random.default_rng(1)
    oracle = FrozenDense(PARAMS, X, LABEL, f, _slope(f, "secant"))
    np.testing.assert_allclose(oracle.logits, apply_fn(PARAMS, X[None])[0], rtol=1e-9)
    for masks in ([np.ones(6), np.ones(5)], [rng.uniform(size=6), rng.uniform(size=5)]):
        parts = dmbp_jax.decompose(PARAMS, X, LABEL, masks, apply_fn=apply_fn)
        found = parts.y, parts.y_positive, parts.y_negative
        np.testing.assert_allclose(found, oracle.terms(masks), rtol=1e-9, atol=1e-12)
        expected = oracle.attribution(masks)
        np.testing.assert_allclose(parts.positive, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("choice", ["secant", "tangent", "segments"])
@pytest.mark.parametrize("name", SMOOTH)
def test_every_slope_is_exact_and_complete_at_x(name, choice):
    activation, _, f = SMOOTH[name]
    apply_fn, x = apply_fn_of(activation), jnp.asarray(X)[None]
    network = trace(bind(PARAMS, apply_fn), x)
    graph = replace(network, linearisation=Linearisation(choice)).graph()
    frozen = graph.freeze(x)
    np.testing.assert_allclose(frozen.fixed.logits, apply_fn(PARAMS, x)[0], rtol=1e-9)
    ones = [jnp.ones(site.shape) for site in graph.masked]
    y, heat = attribution_by_backward(frozen, x, ones, jnp.int32(LABEL))
    expected = frozen.fixed.logits[LABEL] - PARAMS["b2"][LABEL]
    np.testing.assert_allclose(y, expected, rtol=1e-9)  # ∇ₓFᵀx + Σ biases
    oracle = FrozenDense(PARAMS, X, LABEL, f, _slope(f, choice))
    np.testing.assert_allclose(heat[0], oracle.attribution(ones_of(oracle)), rtol=1e-5, atol=1e-8)


def ones_of(oracle):
    return [np.ones_like(slope) for slope in oracle.slopes]


FEW = ("silu", "elu", "a user's own", "divided")


@pytest.mark.parametrize("name", slow_beside(SMOOTH, *SMOOTH.keys() - FEW))
def test_compared_methods_are_complete(name):
    apply_fn = apply_fn_of(SMOOTH[name][0])
    for method in ("fullgrad", "deeplift"):
        _, residual = METHODS[method](PARAMS, X, LABEL, apply_fn=apply_fn, return_residual=True)
        np.testing.assert_allclose(residual, 0, atol=1e-9)


def test_the_secant_near_zero_is_the_derivative():
    slope, intercept = _slopes(jnp.tanh, np.array([0.0, 1e-12, -1e-300, 2.0]))
    np.testing.assert_allclose(slope, [1, 1, 1, np.tanh(2) / 2], rtol=1e-12)
    np.testing.assert_allclose(intercept, 0, atol=1e-300)


@pytest.mark.slow
def test_the_option_reaches_attribute():
    apply_fn = apply_fn_of(jax.nn.silu)
    maps = []
    for choice in ("secant", "tangent", "segments"):
        config = dmbp_jax.DMBP(steps=0, init=40.0, pointwise=choice)  # σ = 1
        result = dmbp_jax.attribute(PARAMS, X, LABEL, apply_fn=apply_fn, config=config)
        np.testing.assert_allclose(result.y_positive, result.y, rtol=1e-12)
        maps.append(result.positive)
    gradient = jax.grad(lambda x: apply_fn(PARAMS, x[None])[0, LABEL])(jnp.asarray(X))
    np.testing.assert_allclose(maps[1], gradient * X, rtol=1e-9)
    for one, other in itertools.combinations(maps, 2):
        assert abs(one - other).max() > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pointwise": "chord"}, "pointwise: Expected one of 'secant', 'tangent', 'segments'"),
        ({"segments": 0}, "segments: Expected at least 1"),
        ({"segments": 257}, "segments: Expected a number in .*256"),
        ({"segments": 2.0}, "segments: Expected an int"),
    ],
)
def test_wrong_choices_are_refused(options, message):
    with pytest.raises(DmbpError, match=message):
        dmbp_jax.DMBP(**options)


def _slopes(f, z, *choice):
    """Slope and intercept of an activation at each z, by the graph."""
    z = jnp.asarray(z).reshape(1, 1, -1, 1)

    def network(_, x):
        return f(x.reshape(len(x), -1)) @ jnp.eye(z.size)

    traced = replace(trace(bind(None, network), z), linearisation=Linearisation(*choice))
    return [a[0] for a in traced.graph().freeze(z).fixed.choices[0]]


def test_many_segments_are_the_tangent():
    z = np.random.default_rng(3).uniform(-4, 4, 50)
    for count, bound in ((16, 0.2), (256, 0.0125)):  # half of 8 / count, times |f″| < 0.8
        slope, intercept = _slopes(jnp.tanh, z, "segments", count)
        np.testing.assert_allclose(slope, 1 - np.tanh(z) ** 2, atol=bound)
        np.testing.assert_allclose(slope * z + intercept, np.tanh(z), rtol=1e-12)


@pytest.mark.slow
def test_segments_at_corners_in_tails_and_where_a_corner_has_no_value():
    z = np.array([-100.0, -4.0, 0.0, 3.9, 4.0, 5.0])
    slope, intercept = _slopes(mine, z, "segments", 2)
    f = np.asarray(mine(jnp.array([-8.0, -4.0, 0.0, 4.0, 8.0])))
    left, low, high, right = np.diff(f) / 4
    np.testing.assert_allclose(slope, [left, low, high, high, high, right], rtol=1e-12)
    np.testing.assert_allclose(slope * z + intercept, mine(jnp.array(z)), rtol=1e-12, atol=1e-12)
    slope, _ = _slopes(jnp.log, np.array([0.5]), "segments", 1)  # log(−4) is not a number
    np.testing.assert_allclose(slope, 2)


@pytest.mark.slow
def test_evidence_of_the_input_leaves_every_intercept_out():
    """f(0) = ½ of a sigmoid counts once, as a bias; ∂L/∂σ by finite differences of the oracle."""
    apply_fn = apply_fn_of(jax.nn.sigmoid)
    oracle = FrozenDense(PARAMS, X, LABEL, _sigmoid, _slope(_sigmoid, "secant"))

    def terms(theta):
        masks = [_sigmoid(t) for t in theta]
        signs = [np.ones(6), np.ones(5)], masks, [1 - m for m in masks]
        return [oracle.gated(X, m) - oracle.gated(0 * X, m) for m in signs]

    def loss(theta):
        y, y_positive, y_negative = terms(theta)
        return y_negative - y_positive + abs(y - y_positive - y_negative)

    rng = np.random.default_rng(4)
    theta = [rng.normal(size=size) for size in (6, 5)]
    direction = [rng.normal(size=size) for size in (6, 5)]
    graph, x = trace(bind(PARAMS, apply_fn), X[None]).graph(), jnp.asarray(X)[None]
    frozen = graph.freeze(x).without_biases(x)
    shaped = tuple(jnp.asarray(t)[None] for t in theta)
    found, gradient = loop.terms_and_gradient(frozen, shaped, LABEL, dmbp_jax.DMBP())
    np.testing.assert_allclose(found[:2], terms(theta)[1:], rtol=1e-9)
    moved = [
        loss([t + change * d for t, d in zip(theta, direction, strict=True)])
        for change in (1e-5, -1e-5)
    ]
    along = sum((g[0] * d).sum() for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(along, (moved[0] - moved[1]) / 2e-5, rtol=1e-7)


class ConvNet(nn.Module):
    """A small convnet with GELU and a residual."""

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Conv(4, (3, 3), (2, 2))(x))
        x = x + nn.Conv(4, (1, 1))(nn.gelu(nn.Conv(8, (3, 3), feature_group_count=4)(x)))
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.mark.parametrize("choice", slow_beside(["secant", "segments"], "secant"))
def test_a_gelu_network_from_end_to_end(choice):
    x = np.random.default_rng(5).normal(size=(2, 8, 8, 3)).astype(np.float32)
    net = ConvNet()
    variables = net.init(jax.random.key(0), x)
    config = dmbp_jax.DMBP(steps=3, pointwise=choice)
    result = dmbp_jax.attribute(variables, x, 1, apply_fn=net.apply, config=config, biases="spread")
    assert result.status.all() and result.positive.any() and result.negative.any()
    np.testing.assert_allclose(result.positive.sum((1, 2, 3)), result.y_positive, rtol=1e-4)
    np.testing.assert_allclose(result.negative.sum((1, 2, 3)), result.y_negative, rtol=1e-4)
    assert len([s for s in dmbp_jax.sites(variables, x, apply_fn=net.apply) if s.masked]) == 2
