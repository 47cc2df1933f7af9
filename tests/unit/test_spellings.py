"""One function, however it is written: one site, the same gate, the same maps.

Values of z include corners, where a ReLU's gate is closed and other operations have rules of their
own.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf, erfc
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

pytestmark = pytest.mark.usefixtures("x64")
A, SCALE, ALPHA = 0.1, 1.0507009873554805, 1.6732632423543772
Z = np.array([-7.3, -6, -3, -2.6, -1, -0.4, 0, 0.2, 0.9, 1, 2.2, 3, 4.5, 6, 7.7])
PER_CHANNEL = np.linspace(0.1, 0.9, len(Z))  # of every element here

SPELLINGS = {
    "relu": [
        jax.nn.relu,
        lambda z: jnp.maximum(0, z),
        lambda z: (z + abs(z)) / 2,
        lambda z: jnp.where(z > 0, z, 0),
        lambda z: jnp.where(z >= 0, z, 0),
        lambda z: z * (z > 0),
        lambda z: jnp.clip(z, 0),
        lambda z: -jnp.minimum(-z, 0),
        lambda z: z - jnp.minimum(z, 0),
        lambda z: jax.nn.relu(jnp.nan_to_num(z)),
    ],
    "relu and a layer": [
        lambda z: jax.nn.relu(z) + 1,
        lambda z: (z + abs(z)) / 2 + 1,
        lambda z: jnp.where(z > 0, z, 0) + 1,
    ],
    "relu6": [
        jax.nn.relu6,
        lambda z: jnp.maximum(jnp.minimum(z, 6), 0),
        lambda z: jnp.minimum(jnp.maximum(z, 0), 6),
        lambda z: jnp.clip(z, 0, 6),
        lambda z: jnp.where(z > 6, 6, jnp.where(z < 0, 0, z)),
        lambda z: jax.nn.relu(z) - jax.nn.relu(z - 6),
    ],
    "leaky_relu": [
        lambda z: jax.nn.leaky_relu(z, A),
        lambda z: jnp.where(z > 0, z, A * z),
        lambda z: jnp.maximum(z, A * z),
        lambda z: jax.nn.relu(z) - A * jax.nn.relu(-z),
        lambda z: A * z + (1 - A) * jax.nn.relu(z),
        lambda z: jnp.maximum(z, 0) + A * jnp.minimum(z, 0),
        lambda z: (1 + A) / 2 * z + (1 - A) / 2 * abs(z),
    ],
    "prelu": [
        lambda z: jnp.where(z > 0, z, PER_CHANNEL * z),
        lambda z: jnp.maximum(z, PER_CHANNEL * z),
        lambda z: jnp.maximum(z, 0) + PER_CHANNEL * jnp.minimum(z, 0),
        lambda z: jax.nn.relu(z) - PER_CHANNEL * jax.nn.relu(-z),
    ],
    "abs": [
        jnp.abs,
        lambda z: jnp.maximum(z, -z),
        lambda z: jax.nn.relu(z) + jax.nn.relu(-z),
        lambda z: jnp.where(z < 0, -z, z),
        lambda z: z * jnp.sign(z),
        lambda z: 2 * jax.nn.relu(z) - z,
    ],
    "hard_tanh": [
        jax.nn.hard_tanh,
        lambda z: jnp.clip(z, -1, 1),
        lambda z: jnp.maximum(jnp.minimum(z, 1), -1),
        lambda z: (abs(z + 1) - abs(z - 1)) / 2,
        lambda z: jax.nn.relu(z + 1) - jax.nn.relu(z - 1) - 1,
    ],
    "hard_sigmoid": [
        jax.nn.hard_sigmoid,
        lambda z: jnp.maximum(jnp.minimum(z + 3, 6), 0) / 6,
        lambda z: jnp.minimum(jax.nn.relu(z + 3), 6) / 6,
    ],
    "hard_swish": [
        jax.nn.hard_swish,
        lambda z: z * jnp.clip(z + 3, 0, 6) / 6,
        lambda z: z * jnp.clip(z / 6 + 0.5, 0, 1),
        lambda z: z * jax.nn.relu6(z + 3) / 6,
    ],
    "elu": [
        jax.nn.elu,
        lambda z: jnp.maximum(z, 0) + jnp.exp(jnp.minimum(z, 0)) - 1,
        lambda z: jnp.where(z > 0, z, jnp.exp(jnp.minimum(z, 0)) - 1),
        lambda z: jax.nn.relu(z) - 1 + jnp.exp(-jax.nn.relu(-z)),
    ],
    "selu": [
        jax.nn.selu,
        lambda z: SCALE * (jnp.maximum(z, 0) + ALPHA * (jnp.exp(jnp.minimum(z, 0)) - 1)),
        lambda z: SCALE * jax.nn.elu(z, ALPHA),
    ],
    "celu": [
        lambda z: jax.nn.celu(z, 2.0),
        lambda z: jnp.maximum(z, 0) + 2 * jnp.expm1(jnp.minimum(z, 0) / 2),
    ],
    "sigmoid": [
        jax.nn.sigmoid,
        lambda z: 0.5 * (1 + jnp.tanh(z / 2)),
        lambda z: 0.5 + 0.5 * jnp.tanh(0.5 * z),
        lambda z: 1 / (1 + jnp.exp(-z)),
        lambda z: jnp.exp(z) / (1 + jnp.exp(z)),
        lambda z: 1 - jax.nn.sigmoid(-z),
    ],
    "tanh": [
        jnp.tanh,
        lambda z: 2 * jax.nn.sigmoid(2 * z) - 1,
        lambda z: 1 - 2 / (1 + jnp.exp(2 * z)),
        lambda z: jnp.sinh(z) / jnp.cosh(z),
    ],
    "silu": [
        jax.nn.silu,
        lambda z: z * jax.nn.sigmoid(z),
        lambda z: z / (1 + jnp.exp(-z)),
        lambda z: 0.5 * z + 0.5 * z * jnp.tanh(z / 2),
    ],
    "gelu": [
        lambda z: jax.nn.gelu(z, approximate=False),
        lambda z: 0.5 * z * (1 + erf(z / np.sqrt(2))),
        lambda z: z / 2 + z / 2 * erf(z / np.sqrt(2)),
        lambda z: z * (1 - 0.5 * erfc(z / np.sqrt(2))),
    ],
    "softplus": [
        jax.nn.softplus,
        lambda z: jnp.logaddexp(z, 0),
        lambda z: jnp.log1p(jnp.exp(z)),
        lambda z: jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-abs(z))),
        lambda z: jnp.where(z > 20, z, jnp.log1p(jnp.exp(jnp.minimum(z, 20)))),
        lambda z: -jnp.log(jax.nn.sigmoid(-z)),
    ],
    "log_sigmoid": [
        jax.nn.log_sigmoid,
        lambda z: -jax.nn.softplus(-z),
        lambda z: jnp.minimum(z, 0) - jnp.log1p(jnp.exp(-abs(z))),
    ],
    "mish": [
        jax.nn.mish,
        lambda z: z * jnp.tanh(jax.nn.softplus(z)),
        lambda z: z * jnp.tanh(jnp.log1p(jnp.exp(z))),
    ],
    "squareplus": [
        lambda z: jax.nn.squareplus(z, 4.0),
        lambda z: (z + jnp.sqrt(z * z + 4)) / 2,
        lambda z: z / 2 + jnp.sqrt((z / 2) ** 2 + 1),
    ],
    "soft_sign": [
        jax.nn.soft_sign,
        lambda z: z / (1 + abs(z)),
        lambda z: z / (jnp.maximum(z, -z) + 1),
    ],
    "relu, squared": [
        lambda z: jax.nn.relu(z) ** 2,
        lambda z: z * jax.nn.relu(z),
        lambda z: jnp.where(z > 0, z * z, 0),
    ],
    "relu of silu": [
        lambda z: jax.nn.relu(jax.nn.silu(z)),
        lambda z: jnp.maximum(z / (1 + jnp.exp(-z)), 0),
        lambda z: jnp.where(z > 0, z * jax.nn.sigmoid(z), 0),
    ],
}


def _gate(activation):
    """Slope and intercept of every element with masks of 0.3, and the number of sites."""
    x = jnp.asarray(Z).reshape(1, 1, -1, 1)

    def network(_, x):
        return activation(x.reshape(len(x), -1)) @ jnp.eye(Z.size)

    graph = trace(bind(None, network), x).graph()
    frozen = graph.freeze(x)
    rules = frozen.rules(lambda number, piece, choice, z: 0.3 * piece.apply(choice, z))
    at_zero, at_one = (graph.run(jnp.full_like(x, value), rules)[0] for value in (0, 1))
    return at_one - at_zero, at_zero, len(graph.masked)


@pytest.mark.parametrize(
    "name", slow_beside(SPELLINGS, "prelu", "hard_swish", "softplus", "hard_tanh", "elu")
)
def test_it_is_one_site_with_the_same_gate(name):
    expected, *others = map(_gate, SPELLINGS[name])
    assert expected[2] == 1
    for found in others:
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-9)
        assert found[2] == 1


@pytest.mark.parametrize("name", slow_beside(["relu6", "elu"], "relu6"))
def test_the_same_maps_in_residual_blocks_and_before_a_batch_norm(name):
    """6 + 0 is a corner of relu6 again."""
    rng = np.random.default_rng(0)
    first, second, head = (rng.normal(size=s) for s in ((3, 4), (4, 4), (4, 3)))
    scale, shift, x = rng.normal(size=4), rng.normal(size=4), rng.normal(size=(2, 2, 3))

    def logit(f, x):
        h = f(3 * (x @ first) * scale + shift)
        h = h + f(h @ second)
        return (f(h) * scale + shift).mean((1, 2)) @ head

    chosen = SPELLINGS[name][:2] + SPELLINGS[name][-1:]

    def network(_, x):
        return jnp.concatenate([logit(f, x) for f in chosen], -1)

    sites = [s for s in dmbp_jax.sites(None, x, apply_fn=network) if s.masked]
    assert len(sites) == 3 * len(chosen)
    masks = [rng.uniform(size=s.shape[1:]) for s in sites[:3]] * len(chosen)
    images, labels = np.stack([x] * len(chosen)), np.arange(len(chosen)) * 3
    stacked = [np.stack([mask] * len(chosen)) for mask in masks]
    found = dmbp_jax.decompose(None, images, labels, stacked, apply_fn=network)
    for part in (found.y, found.y_positive, found.y_negative, found.positive, found.negative):
        np.testing.assert_allclose(part[1:], np.broadcast_to(part[:1], part[1:].shape), atol=1e-9)


def test_a_relu_and_its_layers_stay_what_they_are():
    scale, w = np.array([2.0, -1.0, 0.5]), np.eye(3)

    def network(_, x):
        h = jax.nn.relu(x.mean((1, 2)) * scale + 1)
        h = jax.nn.relu(2 * h * scale - 1)  # two ReLUs with a BatchNorm between them
        return (jnp.tanh(h @ w) * scale + scale) @ w

    sites = dmbp_jax.sites(None, np.ones((2, 2, 3)), apply_fn=network)
    kinds = [site.kind for site in sites]
    assert kinds == ["relu", "relu", "tanh", *["bias"] * 4]


def test_what_returns_finite_values_as_they_are_puts_no_mask_on_pixels():
    w = np.random.default_rng(1).normal(size=(3, 3))

    def network(guard):
        return lambda _, x: jax.nn.relu(guard(x) @ w).mean((1, 2)) @ w

    guards = [
        jnp.nan_to_num,
        lambda x: jnp.where(jnp.isfinite(x), x, 0),
        lambda x: jnp.clip(x, -jnp.inf, jnp.inf),
        lambda x: jnp.maximum(x, -jnp.inf),
    ]
    for guard in guards:
        sites = dmbp_jax.sites(None, np.ones((2, 2, 3)), apply_fn=network(guard))
        assert [site.kind for site in sites] == ["relu"]


# What is something else at one number, or between two: f, and values of z with its pieces.
RARELY = {
    "no data": (lambda z: jnp.where(z == -9999, 0, z), [-9999, 0.5]),
    "no data, of the raw picture": (lambda z: jnp.where(z * 3.7 + 0.3 != 2, z, 5), [1.7 / 3.7, 2]),
    "a band": (lambda z: jnp.where((z > 20) & (z < 30), 0, z), [25, 31]),
    "a band inside a function": (lambda z: jnp.where(abs(z - 25) < 2, z - 1, z), [24, 22]),
    "a ReLU with a hole": (lambda z: jnp.where((z > 20) & (z < 21), 0, jnp.maximum(z, 0)), [20.5]),
    "a ReLU with a jump": (lambda z: jnp.maximum(z, 0) + (z == 0.1), [0.1, 3]),
}


@pytest.mark.parametrize("name", RARELY)
def test_what_is_another_function_at_few_numbers_is_neither_the_relu_nor_nothing(name):
    f, values = RARELY[name]
    x = np.array([*values, -1.0]).reshape(1, -1, 1)
    w = np.array([[1.0, -2.0]])

    def network(_, x):
        h = f(x).sum((1, 2))
        return (h + jax.nn.relu(h)) @ w

    assert np.any(f(x) != x) and np.any(f(x) != np.maximum(x, 0))
    ones = dmbp_jax.init_masks(None, x, 1.0, apply_fn=network)
    parts = dmbp_jax.decompose(None, x, 1, ones, apply_fn=network)
    np.testing.assert_allclose(parts.y, network(None, x[None])[0, 1], rtol=1e-12)
    np.testing.assert_allclose(parts.y_positive, parts.y, rtol=1e-12)
