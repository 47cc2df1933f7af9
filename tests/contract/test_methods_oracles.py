"""The deterministic methods against a literal float64 NumPy version of them, and completeness."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_cases import CLOSE, LABEL, SPATIAL, make_case
from methods_oracle import enlarge_centres
from scipy.ndimage import gaussian_filter
from short_methods import slow_beside
from small_networks import NETWORKS, make_image

import dmbp_jax
from dmbp_jax.engine.baselines import filter_separably, gaussian_taps, kernel_radius
from dmbp_jax.methods import METHODS
from dmbp_jax.methods.paths import RULES, quadrature

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("name", slow_beside(NETWORKS, "pool"))
def test_gradient(name):
    f, params, x, oracle = make_case(name)
    bare = METHODS["gradient"](params, x, LABEL, apply_fn=f, multiply_by_inputs=False)
    np.testing.assert_allclose(bare, oracle.gradient(x), **CLOSE)
    heat = METHODS["gradient"](params, x, LABEL, apply_fn=f)
    np.testing.assert_allclose(heat, oracle.gradient(x) * x, **CLOSE)


@pytest.mark.parametrize("name", NETWORKS)
def test_guided_backprop(name):
    f, params, x, oracle = make_case(name)
    heat = METHODS["guided_backprop"](params, x, LABEL, apply_fn=f)
    np.testing.assert_allclose(heat, oracle.guided_backprop(x) * x, **CLOSE)
    assert np.abs(oracle.guided_backprop(x) - oracle.gradient(x)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "rule"),
    slow_beside(
        list(itertools.product(["pool", "residual"], RULES)),
        *(("pool", rule) for rule in RULES if rule != "trapezoid"),
        ("residual", "trapezoid"),
    ),
)
def test_integrated_gradients(name, rule):
    f, params, x, oracle = make_case(name)
    start = make_image(7)
    heat, residual = METHODS["integrated_gradients"](
        params, x, LABEL, apply_fn=f, n_steps=7, rule=rule, baseline=start, return_residual=True
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


@pytest.mark.parametrize("name", slow_beside(NETWORKS, "dense", "conv", "pointwise", "pool"))
def test_integrated_gradients_are_complete(name):
    f, params, x, oracle = make_case(name)
    heat, residual = METHODS["integrated_gradients"](
        params, x, LABEL, apply_fn=f, n_steps=1000, return_residual=True
    )
    change = oracle.logit(x) - oracle.logit(np.zeros_like(x))
    assert abs(float(heat.sum()) - change) < 1e-3 * float(abs(heat).sum())
    np.testing.assert_allclose(residual, heat.sum() - change, atol=1e-12)


@pytest.mark.parametrize("name", ["zero", "mean", "blur"])
def test_named_baselines(name):
    f, params, x, _ = make_case("pool")
    start = {
        "zero": np.zeros_like(x),
        "mean": np.broadcast_to(x.mean((0, 1)), x.shape),
        "blur": gaussian_filter(x, (10, 10, 0), mode="constant"),
    }[name]
    for method, options in (("integrated_gradients", {"n_steps": 3}), ("deeplift", {})):
        got = METHODS[method](params, x, LABEL, apply_fn=f, baseline=name, **options)
        want = METHODS[method](params, x, LABEL, apply_fn=f, baseline=start, **options)
        np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize(
    ("name", "spacing"),
    slow_beside(
        list(itertools.product(["pool", "residual"], ["linear", "sqrt"])),
        ("pool", "sqrt"),
        ("residual", "linear"),
    ),
)
def test_blur_ig(name, spacing):
    f, params, x, oracle = make_case(name)
    fraction = np.arange(9) / 8
    sigmas = 4.0 * (np.sqrt(fraction) if spacing == "sqrt" else fraction)
    options = {"max_sigma": 4.0, "n_steps": 8, "spacing": spacing}
    heat, residual = METHODS["blur_ig"](
        params, x, LABEL, apply_fn=f, return_residual=True, **options
    )
    expected = oracle.blur_ig(x, sigmas, 0.01)
    np.testing.assert_allclose(heat, expected, rtol=1e-8, atol=1e-9)
    blurred = gaussian_filter(x, (4.0, 4.0, 0), mode="constant")
    change = oracle.logit(x) - oracle.logit(blurred)
    np.testing.assert_allclose(residual, expected.sum() - change, rtol=1e-7, atol=1e-9)


def test_square_root_spacing_ends_at_max_sigma_and_reaches_the_authors_schedule():
    f, params, x, oracle = make_case("pool")
    options = {"apply_fn": f, "n_steps": 8, "spacing": "sqrt"}
    authors = [(9.0 * i / 8) ** 0.5 for i in range(9)]  # ends at 3, not at 9
    heat = METHODS["blur_ig"](params, x, LABEL, max_sigma=3.0, **options)
    np.testing.assert_allclose(heat, oracle.blur_ig(x, authors, 0.01), rtol=1e-8, atol=1e-9)
    wider = METHODS["blur_ig"](params, x, LABEL, max_sigma=9.0, **options)
    ours = [9.0 * (i / 8) ** 0.5 for i in range(9)]
    np.testing.assert_allclose(wider, oracle.blur_ig(x, ours, 0.01), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", slow_beside(["pool", "residual"], "pool", "residual"))
def test_blur_ig_is_complete(name):
    f, params, x, oracle = make_case(name)
    heat, residual = METHODS["blur_ig"](
        params,
        x,
        LABEL,
        apply_fn=f,
        max_sigma=3.0,
        n_steps=3000,
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
@pytest.mark.parametrize("name", slow_beside(NETWORKS, "conv", "pointwise"))
def test_deeplift(name, seed):
    f, params, x, oracle = make_case(name, seed)
    start = make_image(7 + seed)
    for baseline in (start, np.zeros_like(x)):
        heat, residual = METHODS["deeplift"](
            params, x, LABEL, apply_fn=f, baseline=baseline, return_residual=True
        )
        multipliers = METHODS["deeplift"](
            params, x, LABEL, apply_fn=f, baseline=baseline, multiply_by_inputs=False
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


@pytest.mark.parametrize(
    "method", slow_beside(["deeplift", "guided_gradcam", "fullgrad"], "guided_gradcam", "fullgrad")
)
def test_maps_can_be_differentiated(method):
    """Along a random change of the parameters, against a finite difference."""
    f, params, x, _ = make_case("pool")
    params = jax.tree.map(jnp.asarray, params)
    leaves, treedef = jax.tree.flatten(params)
    change = treedef.unflatten(
        [np.random.default_rng(i).normal(size=leaf.shape) for i, leaf in enumerate(leaves)]
    )

    def value(step):
        moved = jax.tree.map(lambda leaf, other: leaf + step * other, params, change)
        heat = METHODS[method](moved, x, LABEL, apply_fn=f)
        return (heat * np.cos(np.arange(heat.size)).reshape(heat.shape)).sum()

    expected = (value(1e-6) - value(-1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(value)(0.0), expected, rtol=1e-5)


def test_deeplift_at_its_own_baseline_gives_the_local_derivative():
    f, params, x, oracle = make_case("residual")
    multipliers = METHODS["deeplift"](
        params, x, LABEL, apply_fn=f, baseline=x, multiply_by_inputs=False
    )
    np.testing.assert_allclose(multipliers, oracle.gradient(x), **CLOSE)


@pytest.mark.parametrize("f", [jax.nn.sigmoid, jax.nn.hard_sigmoid, lambda z: jax.nn.gelu(z) + 50])
def test_deeplift_takes_the_derivative_where_a_difference_is_rounding_alone(f):
    """Of an even region under an edge filter: f z = f z′ to the last digit, z ≠ z′."""
    edge = np.array([[1.0], [-1.0], [1e-17]])
    x = np.full((4, 4, 3), 0.37)

    def network(edge, x):
        return f(x @ edge).sum((1, 2))

    heat = METHODS["deeplift"](edge, x, 0, apply_fn=network)
    expected = x * edge[:, 0] * jax.grad(f)(0.0)
    np.testing.assert_allclose(heat, expected, rtol=1e-6)


@pytest.mark.parametrize("name", slow_beside(SPATIAL, "pool"))
def test_gradcam_and_guided_gradcam(name):
    f, params, x, oracle = make_case(name)
    sites = [s for s in dmbp_jax.sites(params, x, apply_fn=f) if s.kind != "bias"]
    numbers = [sum(s.kind == t.kind for t in sites[:at]) for at, s in enumerate(sites)]
    spatial = [len(s.shape) == 4 and s.shape[1] * s.shape[2] > 1 for s in sites]
    numbers, sites = (list(itertools.compress(each, spatial)) for each in (numbers, sites))
    any_positive = False
    for site, number in zip(sites, numbers, strict=True):
        small = oracle.gradcam(x, site.kind, number)
        expected = enlarge_centres(small, x.shape[:2])
        heat = METHODS["gradcam"](params, x, LABEL, apply_fn=f, layer=site.name)
        np.testing.assert_allclose(heat, expected, **CLOSE)
        any_positive |= bool(expected.any())
    assert any_positive
    last = [s for s in sites if s.kind == "relu"][-1]
    default = METHODS["gradcam"](params, x, LABEL, apply_fn=f)
    expected = METHODS["gradcam"](params, x, LABEL, apply_fn=f, layer=last.name)
    np.testing.assert_array_equal(default, expected)
    guided = METHODS["guided_gradcam"](params, x, LABEL, apply_fn=f, layer=sites[0].name)
    small = oracle.gradcam(x, sites[0].kind, numbers[0])
    product = oracle.guided_backprop(x) * x * enlarge_centres(small, x.shape[:2])[..., None]
    np.testing.assert_allclose(guided, product, **CLOSE)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_fullgrad(name, seed):
    f, params, x, oracle = make_case(name, seed)
    heat, residual = METHODS["fullgrad"](params, x, LABEL, apply_fn=f, return_residual=True)
    expected, left_over = oracle.fullgrad(x)
    assert abs(left_over) < 1e-10
    np.testing.assert_allclose(heat, expected, rtol=1e-8, atol=1e-10)
    assert abs(float(residual)) < 1e-4 * abs(oracle.logit(x))


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
