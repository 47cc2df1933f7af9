"""Complete maps by carrying the biases' part back to the pixels, against literal loops."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from oracle import Oracle
from test_evidence import CLOSE, LABEL, NETWORKS, apply_fn_of, learn, make_image, make_params

import dmbp_jax
from dmbp_jax import DMBP

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("evidence", ["all", "input"])
@pytest.mark.parametrize("name", NETWORKS)
def test_carried_maps_sum_to_the_gated_network(name, evidence):
    a, oracle, _, (masks, inverse) = learn(name, biases="carry", evidence=evidence)
    closed = oracle.output_bias()
    np.testing.assert_allclose(a.positive.sum(), oracle.gated(oracle.x, masks) - closed, **CLOSE)
    np.testing.assert_allclose(a.negative.sum(), oracle.gated(oracle.x, inverse) - closed, **CLOSE)


def convolution_matrix(kernel, side):
    """(outputs, inputs) of a convolution with stride 2 and no padding, entry by entry."""
    height, width, channels, features = kernel.shape
    out = (side - height) // 2 + 1
    matrix = np.zeros((out, out, features, side, side, channels))
    for row, column in np.ndindex(out, out):
        for i, j in np.ndindex(height, width):
            matrix[row, column, :, 2 * row + i, 2 * column + j, :] = kernel[i, j].T
    return matrix.reshape(out * out * features, -1)


def test_a_biass_part_goes_to_the_pixels_by_their_absolute_contributions():
    """One convolution and one dense layer with biases: every share by hand."""
    layers = [("conv", 3, 2, 2, 0), ("relu",), ("flatten",), ("dense", 5), ("relu",), ("dense", 4)]
    shape = (4, 4, 2)
    params, x = make_params(layers, 0, shape), make_image(0, shape)
    oracle = Oracle(layers, params, x, LABEL)
    call = {"apply_fn": apply_fn_of(layers), "config": DMBP.quick(), "return_masks": True}
    a = dmbp_jax.attribute(params, x, LABEL, biases="carry", **call)
    first, second = (np.asarray(mask) for mask in a.masks)
    conv = convolution_matrix(params[0]["weight"], 4)
    dense = params[3]["weight"].T
    pixels = abs(np.asarray(x)).ravel()
    for masks, heat in (([first, second], a.positive), ([1 - first, 1 - second], a.negative)):
        early, late = (
            (m * np.asarray(h)).ravel() for m, h in zip(masks, oracle.gates, strict=True)
        )
        to_late = params[5]["weight"][:, LABEL] * late
        to_early = dense.T @ to_late * early
        part_of_dense = to_late * params[3]["bias"]
        part_of_conv = to_early * np.broadcast_to(params[0]["bias"], (2, 2, 3)).ravel()
        # What each pixel contributes to every unit, in absolute numbers.
        reach_conv = abs(conv) * pixels
        reach_dense = abs(dense) @ (early[:, None] * reach_conv)
        expected = np.zeros(pixels.shape)
        rest = 0.0
        for parts, reach in ((part_of_conv, reach_conv), (part_of_dense, reach_dense)):
            for part, by_pixel in zip(parts, reach, strict=True):
                if by_pixel.sum() > 0:
                    expected += part * by_pixel / by_pixel.sum()
                else:
                    rest += part
        expected = oracle.attribution(masks) + (expected + rest / pixels.size).reshape(shape)
        np.testing.assert_allclose(heat, expected, **CLOSE)


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


def test_a_difference_carries_as_much_as_a_sum(rng):
    """With the second branch negated, the network and its complete map are the same."""
    net, x = Signs(), rng.normal(size=(8, 8, 2))
    variables = net.init(jax.random.key(0), x[None])
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
