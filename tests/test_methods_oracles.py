"""Every compared method against a literal float64 NumPy version of it, and completeness."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_oracle import Methods, enlarge_centres, flatten
from scipy.ndimage import gaussian_filter
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax.dmbp.decomposition import freeze
from dmbp_jax.graph.graph import trace
from dmbp_jax.graph.model import bind
from dmbp_jax.methods import METHODS
from dmbp_jax.methods.gaussian_blur import filter_separably, gaussian_taps, kernel_radius
from dmbp_jax.methods.integrated_gradients import RULES, quadrature
from dmbp_jax.methods.lpr import loss as lpr_loss
from dmbp_jax.methods.lpr import propagated_mask
from dmbp_jax.methods.rise import random_mask

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")
LABEL = 1
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
APPLY = {name: apply_fn_of(layers) for name, layers in NETWORKS.items()}  # compiled once each
SPATIAL = ["conv", "pool", "residual"]


def _case(name, seed=0):
    layers = NETWORKS[name]
    params, x = make_params(layers, seed), make_image(seed)
    return APPLY[name], params, x, Methods(layers, params, LABEL)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient(name):
    f, params, x, oracle = _case(name)
    bare = METHODS["gradient"](params, x, LABEL, apply_fn=f, multiply_by_input=False)
    np.testing.assert_allclose(bare, oracle.gradient(x), **CLOSE)
    heat = METHODS["gradient"](params, x, LABEL, apply_fn=f)
    np.testing.assert_allclose(heat, oracle.gradient(x) * x, **CLOSE)


@pytest.mark.parametrize("name", NETWORKS)
def test_guided_backprop(name):
    f, params, x, oracle = _case(name)
    heat = METHODS["guided_backprop"](params, x, LABEL, apply_fn=f)
    np.testing.assert_allclose(heat, oracle.guided_backprop(x) * x, **CLOSE)
    assert np.abs(oracle.guided_backprop(x) - oracle.gradient(x)).max() > 1e-3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["pool", "residual"])
def test_integrated_gradients(name, rule):
    f, params, x, oracle = _case(name)
    start = make_image(7)
    heat, residual = METHODS["integrated_gradients"](
        params, x, LABEL, apply_fn=f, points=7, rule=rule, baseline=start, return_residual=True
    )
    expected = oracle.integrated_gradients(x, start, 7, rule)
    np.testing.assert_allclose(heat, expected, **CLOSE)
    change = oracle.logit(x) - oracle.logit(start)
    np.testing.assert_allclose(residual, expected.sum() - change, **CLOSE)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("points", [2, 3, 25, 50, 101])
def test_quadrature_weights_sum_to_one_and_integrate_a_line_exactly(points, rule):
    alphas, weights = quadrature(points, rule)
    assert abs(weights.sum() - 1) < 1e-14
    assert abs((weights * alphas).sum() - 0.5) < 1e-14
    assert len(alphas) == points and alphas.min() >= 0 and alphas.max() <= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_integrated_gradients_are_complete(name):
    f, params, x, oracle = _case(name)
    heat, residual = METHODS["integrated_gradients"](
        params, x, LABEL, apply_fn=f, points=1000, return_residual=True
    )
    change = oracle.logit(x) - oracle.logit(np.zeros_like(x))
    assert abs(float(heat.sum()) - change) < 1e-3 * float(abs(heat).sum())
    np.testing.assert_allclose(residual, heat.sum() - change, atol=1e-12)


@pytest.mark.parametrize("name", ["zero", "mean", "blur"])
def test_named_baselines(name):
    f, params, x, _ = _case("pool")
    start = {
        "zero": np.zeros_like(x),
        "mean": np.broadcast_to(x.mean((0, 1)), x.shape),
        "blur": gaussian_filter(x, (10, 10, 0), mode="constant"),
    }[name]
    for method, options in (("integrated_gradients", {"points": 3}), ("deeplift", {})):
        got = METHODS[method](params, x, LABEL, apply_fn=f, baseline=name, **options)
        want = METHODS[method](params, x, LABEL, apply_fn=f, baseline=start, **options)
        np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize("spacing", ["linear", "sqrt"])
@pytest.mark.parametrize("name", ["pool", "residual"])
def test_blur_ig(name, spacing):
    f, params, x, oracle = _case(name)
    fraction = np.arange(9) / 8
    sigmas = 4.0 * (np.sqrt(fraction) if spacing == "sqrt" else fraction)
    options = {"max_sigma": 4.0, "steps": 8, "spacing": spacing}
    heat, residual = METHODS["blur_ig"](
        params, x, LABEL, apply_fn=f, return_residual=True, **options
    )
    expected = oracle.blur_ig(x, sigmas, 0.01)
    np.testing.assert_allclose(heat, expected, rtol=1e-8, atol=1e-9)
    blurred = gaussian_filter(x, (4.0, 4.0, 0), mode="constant")
    change = oracle.logit(x) - oracle.logit(blurred)
    np.testing.assert_allclose(residual, expected.sum() - change, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["pool", "residual"])
def test_blur_ig_is_complete(name):
    f, params, x, oracle = _case(name)
    heat, residual = METHODS["blur_ig"](
        params,
        x,
        LABEL,
        apply_fn=f,
        max_sigma=3.0,
        steps=3000,
        grad_step=1e-4,
        return_residual=True,
    )
    blurred = gaussian_filter(x, (3.0, 3.0, 0), mode="constant")
    change = oracle.logit(x) - oracle.logit(blurred)
    assert abs(float(heat.sum()) - change) < 1e-3 * float(abs(heat).sum())
    np.testing.assert_allclose(residual, heat.sum() - change, atol=1e-11)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.7, 3.0, 50.0])
def test_blur_is_scipys(sigma):
    x = make_image(0, (30, 17, 2))
    taps = jnp.asarray(gaussian_taps(sigma, kernel_radius(sigma)))
    expected = gaussian_filter(x, (sigma, sigma, 0), mode="constant")
    np.testing.assert_allclose(filter_separably(jnp.asarray(x), taps, taps), expected, atol=1e-13)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_deeplift(name, seed):
    f, params, x, oracle = _case(name, seed)
    start = make_image(7 + seed)
    for baseline in (start, np.zeros_like(x)):
        heat, residual = METHODS["deeplift"](
            params, x, LABEL, apply_fn=f, baseline=baseline, return_residual=True
        )
        multipliers = METHODS["deeplift"](
            params, x, LABEL, apply_fn=f, baseline=baseline, multiply_by_input=False
        )
        np.testing.assert_allclose(multipliers, oracle.deeplift(x, baseline), **CLOSE)
        change = oracle.logit(x) - oracle.logit(baseline)
        np.testing.assert_allclose(heat.sum(), change, rtol=1e-9)
        assert abs(float(residual)) < 1e-10


def test_deeplift_keeps_the_sum_through_a_pool_with_overlapping_windows_alone():
    def pool(params, x):
        window = ((1, 3, 3, 1), (1, 2, 2, 1), [(0, 0), (1, 1), (1, 1), (0, 0)])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window)
        return jax.nn.relu(x + 100).sum((1, 2)) @ params

    x, start = make_image(0, (9, 9, 2)), make_image(1, (9, 9, 2))
    params = jnp.asarray([[1.0, 2.0], [0.5, -1.0]])
    heat = METHODS["deeplift"](params, x, 0, apply_fn=pool, baseline=start)
    change = (pool(params, jnp.asarray(x)[None]) - pool(params, jnp.asarray(start)[None]))[0, 0]
    np.testing.assert_allclose(heat.sum(), change, rtol=1e-10)


def test_deeplift_at_its_own_baseline_gives_the_local_derivative():
    f, params, x, oracle = _case("residual")
    multipliers = METHODS["deeplift"](
        params, x, LABEL, apply_fn=f, baseline=x, multiply_by_input=False
    )
    np.testing.assert_allclose(multipliers, oracle.gradient(x), **CLOSE)


@pytest.mark.parametrize("name", SPATIAL)
def test_gradcam_and_guided_gradcam(name):
    f, params, x, oracle = _case(name)
    sites = [s for s in dmbp_jax.sites(params, x, apply_fn=f) if s.kind != "bias"]
    sites = [s for s in sites if len(s.shape) == 4 and s.shape[1] * s.shape[2] > 1]
    seen_positive = False
    for site in sites:
        small = oracle.gradcam(x, site.kind, site.index)
        expected = enlarge_centres(small, x.shape[:2])
        heat = METHODS["gradcam"](params, x, LABEL, apply_fn=f, layer=site.name)
        np.testing.assert_allclose(heat, expected, **CLOSE)
        seen_positive |= bool(expected.any())
    assert seen_positive
    last = [s for s in sites if s.kind == "relu"][-1]
    default = METHODS["gradcam"](params, x, LABEL, apply_fn=f)
    expected = METHODS["gradcam"](params, x, LABEL, apply_fn=f, layer=last.name)
    np.testing.assert_array_equal(default, expected)
    guided = METHODS["guided_gradcam"](params, x, LABEL, apply_fn=f, layer=sites[0].name)
    small = oracle.gradcam(x, sites[0].kind, sites[0].index)
    product = oracle.guided_backprop(x) * x * enlarge_centres(small, x.shape[:2])[..., None]
    np.testing.assert_allclose(guided, product, **CLOSE)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_fullgrad(name, seed):
    f, params, x, oracle = _case(name, seed)
    heat, residual = METHODS["fullgrad"](params, x, LABEL, apply_fn=f, return_residual=True)
    expected, left_over = oracle.fullgrad(x)
    assert abs(left_over) < 1e-10
    np.testing.assert_allclose(heat, expected, rtol=1e-8, atol=1e-10)
    assert abs(float(residual)) < 1e-4 * abs(oracle.logit(x))


def test_smoothgrad_is_the_mean_over_the_documented_noise():
    f, params, x, oracle = _case("residual")
    key = jax.random.key(3)
    heat = METHODS["smoothgrad"](params, x, LABEL, apply_fn=f, key=key, samples=4)
    sigma = 0.15 * (x.max() - x.min())
    mean = np.zeros_like(x)
    for i in range(4):
        noise_key = jax.random.fold_in(jax.random.fold_in(key, 0), i)
        noise = np.asarray(jax.random.normal(noise_key, x.shape, jnp.float64))
        mean += oracle.gradient(x + sigma * noise) / 4
    np.testing.assert_allclose(heat, mean * x, **CLOSE)
    plain = METHODS["smoothgrad"](params, x, LABEL, apply_fn=f, samples=3, noise_fraction=0)
    np.testing.assert_allclose(plain, oracle.gradient(x) * x, **CLOSE)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_rise_is_the_weighted_mean_of_its_masks(activation):
    f, params, x, oracle = _case("residual")
    key, count = jax.random.key(5), 6
    heat = METHODS["rise"](
        params, x, LABEL, apply_fn=f, key=key, masks=count, cells=3, keep=0.4, activation=activation
    )
    expected = np.zeros(x.shape[:2])
    for i in range(count):
        mask = np.asarray(
            random_mask(jax.random.fold_in(key, i), *x.shape[:2], 3, 0.4, jnp.float64)
        )
        logits = oracle.logits(x * mask[..., None])
        exponentials = np.exp(logits)
        softmax = exponentials[LABEL] / exponentials.sum()
        p = softmax if activation == "softmax" else 1 / (1 + np.exp(-logits[LABEL]))
        expected += p * mask / (count * 0.4)
    np.testing.assert_allclose(heat, expected, **CLOSE)


def test_rise_masks_are_enlarged_grids_at_a_random_shift():
    height, width, cells = 23, 30, 5
    masks = [
        np.asarray(random_mask(jax.random.key(i), height, width, cells, 0.5, jnp.float64))
        for i in range(300)
    ]
    cell = (-(-height // cells), -(-width // cells))
    grid_key, row_key, column_key = jax.random.split(jax.random.key(0), 3)
    grid = np.asarray(jax.random.bernoulli(grid_key, 0.5, (cells, cells)), float)
    large = enlarge_centres(grid, ((cells + 1) * cell[0], (cells + 1) * cell[1]))
    row = int(jax.random.randint(row_key, (), 0, cell[0]))
    column = int(jax.random.randint(column_key, (), 0, cell[1]))
    crop = large[row : row + height, column : column + width]
    np.testing.assert_allclose(masks[0], crop, atol=1e-12)
    assert np.min(masks) >= 0 and np.max(masks) <= 1
    assert abs(np.mean(masks) - 0.5) < 0.02


@pytest.mark.parametrize("name", SPATIAL)
def test_lpr_mask_is_the_weighted_backward_pass(name):
    f, params, x, oracle = _case(name)
    theta = _theta(name, oracle, x)
    got, _, _ = _lpr_mask(f, params, x, theta)
    np.testing.assert_allclose(got, oracle.lpr_mask(x, theta), **CLOSE)
    assert got.max() == 1 and got.min() == 0
    start = METHODS["lpr"](params, x, LABEL, apply_fn=f, steps=0)
    zero = [np.zeros_like(t) for t in theta]
    np.testing.assert_allclose(start, oracle.lpr_mask(x, zero), **CLOSE)


def test_lpr_gradient_is_that_of_finite_differences():
    f, params, x, oracle = _case("pool")
    theta = _theta("pool", oracle, x)
    model, image = bind(params, f), jnp.asarray(x)
    _, graph, frozen = _lpr_mask(f, params, x, theta)
    settings = {"area_weight": 2.0, "activation": "softmax"}
    value, gradient = jax.value_and_grad(
        lambda theta: lpr_loss(model, graph, frozen, theta, image, LABEL, **settings)
    )(tuple(jnp.asarray(t)[None] for t in theta))
    np.testing.assert_allclose(value, oracle.lpr_loss(x, theta, 2.0), rtol=1e-10)
    rng = np.random.default_rng(0)
    for layer, g in enumerate(gradient):
        for flat in rng.choice(g.size, min(15, g.size), replace=False):
            index = np.unravel_index(flat, g.shape)[1:]
            values = []
            for step in (1e-5, -1e-5):
                moved = [t.copy() for t in theta]
                moved[layer][index] += step
                values.append(oracle.lpr_loss(x, moved, 2.0))
            difference = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(g[0][index], difference, rtol=1e-5, atol=1e-8)


def test_lpr_lowers_its_loss():
    f, params, x, oracle = _case("residual")
    masks = [
        METHODS["lpr"](params, x, LABEL, apply_fn=f, steps=steps, area_weight=0.0)
        for steps in (0, 30)
    ]
    before, after = (
        -np.log(np.exp(z := oracle.logits(x * np.asarray(m)[..., None]))[LABEL] / np.exp(z).sum())
        for m in masks
    )
    assert after < before


def _theta(name, oracle, x):
    nodes = oracle.nodes(x)
    rng = np.random.default_rng(4)
    return [rng.normal(size=n.after.shape) for n in flatten(nodes) if n.kind == "relu"]


def _lpr_mask(f, params, x, theta):
    graph = trace(bind(params, f), jnp.asarray(x)[None])
    frozen = freeze(graph, jnp.asarray(x)[None])
    arrays = tuple(jnp.asarray(t)[None] for t in theta)
    return propagated_mask(graph, frozen, arrays, jnp.asarray(x), LABEL), graph, frozen


def test_every_method_is_listed_with_the_shared_arguments():
    assert list(METHODS) == [
        "gradient",
        "integrated_gradients",
        "smoothgrad",
        "blur_ig",
        "deeplift",
        "guided_backprop",
        "guided_gradcam",
        "gradcam",
        "fullgrad",
        "rise",
        "lpr",
        "dmbp",
    ]
    for name, method in METHODS.items():
        parameters = inspect.signature(method).parameters
        assert list(parameters)[:6] == ["params", "x", "label", "apply_fn", "key", "chunk_size"], (
            name
        )
