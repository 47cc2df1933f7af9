"""Complete maps by carrying the biases' part back to the pixels, against literal loops."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from layerwise_oracle import LayerwiseOracle
from test_evidence import CLOSE, LABEL, NETWORKS, learn

import dmbp_jax
from dmbp_jax import DMBP

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
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
