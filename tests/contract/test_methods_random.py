"""SmoothGrad and RISE: their noise and masks against float64 NumPy, and their random keys."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_cases import APPLY, CLOSE, LABEL, make_case
from methods_oracle import enlarge_centres
from short_methods import run, slow_beside
from small_networks import NETWORKS, make_image, make_params

from dmbp_jax.engine.keys import check_key
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.methods import METHODS
from dmbp_jax.methods.keys import image_key
from dmbp_jax.methods.random_masks import random_mask

IMAGE = (8, 7, 3)
both_methods = pytest.mark.parametrize("name", ["smoothgrad", "rise"])


@pytest.mark.usefixtures("x64")
def test_smoothgrad_is_the_mean_over_the_documented_noise():
    f, params, x, oracle = make_case("residual")
    key = jax.random.key(3)
    heat = METHODS["smoothgrad"](params, x, LABEL, apply_fn=f, key=key, n_samples=4)
    sigma = 0.15 * (x.max() - x.min())
    mean = np.zeros_like(x)
    for i in range(4):
        noise_key = jax.random.fold_in(jax.random.fold_in(key, 0), i)
        noise = np.asarray(jax.random.normal(noise_key, x.shape, jnp.float64))
        mean += oracle.gradient(x + sigma * noise) / 4
    np.testing.assert_allclose(heat, mean * x, **CLOSE)
    plain = METHODS["smoothgrad"](params, x, LABEL, apply_fn=f, n_samples=3, noise_fraction=0)
    np.testing.assert_allclose(plain, oracle.gradient(x) * x, **CLOSE)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_rise_is_the_weighted_mean_of_its_masks(activation):
    f, params, x, oracle = make_case("residual")
    key, count = jax.random.key(5), 6
    heat = METHODS["rise"](
        params,
        x,
        LABEL,
        apply_fn=f,
        key=key,
        n_masks=count,
        cells=3,
        keep=0.4,
        activation=activation,
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


@pytest.mark.usefixtures("x64")
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


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), make_params(NETWORKS["pool"], 0, IMAGE)
    )


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.stack([make_image(seed, IMAGE) for seed in range(3)]), jnp.float32)


_run = partial(run, APPLY["pool"])


def _close(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(np.abs(b).max() + 1e-3))


@both_methods
def test_keys(name, params, images):
    key = jax.random.key(7)
    first = _run(name, params, images, 1, key=key)
    np.testing.assert_array_equal(first, _run(name, params, images, 1, key=key))
    _close(_run(name, params, images, 1, key=jax.random.PRNGKey(7)), first)
    assert np.abs(first - _run(name, params, images, 1)).max() > 1e-4
    default = _run(name, params, images, 1, key=jax.random.key(0))
    np.testing.assert_array_equal(_run(name, params, images, 1), default)
    for wrong, error in (
        (3, InputTypeError),
        (jnp.zeros(2), InputTypeError),
        (jax.random.split(key), InputError),
        (jax.random.split(key, (3, 1)), InputError),
    ):
        with pytest.raises(error, match="key: Expected"):
            _run(name, params, images, 1, key=wrong)
    with pytest.raises(InputError, match="key: Expected one random key or 1, one for each image"):
        _run(name, params, images[0], 1, key=jax.random.split(key, 3))


def test_with_one_key_noise_depends_on_the_position_in_the_batch_and_masks_do_not(params, images):
    twins = jnp.stack([images[0]] * 3)
    smooth, masked = (_run(name, params, twins, 1) for name in ("smoothgrad", "rise"))
    assert np.abs(smooth[0] - smooth[1]).max() > 1e-4
    _close(masked[0], masked[1])


@both_methods
def test_with_a_key_per_image_the_position_does_not_matter(name, params, images):
    labels = jnp.array([2, 0, 3])
    keys = jnp.stack([image_key(0, image.tobytes()) for image in np.asarray(images)])
    maps = _run(name, params, images, labels, key=keys)
    for i in range(3):
        _close(maps[i], _run(name, params, images[i], labels[i], key=keys[i]))
    turned = _run(name, params, images[::-1], labels[::-1], key=keys[::-1], chunk_size=2)
    _close(turned[::-1], maps)
    old_style = jax.random.key_data(keys)
    _close(_run(name, params, images, labels, key=old_style), maps)
    assert np.abs(maps[1] - _run(name, params, images[1], 0, key=keys[0])).max() > 1e-4


def test_image_key_is_that_of_the_name_and_the_seed():
    first_bytes = bytes.fromhex("ba7816bf")  # SHA-256 of "abc" begins so (FIPS 180-4)
    expected = jax.random.fold_in(jax.random.key(3), int.from_bytes(first_bytes, "little"))
    assert image_key(3, "abc") == expected == image_key(3, b"abc")
    assert image_key(4, "abc") != expected != image_key(3, "abd")


@pytest.mark.parametrize(
    ("name", "impl"),
    slow_beside(
        list(itertools.product(["smoothgrad", "rise"], ["threefry2x32", "rbg", "unsafe_rbg"])),
        ("smoothgrad", "threefry2x32"),
        ("smoothgrad", "unsafe_rbg"),
        ("rise", "rbg"),
        ("rise", "unsafe_rbg"),
    ),
)
def test_no_kind_of_key_looks_at_the_batch(name, impl, params, images):
    """JAX's rbg draws other numbers inside `vmap`: chunks and batch mates changed the map."""
    key = jax.random.key(7, impl=impl)
    whole = _run(name, params, images, 1, key=key)
    for chunk_size in (1, 4):
        _close(_run(name, params, images, 1, key=key, chunk_size=chunk_size), whole)
    _close(_run(name, params, images[0], 1, key=key), whole[0])
    keys = jax.random.split(key, 3)
    each = _run(name, params, images, 1, key=keys)
    _close(_run(name, params, images[2], 1, key=keys[2]), each[2])
    old_style = jax.random.key_data(key)
    np.testing.assert_array_equal(_run(name, params, images, 1, key=old_style), whole)
    other = _run(name, params, images, 1, key=jax.random.key(8, impl=impl))
    assert np.abs(other - whole).max() > 1e-4


@pytest.mark.parametrize("impl", slow_beside(["rbg", "unsafe_rbg"], "unsafe_rbg"))
@both_methods
def test_the_kind_of_keys_that_is_set_changes_nothing(name, impl, params, images):
    def maps():
        keys = jnp.stack([image_key(0, name) for name in ("dog", "cat", "owl")])
        return _run(name, params, images, 1), _run(name, params, images, 1, key=keys)

    expected = maps()
    with jax.default_prng_impl(impl):
        jax.tree.map(np.testing.assert_array_equal, maps(), expected)


def test_kinds_of_keys_and_their_words_are_told_apart():
    words = [
        check_key(jax.random.key(seed, impl=impl))
        for seed in (0, 1)
        for impl in ("threefry2x32", "rbg", "unsafe_rbg")
    ]
    data = {tuple(np.asarray(jax.random.key_data(one)).tolist()) for one in words}
    assert len(data) == 4  # rbg and unsafe_rbg have the same words
    key = jax.random.key(5)
    assert check_key(key) == key and check_key(None) == jax.random.key(0)
    with pytest.raises(InputError, match="Expected one random key, got keys of shape"):
        check_key(jax.random.split(key, 2))


@pytest.mark.parametrize("dtype", slow_beside(["bfloat16", "float16"], "float16"))
def test_sums_of_images_in_half_precision_do_not_stop_growing(dtype, params, images):
    """In bfloat16 the mean over 600 masks, one at a time, came out a quarter too small."""
    params, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, images[:1]))
    expected = _run("rise", params, images[:1], 1, n_masks=600)
    heat = _run("rise", params, x, 1, n_masks=600, chunk_size=1)
    assert heat.dtype == dtype
    np.testing.assert_allclose(heat.astype(np.float32), expected, rtol=0.03)
