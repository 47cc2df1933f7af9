"""Refined maps against a literal float64 loop: its own slopes, blur and sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import roots_hermitenorm

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.dmbp.refining import soften
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.tracing import trace

CONFIG = DMBP.quick()


def convolve(params, x):
    """What the ReLU reads."""
    z = jax.lax.conv_general_dilated(
        x, params[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return z + params[1]


def network(params, x):
    """Convolution with bias, ReLU, mean, dense."""
    return jax.nn.relu(convolve(params, x)).mean((1, 2)) @ params[2]


@pytest.fixture
def params(rng):
    shapes = (3, 3, 2, 5), (5,), (5, 3)
    return tuple(rng.normal(size=shape) for shape in shapes)


def explain(params, x, biases="refine", **options):
    call = {"apply_fn": network, "config": CONFIG} | options
    return dmbp_jax.attribute(params, x, 1, biases=biases, **call)


def blur_literally(values, sigma, axis):
    """Gaussian cut at four sigma, zeros outside, every line by itself."""
    reach = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    return np.apply_along_axis(lambda line: np.convolve(line, taps, "same"), axis, values)


@pytest.mark.usefixtures("x64")
def test_refined_maps_are_those_of_the_literal_formula(params, rng):
    x = rng.normal(size=(40, 42, 2))  # the widths of the blur differ, and reach six pixels
    x[:, :20] += 2  # a unit for the label is open on one side, one against it on the other
    x[:, 20:] -= 2
    kernel, bias, last = params
    kernel[..., 0], kernel[..., 1], bias[:2], last[:2, 1] = 0.3, -0.3, 0.5, (4, -4)
    coarse, found = explain(params, x, "spread"), explain(params, x)
    z = np.asarray(convolve(params, x[None]))
    size = np.sqrt((z**2).mean())
    nodes, weights = roots_hermitenorm(8)
    weights /= weights.sum()
    slope = (
        sum(w * n * np.maximum(z + n * size, 0) for n, w in zip(nodes, weights, strict=True)) / size
    )

    def softened(x):
        return ((slope * convolve(params, x[None])).mean((1, 2)) @ last)[0, 1]

    gradient = np.asarray(jax.grad(softened)(jnp.asarray(x)))
    pull = (gradient * x).sum(-1)
    net = np.asarray(coarse.map).sum(-1)
    # Rows by 40 / 28 pixels, columns by 42 / 28: separable, so one after the other.
    place = blur_literally(net, 40 / 28, 0)
    place = blur_literally(place, 42 / 28, 1)
    for sign, before, after, total in (
        (1, coarse.positive, found.positive, coarse.y_positive),
        (-1, coarse.negative, found.negative, coarse.y_negative),
    ):
        shares = np.maximum(sign * pull, 0) * np.maximum(sign * place, 0)
        assert 0.05 < (shares > 0).mean() < 0.95
        fine = (total * shares / shares.sum())[..., None] / 2  # two colours
        np.testing.assert_allclose(after, before / 2 + fine / 2, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(after.sum(), total, rtol=1e-12)
    for name in ("y", "y_positive", "y_negative", "y_nuisance", "carried", "history"):
        np.testing.assert_array_equal(getattr(found, name), getattr(coarse, name))


def softened_slopes(activation, z):
    """An activation's values, and its derivative by the rule."""

    def network(_, x):
        return activation(x).reshape(len(x), -1) @ jnp.eye(z.size)

    graph = trace(bind(None, network), z).graph()
    value, pull = jax.vjp(lambda z: graph.run(z, Rules(piece=soften)), z)
    return value, pull(jnp.ones_like(value))[0]


# activation -> its derivative at z, in NumPy
DERIVATIVES = {
    "relu": lambda z: z > 0,
    "leaky_relu": lambda z: np.where(z > 0, 1, 0.01),
    "relu6": lambda z: (z > 0) & (z < 6),
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_softened_derivative_is_the_mean_of_those_beside_it(name, rng):
    z = rng.normal(size=(1, 5, 5, 1)) + 0.3
    activation = getattr(jax.nn, name)
    value, found = softened_slopes(activation, jnp.asarray(z))
    np.testing.assert_allclose(value, activation(z).reshape(1, -1), rtol=1e-12)
    nodes = np.linspace(-8, 8, 20001)
    density = np.exp(-(nodes**2) / 2)
    beside = DERIVATIVES[name](z[..., None] + nodes * np.sqrt((z**2).mean()))
    np.testing.assert_allclose(found, beside @ density / density.sum(), atol=0.06)


def test_where_an_activation_ends_its_own_derivative_stays():
    z = jnp.array([0.5, 3.0], jnp.float32).reshape(1, 1, 2, 1)  # an average of 0.5 needs √(z < 0)
    _, found = softened_slopes(jnp.sqrt, z)
    np.testing.assert_allclose(found, 0.5 / jnp.sqrt(z), rtol=1e-6)
    with jax.debug_nans(True):
        _, found = softened_slopes(jax.nn.tanh, jnp.zeros_like(z))  # there is no noise
    np.testing.assert_array_equal(found, 1)


def test_batch_mates_change_no_refined_map(params, rng):
    x = rng.normal(size=(3, 16, 12, 2)).astype(np.float32)
    params = jax.tree.map(np.float32, params)
    together, alone = explain(params, x, chunk_size=2), explain(params, x[2])
    np.testing.assert_allclose(together.map[2], alone.map, rtol=1e-4, atol=1e-7)


def test_where_no_pixel_pulls_the_map_stays_coarse(params, rng):
    x = np.zeros((16, 12, 2), np.float32)  # gradient × input is 0
    params = jax.tree.map(np.float32, params)
    coarse, found = explain(params, x, "spread"), explain(params, x)
    np.testing.assert_array_equal(found.positive, coarse.positive)
    np.testing.assert_array_equal(found.negative, coarse.negative)
    assert found.status


def test_refined_maps_have_the_gradient_of_a_low_precision_image(params, rng):
    x = jnp.asarray(rng.normal(size=(16, 12, 2)), jnp.bfloat16)
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), params)
    found = explain(params, x)
    np.testing.assert_allclose(float(found.positive.sum()), float(found.y_positive), rtol=1e-2)
    assert found.status
