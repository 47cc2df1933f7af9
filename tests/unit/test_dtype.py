"""`DMBP(dtype=…)`: half precision for the optimiser's passes alone, float64 for all of a call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.errors import InputError

LAYERS = NETWORKS["residual"]
PARAMS = jax.tree.map(lambda a: np.float32(a), make_params(LAYERS, 0))
NETWORK = apply_fn_of(LAYERS)
IMAGES = np.stack([make_image(seed) for seed in range(3)]).astype(np.float32)
LABELS = np.array([0, 3, 1])


def attribute(x, label, config, **options):
    return dmbp_jax.attribute(PARAMS, x, label, apply_fn=NETWORK, config=config, **options)


def test_bfloat16_is_for_the_loop_alone():
    """F(x), gates and maps are those of the network; only the masks come from rounded passes."""
    full, half = (
        attribute(IMAGES, LABELS, DMBP(8), return_masks=True),
        attribute(IMAGES, LABELS, DMBP(8, dtype="bfloat16"), return_masks=True),
    )
    assert half.map.dtype == jnp.float32
    np.testing.assert_array_equal(half.y, full.y)
    moved = [np.abs(a - b).max() for a, b in zip(half.masks, full.masks, strict=True)]
    assert 0 < max(moved) < 0.1
    for k in range(len(IMAGES)):
        masks = [mask[k] for mask in half.masks]
        whole = dmbp_jax.decompose(PARAMS, IMAGES[k], LABELS[k], masks, apply_fn=NETWORK)
        np.testing.assert_allclose(half.positive[k], whole.positive, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_bfloat16_with_evidence_of_the_input():
    config = DMBP(8, dtype="bfloat16", evidence="input")
    result = attribute(IMAGES, LABELS, config)
    expected = attribute(IMAGES, LABELS, DMBP(8, evidence="input"))
    np.testing.assert_array_equal(result.y_bias, expected.y_bias)
    scale = np.abs(expected.y_positive).max()
    np.testing.assert_allclose(result.y_positive, expected.y_positive, atol=0.05 * scale)


def test_float64_of_float32_images_is_for_everything(x64):
    """A dtype that is more precise than the images is that of gates and maps too."""
    x, params = np.float32(make_image(0)), make_params(LAYERS, 0)
    low = jax.tree.map(np.float32, params)
    result = dmbp_jax.attribute(low, x, 0, apply_fn=NETWORK, config=DMBP(2, dtype="float64"))
    exact = dmbp_jax.attribute(
        jax.tree.map(np.float64, low), np.float64(x), 0, apply_fn=NETWORK, config=DMBP(2)
    )
    assert result.map.dtype == jnp.float64
    np.testing.assert_allclose(result.y_positive, exact.y_positive, rtol=1e-12)
    np.testing.assert_allclose(result.map, exact.map, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("evidence", ["all", "input"])
def test_images_of_another_dtype_than_the_network_computes_in(x64, evidence):
    """Maps have the dtype of the images; nothing else of the images' precision is lost."""
    params, config = make_params(LAYERS, 0), DMBP(2, evidence=evidence)
    x = np.float32(make_image(0))
    found, exact = (
        dmbp_jax.attribute(params, image, 0, apply_fn=NETWORK, config=config)
        for image in (x, np.float64(x))
    )
    assert found.map.dtype == found.history.dtype == jnp.float32
    np.testing.assert_allclose(found.history, exact.history, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.map, exact.map, rtol=1e-4, atol=1e-6)
    halved = dmbp_jax.attribute(
        params, np.float64(x), 0, config=config, apply_fn=lambda *a: NETWORK(*a).astype("bfloat16")
    )
    assert halved.map.dtype == halved.history.dtype == jnp.float64


def test_float64_needs_jax_to_have_it():
    with pytest.raises(InputError, match=r"dtype: .*float64.*jax_enable_x64"):
        attribute(IMAGES, LABELS, DMBP(2, dtype="float64"))


def test_a_network_that_is_another_one_in_low_precision_is_refused():
    def network(params, x):
        h = jax.nn.relu(x.mean((1, 2)))
        return (jax.nn.relu(h - 0.1) if x.dtype == jnp.bfloat16 else h) @ params

    eye = np.eye(IMAGES.shape[-1], dtype=np.float32)
    with pytest.raises(InputError, match=r"dtype: Expected .* same activations in bfloat16"):
        dmbp_jax.attribute(eye, IMAGES, 1, apply_fn=network, config=DMBP(2, dtype="bfloat16"))
