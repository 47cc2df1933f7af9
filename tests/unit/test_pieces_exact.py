"""Piecewise-linear pieces against the literal network in float64: exact slopes and intercepts."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pointwise_oracle import IMAGE, FrozenDense, apply_fn_of, make_params
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.dmbp import loop
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.pieces import Maximum, Relu
from dmbp_jax.graph.pieces.pools import GlobalPool
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("x64")
LABEL = 1
PARAMS = make_params()
X = np.random.default_rng(7).normal(size=IMAGE)
ALPHA = 0.3


def _prelu(z):
    return jnp.where(z >= 0, z, jnp.full(z.shape[-1:], ALPHA) * z)


def _inside(low, high):
    return lambda z: ((z > low) & (z < high)).astype(float)


# activation -> kind, f(z) and its slope, by formula
EXACT = {
    "leaky_relu": (
        lambda z: jax.nn.leaky_relu(z, 0.1),
        "leaky_relu",
        lambda z: np.where(z > 0, z, 0.1 * z),
        lambda z: np.where(z > 0, 1, 0.1),
    ),
    "prelu": (
        _prelu,
        "pointwise",
        lambda z: np.where(z > 0, z, ALPHA * z),
        lambda z: np.where(z > 0, 1, ALPHA),
    ),
    "relu6": (jax.nn.relu6, "relu6", lambda z: np.clip(z, 0, 6), _inside(0, 6)),
    "capped relu": (
        lambda z: jnp.minimum(jax.nn.relu(z), 0.4),
        "pointwise",
        lambda z: np.clip(z, 0, 0.4),
        _inside(0, 0.4),
    ),
    "clip": (
        lambda z: jnp.clip(z, -0.2, 0.9),
        "clip",
        lambda z: np.clip(z, -0.2, 0.9),
        _inside(-0.2, 0.9),
    ),
    "clamp": (
        lambda z: jax.lax.clamp(-0.2, z, 0.9),
        "clamp",
        lambda z: np.clip(z, -0.2, 0.9),
        _inside(-0.2, 0.9),
    ),
    "clamp, whose bounds cross": (
        lambda z: jax.lax.clamp(jnp.full_like(z, -0.2), z, 2 * z + 0.3),
        "clamp",
        lambda z: np.minimum(np.maximum(z, -0.2), 2 * z + 0.3),
        lambda z: np.where(np.maximum(z, -0.2) > 2 * z + 0.3, 2, z > -0.2),
    ),
    "hard_tanh": (jax.nn.hard_tanh, "hard_tanh", lambda z: np.clip(z, -1, 1), _inside(-1, 1)),
    "hard_sigmoid": (
        jax.nn.hard_sigmoid,
        "hard_sigmoid",
        lambda z: np.clip(z + 3, 0, 6) / 6,
        lambda z: _inside(-3, 3)(z) / 6,
    ),
    "minimum": (
        lambda z: jnp.minimum(z, 0.4),
        "min",
        lambda z: np.minimum(z, 0.4),
        lambda z: np.where(z < 0.4, 1.0, 0.0),
    ),
    "threshold": (
        lambda z: jnp.maximum(z, 0.4),
        "max",
        lambda z: np.maximum(z, 0.4),
        lambda z: np.where(z > 0.4, 1.0, 0.0),
    ),
    "abs": (jnp.abs, "abs", np.abs, np.sign),
    "one value twice": (
        lambda z: jnp.maximum(0.5 * z + 0.1, -z),
        "max",
        lambda z: np.maximum(0.5 * z + 0.1, -z),
        lambda z: np.where(0.5 * z + 0.1 > -z, 0.5, -1.0),
    ),
    "step": (
        lambda z: (z > 0.1).astype(z.dtype),
        "pointwise",
        lambda z: (z > 0.1).astype(float),
        np.zeros_like,
    ),
    "where": (
        lambda z: jnp.where(z > 0, z, 0),
        "relu",
        lambda z: np.maximum(z, 0),
        lambda z: (z > 0).astype(float),
    ),
    "times": (
        lambda z: z * (z > 0),
        "relu",
        lambda z: np.maximum(z, 0),
        lambda z: (z > 0).astype(float),
    ),
}


def _case(name):
    activation, kind, f, slope = EXACT[name]
    return apply_fn_of(activation), kind, FrozenDense(PARAMS, X, LABEL, f, slope)


@pytest.mark.parametrize("name", EXACT)
def test_every_one_is_one_masked_site(name):
    apply_fn, kind, _ = _case(name)
    sites = dmbp_jax.sites(PARAMS, X, apply_fn=apply_fn)
    assert [site.kind for site in sites if site.masked] == [kind, kind]


@pytest.mark.parametrize(
    "name",
    slow_beside(
        EXACT, "capped relu", "clamp", "hard_tanh", "threshold", "minimum", "times", "where"
    ),
)
def test_its_decomposition_is_the_literal_one(name):
    apply_fn, _, oracle = _case(name)
    np.testing.assert_allclose(oracle.logits, apply_fn(PARAMS, X[None])[0], rtol=1e-12)
    rng = np.random.default_rng(1)
    for masks in ([np.ones(6), np.ones(5)], [rng.uniform(size=6), rng.uniform(size=5)]):
        parts = dmbp_jax.decompose(PARAMS, X, LABEL, masks, apply_fn=apply_fn)
        found = parts.y, parts.y_positive, parts.y_negative
        np.testing.assert_allclose(found, oracle.terms(masks), rtol=1e-9, atol=1e-12)
        expected = oracle.attribution(masks)
        np.testing.assert_allclose(parts.positive, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", slow_beside(EXACT, *EXACT.keys() - {"relu6", "abs"}))
def test_pixels_and_biases_are_complete(name):
    apply_fn, _, _ = _case(name)
    for method in ("fullgrad", "deeplift"):
        _, residual = METHODS[method](PARAMS, X, LABEL, apply_fn=apply_fn, return_residual=True)
        np.testing.assert_allclose(residual, 0, atol=1e-9)


@pytest.mark.slow
def test_mask_gradient_is_the_finite_difference():
    apply_fn, _, oracle = _case("hard_sigmoid")
    rng = np.random.default_rng(2)
    theta = [rng.normal(size=6), rng.normal(size=5)]
    graph = trace(bind(PARAMS, apply_fn), jnp.asarray(X)[None]).graph()
    frozen = graph.freeze(jnp.asarray(X)[None])
    shaped = tuple(jnp.asarray(t)[None] for t in theta)
    _, gradient = loop.terms_and_gradient(frozen, shaped, LABEL, dmbp_jax.DMBP())
    for layer, t in enumerate(theta):
        for unit in range(len(t)):
            losses = []
            for change in (1e-6, -1e-6):
                moved = [t.copy() for t in theta]
                moved[layer][unit] += change
                losses.append(oracle.loss([1 / (1 + np.exp(-t)) for t in moved]))
            slope = (losses[0] - losses[1]) / 2e-6
            np.testing.assert_allclose(gradient[layer][0, unit], slope, rtol=1e-6, atol=1e-8)


def test_a_bound_closes_the_gate_as_in_a_relu():
    z = jnp.array([[0.0, 6.0, -1.0, 3.0, 7.0]])

    def network(_, x):
        return jax.nn.relu6(x.reshape(len(x), -1)) @ jnp.eye(5)

    program = trace(bind(None, network), z.reshape(1, 1, 5, 1)).program()
    (piece,) = [step.piece for step in program.steps if step.piece is not None]
    choice = piece.choose(z)
    intercept = piece.apply(choice, 0 * z)
    slope = piece.apply(choice, 0 * z + 1) - intercept
    assert slope.tolist() == [[0, 0, 0, 1, 0]] and intercept.tolist() == [[0, 6, 0, 0, 6]]


def test_at_a_jump_the_function_itself_decides():
    z = jnp.array([[0.5, 1.0, 3.0, -2.0, 1.0]])

    def network(_, x):
        z = x.reshape(len(x), -1)
        return jnp.where(z >= 1, 2 * z, 0.5) @ jnp.eye(5)

    image = z.reshape(1, 1, 5, 1)
    ((slope, intercept),) = trace(bind(None, network), image).graph().freeze(image).fixed.choices
    assert slope.tolist() == [[0, 2, 2, 0, 2]] and intercept.tolist() == [[0.5, 0, 0, 0.5, 0]]


def test_a_plain_relu_stays_a_boolean_gate():
    for activation in (jax.nn.relu, lambda z: (z + abs(z)) / 2):
        program = trace(bind(PARAMS, apply_fn_of(activation)), jnp.asarray(X)[None]).program()
        pieces = [step.piece for step in program.steps if step.piece is not None]
        assert pieces and all(isinstance(piece, Relu) for piece in pieces)


def test_a_relu_that_others_read_is_not_swallowed():
    def network(params, x):
        h = jax.nn.relu(x.reshape(len(x), -1) @ params["w0"])
        return jnp.minimum(h, 0.5) @ params["w1"] @ params["w2"] + h @ params["w1"] @ params["w2"]

    kinds = [s.kind for s in dmbp_jax.sites(PARAMS, X, apply_fn=network) if s.masked]
    assert kinds == ["relu", "min"]


@pytest.mark.parametrize("larger", slow_beside([True, False], True))
def test_the_larger_of_two_branches(larger):
    def network(params, x, xp=jnp):
        h = x.reshape(len(x), -1) @ params["w0"] + params["b0"]
        pick = xp.maximum if larger else xp.minimum
        return pick(h[:, :3], h[:, 3:]) @ params["w2"][:3] + params["b2"]

    (site,) = [s for s in dmbp_jax.sites(PARAMS, X, apply_fn=network) if s.masked]
    assert site.kind == ("maximum" if larger else "minimum")
    mask = np.random.default_rng(4).uniform(size=3)
    parts = dmbp_jax.decompose(PARAMS, X, LABEL, [mask], apply_fn=network)
    h = X.reshape(-1) @ PARAMS["w0"] + PARAMS["b0"]
    wins = (h[:3] >= h[3:]) == larger
    weight = np.where(wins, PARAMS["w0"][:, :3], PARAMS["w0"][:, 3:]) * mask
    picked = np.where(wins, h[:3], h[3:])
    np.testing.assert_allclose(parts.y, picked @ PARAMS["w2"][:3, LABEL], rtol=1e-12)
    np.testing.assert_allclose(parts.y_positive, (mask * picked) @ PARAMS["w2"][:3, LABEL])
    expected = (weight @ PARAMS["w2"][:3, LABEL]) * X.reshape(-1)
    np.testing.assert_allclose(parts.positive.reshape(-1), expected, rtol=1e-12)
    for method in ("fullgrad", "deeplift"):
        _, residual = METHODS[method](PARAMS, X, LABEL, apply_fn=network, return_residual=True)
        np.testing.assert_allclose(residual, 0, atol=1e-12)
    assert isinstance(Maximum(site.kind)(jnp.ones(2), jnp.zeros(2)), jax.Array)


def _count(z, *corners):
    return sum((z > corner).astype(int) for corner in corners)


def _bits(z, dtype=int):
    return (z > 0).astype(dtype), (z > 0.1).astype(dtype)


COUNTED = {  # functions that integers and booleans decide, each other than the ReLU
    "counted": lambda z: z * _count(z, 0, 0.1).astype(z.dtype),
    "counted twice": lambda z: z * _count(z, 0, 0).astype(z.dtype),
    "a count, times a number": lambda z: z * (2 * _count(z, 0)).astype(z.dtype),
    "a difference of booleans": lambda z: z * (2 * _bits(z)[0] - _bits(z)[1]).astype(z.dtype),
    "three cases": lambda z: jax.lax.select_n(_count(z, 0, 0.1), 0 * z, 0.5 * z, z),
    "the middle of three cases": lambda z: jax.lax.select_n(_count(z, 0, 0.1), 0 * z, z, 0 * z),
    "where of integers": lambda z: (
        z * jnp.where(z > 0.1, 3, jnp.where(z > 0, 1, 0)).astype(z.dtype)
    ),
    "and of integers": lambda z: z * (3 * _bits(z)[0] & 2).astype(z.dtype),
    "or of integers": lambda z: z * (_bits(z)[0] | 2 * _bits(z)[1]).astype(z.dtype),
    "not of an integer": lambda z: z * (~(-1 - _count(z, 0, 0.1))).astype(z.dtype),
    "not of an integer, as a condition": lambda z: jnp.where(~_bits(z)[0] == -2, z, 2 * z),
    "a division of integers": lambda z: z * jax.lax.div(3 * _count(z, 0), 2 + 0 * _count(z, 0)),
    "integers that wrap": lambda z: (
        z * (jnp.uint8(255) * _bits(z, jnp.uint8)[0] + jnp.uint8(2)).astype(z.dtype)
    ),
    "an integer cast to a smaller one": lambda z: (
        z * (255 * _bits(z)[0]).astype(jnp.int8).astype(z.dtype)
    ),
    "a sign of integers": lambda z: z * jnp.sign(_count(z, 0, 0.1) - 1).astype(z.dtype),
    "a clamp of integers": lambda z: z * jax.lax.clamp(1, _count(z, 0, 0.1), 5).astype(z.dtype),
    "a comparison of integers": lambda z: jnp.where(_count(z, 0, 0.1) + 1 > 2, z, 0),
    "a comparison of booleans": lambda z: jnp.where((z > 0) > (z > 0.1), z, 0),
    "a square of an integer": lambda z: z * (_count(z, 0, 0.1) ** 2).astype(z.dtype),
    "a smaller of integers": lambda z: z * jnp.minimum(3 * _count(z, 0), 2).astype(z.dtype),
    "another number, where others count": lambda z: jnp.where(_count(z, 0, 0) == 2, z, 0.5 * z),
}


SHOWN = {
    *("three cases", "and of integers", "integers that wrap"),
}


@pytest.mark.parametrize("name", slow_beside(COUNTED, *COUNTED.keys() - SHOWN))
def test_what_integers_decide_is_no_relu(name):
    apply_fn, x = apply_fn_of(COUNTED[name]), jnp.asarray(X)
    masked = [site for site in dmbp_jax.sites(PARAMS, X, apply_fn=apply_fn) if site.masked]
    assert len(masked) == 2 and not {site.kind for site in masked} & {"relu", "max_pool"}
    ones = dmbp_jax.init_masks(PARAMS, X, 1.0, apply_fn=apply_fn)
    parts = dmbp_jax.decompose(PARAMS, X, LABEL, ones, apply_fn=apply_fn)
    logit, gradient = jax.value_and_grad(lambda x: apply_fn(PARAMS, x[None])[0, LABEL])(x)
    np.testing.assert_allclose(parts.y, logit - PARAMS["b2"][LABEL], rtol=1e-12)
    np.testing.assert_allclose(parts.positive, gradient * X, rtol=1e-12, atol=1e-14)


RELUS_OF_INTEGERS = {
    "counted": lambda z: z * _count(z, 0).astype(z.dtype),
    "one of two cases": lambda z: jax.lax.select_n(_count(z, 0), 0 * z, z),
    "bits": lambda z: z * (_bits(z)[0] & 1 | 0).astype(z.dtype),
    "booleans": lambda z: jnp.where((z > 0) & ~(z <= 0) | (z > 1), z, 0),
    "the larger of two counts": lambda z: z * jnp.maximum(*_bits(z)).astype(z.dtype),
}


@pytest.mark.parametrize("name", RELUS_OF_INTEGERS)
def test_a_relu_of_integers_is_the_relu(name):
    activation = RELUS_OF_INTEGERS[name]
    z = np.random.default_rng(0).normal(size=100)
    np.testing.assert_array_equal(activation(jnp.asarray(z)), np.maximum(z, 0))
    sites = dmbp_jax.sites(PARAMS, X, apply_fn=apply_fn_of(activation))
    assert [site.kind for site in sites if site.masked] == ["relu", "relu"]


MIN_POOLS = {
    "windows": lambda h: jax.lax.reduce_window(
        h, jnp.inf, jax.lax.min, (1, 2, 2, 1), (1, 1, 1, 1), "SAME"
    ),
    "whole axes": lambda h: h.min(1, keepdims=True),
    "negated maximum": lambda h: -nn.max_pool(-h, (2, 2)),
}


@pytest.mark.parametrize("way", slow_beside(MIN_POOLS, "negated maximum"))
def test_min_pools_carry_no_mask_and_are_complete(way):
    def network(_, x):
        return MIN_POOLS[way](jax.nn.relu(x + 0.7) - 0.3).sum((1, 2))

    kinds = [s.kind for s in dmbp_jax.sites(None, X, apply_fn=network) if s.kind != "bias"]
    assert kinds == ["relu", "max_pool" if way == "negated maximum" else "min_pool"]
    ones = dmbp_jax.init_masks(None, X, 1.0, apply_fn=network)
    parts = dmbp_jax.decompose(None, X, LABEL, ones, apply_fn=network)
    gradient = jax.grad(lambda x: network(None, x[None])[0, LABEL])(jnp.asarray(X))
    np.testing.assert_allclose(parts.positive, gradient * X, rtol=1e-12, atol=1e-14)
    for method in ("fullgrad", "deeplift"):
        _, residual = METHODS[method](None, X, LABEL, apply_fn=network, return_residual=True)
        np.testing.assert_allclose(residual, 0, atol=1e-12)


def test_a_min_pool_takes_the_first_of_equal_winners():
    z = jnp.array([2.0, 1.0, 1.0, 3.0]).reshape(1, 2, 2, 1)
    (step,) = [
        step
        for step in trace(
            bind(None, lambda _, x: jax.nn.relu(x).min((1, 2))), jnp.zeros((1, 2, 2, 1))
        ).program().steps
        if isinstance(step.piece, GlobalPool)
    ]  # fmt: skip
    winner = step.piece.choose(z)
    assert winner.tolist() == [[1]] and step.piece.apply(winner, 2 * z).tolist() == [[2.0]]


class MobileNet(nn.Module):
    """Inverted residuals with depthwise convolutions and ReLU6, as in MobileNetV2."""

    activation: Callable = nn.relu6

    @nn.compact
    def __call__(self, x):
        x = self.activation(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3), (2, 2))(x)))
        for _ in range(2):
            h = nn.Conv(8, (1, 1), use_bias=False)(x)
            h = self.activation(nn.BatchNorm(use_running_average=True)(h))
            h = nn.Conv(8, (3, 3), feature_group_count=8, use_bias=False)(h)
            h = self.activation(nn.BatchNorm(use_running_average=True)(h))
            x = x + nn.BatchNorm(use_running_average=True)(nn.Conv(4, (1, 1))(h))
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.mark.slow
def test_a_mobilenet_from_end_to_end():
    x = np.random.default_rng(5).normal(size=(2, 8, 8, 3))
    net = MobileNet()
    variables = jax.tree.map(lambda a: 3 * a + 0.2, net.init(jax.random.key(0), x))
    config = dmbp_jax.DMBP(steps=3)
    result = dmbp_jax.attribute(variables, x, 1, apply_fn=net.apply, config=config, biases="spread")
    assert result.status.all()
    kinds = [s.kind for s in dmbp_jax.sites(variables, x, apply_fn=net.apply) if s.masked]
    assert kinds == ["relu6"] * 5
    np.testing.assert_allclose(result.positive.sum((1, 2, 3)), result.y_positive, rtol=1e-9)
    np.testing.assert_allclose(result.negative.sum((1, 2, 3)), result.y_negative, rtol=1e-9)
    closed = MobileNet(jnp.zeros_like).apply(variables, 0 * x)[:, 1]  # F_0
    logits = net.apply(variables, x)[:, 1]
    np.testing.assert_allclose(result.y + closed, logits, rtol=1e-9)
