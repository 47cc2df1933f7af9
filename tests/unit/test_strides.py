"""Strided layers in the network of magnitudes: every position is read equally, none invented."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.dmbp.carrying import _of_magnitudes
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

pytestmark = pytest.mark.usefixtures("x64")
SIDE = 24


def convolve(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)


def reading(layer):
    """How often one strided layer of ones after a ReLU reads each position of it."""

    def network(params, x):
        return layer(jax.nn.relu(x)).sum((1, 2))

    x = jnp.ones((1, SIDE, SIDE, 1))
    graph = _of_magnitudes(trace(bind(None, network), x).graph())
    return np.asarray(jax.grad(lambda x: graph.run(x).sum())(x))[0, ..., 0]


@pytest.mark.parametrize(
    ("taps", "stride", "dilation"),
    [
        (1, 2, 1),
        (3, 2, 1),
        (7, 2, 1),
        pytest.param(*(1, 4, 1), marks=pytest.mark.slow),
        pytest.param(*(2, 3, 1), marks=pytest.mark.slow),
        (3, 2, 2),
        (2, 2, 1),
        (4, 2, 1),
        (3, 1, 1),
    ],
)
def test_a_strided_convolution_reads_every_position_equally(taps, stride, dilation):
    options = {"window_strides": (stride, stride), "rhs_dilation": (dilation, dilation)}
    options["padding"] = [(taps // 2 * dilation, taps // 2 * dilation)] * 2
    read = reading(lambda h: convolve(h, jnp.ones((taps, taps, 1, 1)), **options))
    inside = read[8:-8, 8:-8]
    np.testing.assert_allclose(inside, (taps / stride) ** 2, rtol=1e-12)
    assert read.sum() <= reading(lambda h: h).sum() * (taps / stride) ** 2 + 1e-9


def test_an_average_over_windows_that_overlap_unevenly_reads_every_position_equally():
    read = reading(
        lambda h: lax.reduce_window(h, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
    )
    np.testing.assert_allclose(read[4:-4, 4:-4], 9 / 4, rtol=1e-12)


def test_a_transposed_convolution_and_even_windows_are_left_as_they_are():
    kernel = jnp.arange(1.0, 17.0).reshape(4, 4, 1, 1)
    up = {"window_strides": (1, 1), "padding": [(3, 3)] * 2, "lhs_dilation": (2, 2)}
    even = {"window_strides": (2, 2), "padding": "VALID"}
    for options in (up, even):
        x = jnp.ones((1, SIDE, SIDE, 1))
        (expected,) = jax.grad(lambda x, o=options: convolve(x, kernel, **o).sum())(x)
        read = reading(lambda h, o=options: convolve(h, kernel, **o))
        np.testing.assert_array_equal(read, expected[..., 0])


def strided(first):
    """A convolution, a 1 x 1 convolution of stride 2, a mean; a bias after the stride."""

    def network(params, x):
        w, v, u = params
        h = convolve(x, w, window_strides=(first, first), padding="SAME")
        h = jax.nn.relu(h)
        h = jax.nn.relu(convolve(h, v, window_strides=(2, 2), padding="VALID") + 1)
        return h.mean((1, 2)) @ u

    return network


def carried_part(network, params, x):
    """What `biases="carry"` adds to the map of the pixels."""
    call = {"apply_fn": network, "config": DMBP(steps=0)}
    carried, pixels = (
        dmbp_jax.attribute(params, x, 1, biases=biases, **call) for biases in ("carry", "drop")
    )
    np.testing.assert_allclose(carried.positive.sum(), carried.y_positive, rtol=1e-12)
    return np.asarray(carried.positive - pixels.positive)


def test_the_carried_part_of_an_even_picture_is_even(rng):
    params = tuple(abs(rng.normal(size=shape)) for shape in ((3, 3, 2, 4), (1, 1, 4, 4), (4, 3)))
    part = carried_part(strided(1), params, np.ones((SIDE, SIDE, 2)))
    inside = part[6:-6, 6:-6]
    assert (inside > 0).all()
    np.testing.assert_allclose(inside, np.broadcast_to(inside[0, 0], inside.shape), rtol=1e-12)


def test_a_pixel_that_is_never_read_has_no_part(rng):
    params = tuple(abs(rng.normal(size=shape)) for shape in ((1, 1, 2, 4), (1, 1, 4, 4), (4, 3)))
    part = carried_part(strided(2), params, 1 + rng.random((SIDE, SIDE, 2)))
    assert (part[::2, ::2] > 0).all()
    np.testing.assert_allclose(part[1::2], 0, atol=1e-12)
    np.testing.assert_allclose(part[:, 1::2], 0, atol=1e-12)
