"""Refined maps against a literal float64 loop: its own gradients, blur and sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dmbp_jax
from dmbp_jax import DMBP

CONFIG = DMBP.quick()


def network(params, x):
    """Convolution with bias, ReLU, mean, dense: its gradient changes with noise."""
    kernel, bias, last = params
    z = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(z + bias).mean((1, 2)) @ last


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
    key = jax.random.key(0, impl="threefry2x32")
    noise = 0.1 * (x.max() - x.min()) * np.asarray(jax.random.normal(key, (3, *x.shape), "float32"))
    gradient = np.mean(
        [
            jax.grad(lambda z: network(params, z[None])[0, 1])(jnp.asarray(x + sign * one))
            for one in noise
            for sign in (1, -1)
        ],
        0,
    )
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


def test_neither_batch_mates_nor_settings_of_keys_change_a_refined_map(params, rng):
    x = rng.normal(size=(3, 16, 12, 2)).astype(np.float32)
    params = jax.tree.map(np.float32, params)
    together = explain(params, x)
    chunked = explain(params, x, chunk_size=2)
    with jax.default_prng_impl("rbg"):
        alone = explain(params, x[2])
    for found in (together.map[2], chunked.map[2]):
        np.testing.assert_allclose(found, alone.map, rtol=1e-4, atol=1e-7)


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
