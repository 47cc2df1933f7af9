"""The core of the package under JAX's strict settings: the same numbers, and no warning or refusal.

A setting changes no value. The network here is strict itself: it broadcasts by hand and names its
dtypes.
"""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short_methods import run, slow_beside

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.methods import METHODS
from dmbp_jax.metrics import attribution_inside, deletion, insertion, pointing_game

PRNG = ("threefry2x32", "rbg", "unsafe_rbg")
SETTINGS = {
    "strict dtype promotion": ("jax_numpy_dtype_promotion", "strict"),
    "no rank promotion": ("jax_numpy_rank_promotion", "raise"),
    "no NaN": ("jax_debug_nans", True),
    "no leaked tracer": ("jax_check_tracer_leaks", True),
    "float64 allowed": ("jax_enable_x64", True),
    "no transfers": ("jax_transfer_guard", "disallow"),
    **{f"keys of {name}": ("jax_default_prng_impl", name) for name in PRNG[1:]},
}
RANDOM = tuple(method.name for method in CATALOGUE if method.random)
SHAPE = (2, 8, 8, 3)
LABELS = np.array([1, 3])
OF_KEYS = tuple(f"keys of {name}" for name in PRNG[1:])  # the methods alone draw numbers
every_setting = pytest.mark.parametrize("setting", slow_beside(SETTINGS, *OF_KEYS))


def _arrays() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {"first": (3, 3, 3, 4), "second": (3, 3, 4, 4), "last": (4, 5)}
    params = {name: rng.normal(size=shape) / 3 for name, shape in shapes.items()}
    params |= {"shift": rng.normal(size=4) / 3, "bias": rng.normal(size=5)}
    images = rng.normal(size=SHAPE).astype(np.float32)
    return {name: value.astype(np.float32) for name, value in params.items()}, images


PARAMS, IMAGES = _arrays()
HEAT = np.random.default_rng(4).uniform(size=SHAPE[:3]).astype(np.float32)


def _convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def network_features(params, x):
    shift = params["shift"].reshape(1, 1, 1, -1)
    x = jax.nn.relu(_convolve(x, params["first"]) + shift)
    x = jax.lax.reduce_window(
        x, np.float32(-np.inf), jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    return jax.nn.relu(x + _convolve(x, params["second"]))


def network(params, x):
    """Convolutions, ReLUs, a max-pool, a residual and a dense layer."""
    x = network_features(params, x)
    return x.mean((1, 2)) @ params["last"] + params["bias"].reshape(1, -1)


@contextmanager
def switched_on(setting):
    name, value = SETTINGS[setting]
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _maps(name, **options):
    return run(network, name, PARAMS, IMAGES, LABELS, **options)


def _assert_close(found, expected):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def _attribution():
    config = DMBP(steps=2)
    return dmbp_jax.attribute(
        PARAMS, IMAGES, LABELS, apply_fn=network, config=config, return_masks=True
    )


@every_setting
def test_the_call(setting):
    expected = _attribution()
    with switched_on(setting):
        found = _attribution()
    _assert_close(found, expected)


OTHERS = {
    "quick": DMBP.quick(),
    "an optimiser": DMBP(steps=2, optimizer=optax.adam(optax.linear_schedule(0.1, 0.01, 5))),
    "bfloat16": DMBP(steps=2, dtype="bfloat16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("setting", ["strict dtype promotion", "no rank promotion"])
@pytest.mark.parametrize("biases", ["spread", "carry", "refine"])
def test_other_configurations(biases, setting, name):
    """With a maximum over positions, a smooth function and complete maps."""

    def pooled(params, x):
        z = jax.nn.silu(network_features(params, x))
        return z.max((1, 2)) @ params["last"] + params["bias"].reshape(1, -1)

    def call():
        options = {"apply_fn": pooled, "config": OTHERS[name], "biases": biases}
        return dmbp_jax.attribute(PARAMS, IMAGES, LABELS, **options).map

    expected = call()
    with switched_on(setting):
        found = call()
    _assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("biases", ["spread", "carry", "refine"])
def test_complete_maps_of_images_in_bfloat16_without_implicit_promotion(biases):
    params, images = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), (PARAMS, IMAGES))

    def call():
        options = {"apply_fn": network, "config": DMBP.quick(), "biases": biases}
        return dmbp_jax.attribute(params, images, LABELS, **options).map

    expected = call()
    with jax.numpy_dtype_promotion("strict"):
        found = call()
    np.testing.assert_array_equal(found, expected)


@every_setting
def test_the_parts(setting):
    """Sites, masks and the decomposition."""

    def parts():
        masks = dmbp_jax.init_masks(PARAMS, IMAGES, 0.25, apply_fn=network)
        return dmbp_jax.decompose(PARAMS, IMAGES, LABELS, masks, apply_fn=network)

    expected = parts()
    with switched_on(setting):
        assert len(dmbp_jax.sites(PARAMS, IMAGES, apply_fn=network)) == 5
        found = parts()
    _assert_close(found, expected)


OF_JAX = ("no NaN", "no leaked tracer", "float64 allowed", "no rank promotion")


@pytest.mark.parametrize("setting", slow_beside(SETTINGS, *OF_KEYS, *OF_JAX))
def test_the_metrics(setting):
    def values():
        options = {"apply_fn": network, "points": 4}
        return (
            insertion(PARAMS, IMAGES, LABELS, HEAT, **options),
            deletion(PARAMS, IMAGES, LABELS, HEAT, **options),
            attribution_inside(HEAT, HEAT > 0.5),
            pointing_game(HEAT, HEAT > 0.5, LABELS).mean,
        )

    expected = values()
    with switched_on(setting):
        found = values()
    _assert_close(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_over_samples_in_float64_without_implicit_promotion(x64, dtype):
    """Integers have 64 bits there."""
    params, images = jax.tree.map(lambda a: a.astype(dtype), (PARAMS, IMAGES))
    with jax.numpy_dtype_promotion("strict"):
        for name, few in {"smoothgrad": "n_samples", "rise": "n_masks"}.items():
            options = {"apply_fn": network, few: 2}
            assert METHODS[name](params, images, LABELS, **options).dtype == dtype
        curve = insertion(params, images, LABELS, HEAT, apply_fn=network, points=3)
        assert curve.scores.dtype == dtype


TODAY = {
    ("float64 allowed", "rise"): "its masks are drawn in the default float type",
}


def _cases():
    for setting in SETTINGS:
        for name in METHODS:
            reason = TODAY.get((setting, name))
            marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            yield pytest.param(setting, name, marks=marks, id=f"{name}, {setting}")


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "name"), list(_cases()))
def test_every_method(setting, name):
    expected = _maps(name)
    with switched_on(setting):
        found = _maps(name)
    _assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", PRNG)
@pytest.mark.parametrize("name", RANDOM)
def test_keys_of_every_implementation(name, implementation):
    """A typed key says what it is, whatever the default; another key gives another map."""
    first, second = (jax.random.key(seed, impl=implementation) for seed in (0, 1))
    found = _maps(name, key=first)
    np.testing.assert_array_equal(found, _maps(name, key=first))
    assert not np.array_equal(found, _maps(name, key=second))
    assert np.isfinite(found).all()
