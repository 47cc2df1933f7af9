"""Complete maps by carrying the biases' part back to the pixels, against literal loops."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layerwise_oracle import LayerwiseOracle
from short_methods import slow_beside
from test_evidence import CLOSE, LABEL, NETWORKS, learn

import dmbp_jax
from dmbp_jax import DMBP

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("seed", slow_beside([0, 1], 1))
@pytest.mark.parametrize("name", slow_beside(NETWORKS, "dense", "conv", "pool"))
def test_carried_maps_are_those_of_the_literal_layer_by_layer_loop(name, seed):
    a, exact, _, (masks, inverse) = learn(name, seed, biases="carry")
    oracle = LayerwiseOracle(exact.layers, exact.params, exact.x, LABEL)
    np.testing.assert_allclose(a.positive, oracle.carried(masks), **CLOSE)
    np.testing.assert_allclose(a.negative, oracle.carried(inverse), **CLOSE)
    np.testing.assert_allclose(a.positive.sum(), a.y_positive, **CLOSE)
    np.testing.assert_allclose(a.negative.sum(), a.y_negative, **CLOSE)


def test_carried_maps_with_evidence_of_the_input_still_sum_to_the_whole():
    a, exact, _, (masks, inverse) = learn("residual", biases="carry", evidence="input")
    oracle = LayerwiseOracle(exact.layers, exact.params, exact.x, LABEL)
    np.testing.assert_allclose(a.positive, oracle.carried(masks), **CLOSE)
    np.testing.assert_allclose(a.negative, oracle.carried(inverse), **CLOSE)


def test_what_a_relu6_returns_above_6_goes_to_the_pixels_that_reach_it(rng):
    """One dense layer, ReLU6, one dense layer: every share by hand."""
    x = rng.normal(size=(3, 3, 2))
    weight, bias = rng.normal(size=(18, 12)), rng.normal(size=12) + 4
    last = rng.normal(size=(12, 3))

    def network(params, images):
        weight, bias, last = params
        return jax.nn.relu6(images.reshape(len(images), -1) @ weight + bias) @ last

    call = {"config": DMBP.quick(), "apply_fn": network, "return_masks": True}
    a = dmbp_jax.attribute((weight, bias, last), x, 1, biases="carry", **call)
    z = x.ravel() @ weight + bias
    slope, intercept = (z > 0) & (z < 6), 6.0 * (z >= 6)
    assert 0 < (z >= 6).sum() < 12 > slope.sum() > 0
    share = abs(weight * x.ravel()[:, None])
    share /= share.sum(0)
    masks = np.asarray(a.masks[0])
    for mask, heat in ((masks, a.positive), (1 - masks, a.negative)):
        into = last[:, 1] * mask
        by_pixels = (weight @ (into * slope)) * x.ravel()
        by_biases = share @ (into * (slope * bias + intercept))
        np.testing.assert_allclose(heat.ravel(), by_pixels + by_biases, **CLOSE)


class Signs(nn.Module):
    """A difference (or sum) of two branches, a negation, a leaky ReLU and a residual sum."""

    subtracts: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        a, b = nn.Conv(4, (3, 3))(x), nn.Conv(4, (3, 3))(x)
        h = nn.leaky_relu(a - b if self.subtracts else a + b, 0.2)
        h = h + nn.relu(-nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(h)))
        return nn.Dense(3)(h.mean((1, 2)))


@pytest.mark.slow
def test_a_difference_carries_as_much_as_a_sum(rng):
    """With the second branch negated, the network and its complete map are the same."""
    net, x = Signs(), rng.normal(size=(8, 8, 2))
    variables = jax.jit(net.init)(jax.random.key(0), x[None])
    params = jax.tree.map(lambda a: rng.normal(size=a.shape), variables["params"])
    negated = params | {"Conv_1": jax.tree.map(lambda a: -a, params["Conv_1"])}
    call = {"config": DMBP.quick(), "biases": "carry"}
    a, b = (
        dmbp_jax.attribute(variables | {"params": p}, x, 1, apply_fn=one.apply, **call)
        for one, p in ((net, params), (Signs(subtracts=False), negated))
    )
    np.testing.assert_allclose(a.positive, b.positive, **CLOSE)
    np.testing.assert_allclose(a.negative, b.negative, **CLOSE)
    np.testing.assert_allclose(a.positive.sum(), a.y_positive, **CLOSE)


class Zoo(nn.Module):
    """A depthwise kernel, a dense connection, ReLU6, SiLU, pools, LayerNorm and attention."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.relu6(3 * nn.Conv(4, (3, 3))(x) + 2)
        h = jnp.concatenate([h, nn.silu(nn.Conv(4, (3, 3), feature_group_count=4)(h))], -1)
        h = nn.avg_pool(nn.leaky_relu(nn.Conv(4, (1, 1))(h), 0.1), (2, 2), (2, 2))
        h = nn.LayerNorm()(h).reshape(len(h), -1, 4)
        h = h + nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=4)(h)
        return nn.Dense(3)(jnp.abs(nn.Dense(5)(h)).max(1))


def zoo(rng, batch=1):
    """A network with random weights and biases, and images."""
    x = jnp.asarray(rng.normal(size=(batch, 8, 8, 2)))
    variables = jax.eval_shape(Zoo().init, jax.random.key(0), x)
    variables = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) / 2), variables)
    return variables, x


def carry(variables, x, apply_fn, **options):
    config = DMBP(steps=0, init=0.5)  # the loop has tests of its own
    call = {"config": config, "biases": "carry", "nonaffine": "freeze"} | options
    return dmbp_jax.attribute(variables, x, np.ones(len(x), int), apply_fn=apply_fn, **call)


@pytest.mark.slow
def test_complete_with_every_kind_of_layer_and_whatever_else_is_in_the_batch(rng):
    variables, x = zoo(rng, 2)
    apply_fn = Zoo().apply
    a, b = carry(variables, x, apply_fn), carry(variables, x.at[1].multiply(100), apply_fn)
    for part, total in (("positive", "y_positive"), ("negative", "y_negative")):
        maps, sums = getattr(a, part), getattr(a, total)
        np.testing.assert_allclose(maps.sum((1, 2, 3)), sums, **CLOSE)
        np.testing.assert_array_equal(maps[0], getattr(b, part)[0])


def channels_first(params, x):
    """A convolution, a scale that turns signs round, a ReLU and a dense layer, NCHW inside."""
    kernel, bias, scale, dense = params
    numbers = ("NCHW", "HWIO", "NCHW")
    h = jnp.moveaxis(x, 3, 1)
    h = jax.lax.conv_general_dilated(h, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    h = jax.nn.relu((h + bias[:, None, None]) * scale[:, None, None] + 0.3)
    return jax.nn.relu(h.mean((2, 3)) + 0.1) @ dense


def channels_last(params, x):
    """The same with the scale folded into the kernel, NHWC."""
    kernel, bias, scale, dense = params
    numbers = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(x, kernel * scale, (1, 1), "SAME", dimension_numbers=numbers)
    h = jax.nn.relu(h + (bias * scale + 0.3))
    return jax.nn.relu(h.mean((1, 2)) + 0.1) @ dense


def test_a_scale_folded_or_not_in_either_layout_is_one_map(rng):
    params = tuple(rng.normal(size=shape) for shape in ((3, 3, 2, 4), (4,), (4,), (4, 3)))
    assert (params[2] < 0).any()
    x = rng.normal(size=(1, 8, 8, 2))
    first, last = (carry(params, x, apply_fn) for apply_fn in (channels_first, channels_last))
    np.testing.assert_allclose(first.positive, last.positive, **CLOSE)
    np.testing.assert_allclose(first.negative, last.negative, **CLOSE)


@pytest.mark.parametrize("size", [1e-18, 1e-9, 1e9])
def test_finite_and_complete_in_float32_whatever_the_size_of_weights(rng, size):
    layers = [rng.normal(size=shape).astype(np.float32) for shape in ((128, 8), (8, 8), (8, 3))]

    def network(layers, x):
        h = x.reshape(len(x), -1)
        for weight in layers[:-1]:
            h = jax.nn.relu(h @ weight * size + 0.5) / size
        return h @ layers[-1]

    x = rng.normal(size=(1, 8, 8, 2)).astype(np.float32)
    a = carry(layers, x, network)
    assert a.status.all() and np.isfinite(a.map).all()
    np.testing.assert_allclose(a.positive.sum(), a.y_positive[0], rtol=1e-4)
    np.testing.assert_allclose(a.negative.sum(), a.y_negative[0], rtol=1e-4)


def test_whole_numbers_carry_as_the_same_weights(rng):
    """As in a quantised network, whose product of floats and int8 is one of floats."""
    whole, bias = rng.integers(-128, 128, (3, 4)).astype(np.int8), rng.normal(size=4)
    dense, x = rng.normal(size=(4, 3)), rng.normal(size=(1, 4, 4, 3))
    assert (whole < 0).any()

    def network(weight, x):
        h = jax.lax.dot_general(x, weight, (((3,), (0,)), ((), ())), preferred_element_type=x.dtype)
        return jax.nn.relu(h / 64 + bias).mean((1, 2)) @ dense

    found, expected = (carry(w, x, network) for w in (whole, whole.astype(float)))
    np.testing.assert_allclose(found.positive, expected.positive, **CLOSE)
    np.testing.assert_allclose(found.negative, expected.negative, **CLOSE)
