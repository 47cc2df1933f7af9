"""LPR: map and loss against float64 NumPy, gradients against finite differences, its maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_cases import CLOSE, LABEL, SPATIAL, make_case
from methods_oracle import flatten
from scipy.ndimage import gaussian_filter
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.data import choose_targets, list_generated
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS
from dmbp_jax.methods.learned_weights import evidence
from dmbp_jax.methods.learned_weights import loss as lpr_loss
from dmbp_jax.metrics import pointing_game


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", slow_beside(SPATIAL, "pool", "residual"))
def test_map_is_the_positive_part_of_the_weighted_backward_pass(name):
    f, params, x, oracle = make_case(name)
    theta = _theta(oracle, x)
    frozen, arrays = _prepare(f, params, x, theta)
    got = evidence(frozen, arrays, jnp.asarray(x), LABEL)
    expected = oracle.lpr_map(x, theta)
    np.testing.assert_allclose(got, expected, **CLOSE)
    assert expected.max() > 0 and expected.min() == 0
    start = METHODS["lpr"](params, x, LABEL, apply_fn=f, steps=0)
    zero = [np.zeros_like(t) for t in theta]
    np.testing.assert_allclose(start, oracle.lpr_map(x, zero), **CLOSE)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("seed", "label", "logit_falls"), [(0, 1, True), (2, 0, True), (1, 2, False)]
)
def test_gradient_is_that_of_finite_differences(seed, label, logit_falls):
    f, params, x, oracle = make_case("pool", seed)
    oracle.label = label
    theta = _theta(oracle, x)
    fill = gaussian_filter(x, (2.0, 2.0, 0))
    frozen, arrays = _prepare(f, params, x, theta)
    assert (oracle.lpr_loss(x, theta, fill, 0.0) > 0) == logit_falls

    @jax.jit
    @jax.value_and_grad
    def both(theta):
        return lpr_loss(frozen, theta, jnp.asarray(x), label, jnp.asarray(fill), area_weight=2.0)

    value, gradient = both(arrays)
    np.testing.assert_allclose(value, oracle.lpr_loss(x, theta, fill, 2.0), rtol=1e-10)
    rng = np.random.default_rng(0)
    for layer, g in enumerate(gradient):
        for flat in rng.choice(g.size, min(15, g.size), replace=False):
            index = np.unravel_index(flat, g.shape)[1:]
            values = []
            for step in (1e-5, -1e-5):
                moved = [t.copy() for t in theta]
                moved[layer][index] += step
                values.append(oracle.lpr_loss(x, moved, fill, 2.0))
            difference = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(g[0][index], difference, rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_steps_are_those_of_adam_on_the_oracles_loss():
    f, params, x, oracle = make_case("pool")
    fill = gaussian_filter(x, (10.0, 10.0, 0), mode="constant")
    theta = [np.zeros_like(t) for t in _theta(oracle, x)]
    mean = [np.zeros_like(t) for t in theta]
    square = [np.zeros_like(t) for t in theta]
    for step in (1, 2):
        gradient = _finite_differences(lambda t: oracle.lpr_loss(x, t, fill, 1.0), theta)
        for layer, g in enumerate(gradient):
            mean[layer] = 0.9 * mean[layer] + 0.1 * g
            square[layer] = 0.999 * square[layer] + 0.001 * g**2
            direction = np.sqrt(square[layer] / (1 - 0.999**step)) + 1e-8
            theta[layer] = theta[layer] - 0.03 * mean[layer] / (1 - 0.9**step) / direction
    heat = METHODS["lpr"](params, x, LABEL, apply_fn=f, steps=2)
    np.testing.assert_allclose(heat, oracle.lpr_map(x, theta), rtol=1e-4, atol=1e-6)
    assert np.abs(heat - METHODS["lpr"](params, x, LABEL, apply_fn=f, steps=0)).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_images_in_half_precision(dtype):
    """In float16 Adam's epsilon is 0, and 0 / 0 was learned where no gradient arrives."""
    rng = np.random.default_rng(0)
    params, x = rng.normal(size=(2, 3, 3)), rng.normal(size=(4, 4, 3))

    def network(params, x):
        return jax.nn.relu(x @ params[0]).mean((1, 2)) @ params[1]

    def run(dtype):
        cast = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, x))
        return METHODS["lpr"](*cast, LABEL, apply_fn=network, steps=5)

    full, half = run("float32"), run(dtype)
    assert half.dtype == dtype
    np.testing.assert_allclose(half.astype(np.float32), full, rtol=0.1, atol=0.03 * full.max())


@pytest.fixture(scope="module")
def generated():
    """The built-in network, forty targets as `dmbp evaluate` draws them, and their maps.

    Adam divides by the size of small gradients: rounding alone can move the maximum of a map.
    """
    net = dmbp_jax.load("builtin")
    targets = choose_targets(list_generated(size=240), images_per_class=4)
    x = np.stack([net.preprocess(target.picture.open()) for target in targets])
    labels = np.array([target.label for target in targets])
    drawn = [target.picture.mask(target.label) for target in targets]
    masks = np.stack([np.asarray(net.crop(mask.convert("RGB")))[..., 0] > 127 for mask in drawn])
    return net, x, labels, masks, np.asarray(METHODS["lpr"](net, x, labels))


@pytest.mark.slow
def test_few_pixels_share_the_maximum(generated):
    *_, heat = generated
    tied = (heat == heat.max((1, 2), keepdims=True)).mean((1, 2))
    assert tied.max() < 0.01


@pytest.mark.slow
def test_the_maximum_lies_on_the_object(generated):
    *_, masks, heat = generated
    hits = np.asarray(pointing_game(heat, masks, tolerance=96 * 15 / 224).hit)
    assert hits.mean() >= 0.85


@pytest.mark.slow
def test_learning_makes_the_mask_keep_the_logit(generated):
    net, x, labels, _, heat = generated
    fill = np.stack([gaussian_filter(image, (10, 10, 0), mode="constant") for image in x])

    def lost(heat):
        mask = np.minimum(heat / np.percentile(heat, 90, axis=(1, 2), keepdims=True), 1)[..., None]
        shown = np.asarray(net(mask * x + (1 - mask) * fill))
        logits, shown = (a[np.arange(len(x)), labels] for a in (np.asarray(net(x)), shown))
        return np.mean(np.maximum(logits - shown, 0) / logits)

    start = np.asarray(METHODS["lpr"](net, x, labels, steps=0))
    assert lost(heat) < 0.2 < lost(start)


def _theta(oracle, x):
    rng = np.random.default_rng(4)
    relus = [node for node in flatten(oracle.nodes(x)) if node.kind == "relu"]
    return [rng.normal(size=node.after.shape) for node in relus]


def _prepare(f, params, x, theta):
    graph = trace(bind(params, f), jnp.asarray(x)[None]).graph()
    return graph.freeze(jnp.asarray(x)[None]), tuple(jnp.asarray(t)[None] for t in theta)


def _finite_differences(function, theta):
    gradient = [np.zeros_like(t) for t in theta]
    for layer, t in enumerate(theta):
        for index in np.ndindex(t.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = [a.copy() for a in theta]
                moved[layer][index] += step
                values.append(function(moved))
            gradient[layer][index] = (values[0] - values[1]) / 2e-5
    return gradient
