"""Agreement with Captum on one network, from arrays that `make_captum_references.py` stored."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmbp_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("x64")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # stored as float32


@pytest.fixture(scope="module")
def stored():
    with np.load(Path(__file__).parents[1] / "references" / "captum_references.npz") as arrays:
        return dict(arrays)


def _weights(stored):
    return {
        key.partition("/")[2]: jnp.asarray(value, jnp.float64)
        for key, value in stored.items()
        if key.startswith("weights/")
    }


def _network(window):
    """The twin's forward pass with `reduce_window` settings for its max-pool."""

    def conv(w, name, x):
        x = jax.lax.conv_general_dilated(
            x, w[f"{name}.weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")
        )
        return x + w.get(f"{name}.bias", 0.0)

    def norm(w, name, x):
        deviation = jnp.sqrt(w[f"{name}.running_var"] + 1e-5)
        x = (x - w[f"{name}.running_mean"]) / deviation
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def network(w, x):
        x = jax.nn.relu(norm(w, "bn1", conv(w, "conv1", x)))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window)
        y = jax.nn.relu(norm(w, "bn2", conv(w, "conv2", x)))
        x = jax.nn.relu(norm(w, "bn3", conv(w, "conv3", y)) + x)
        x = jax.nn.relu(conv(w, "conv4", x))
        return x.mean((1, 2)) @ w["linear.weight"].T + w["linear.bias"]

    return network


OVERLAPPING = _network(((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))))
SEPARATE = _network(((1, 2, 2, 1), (1, 2, 2, 1), "VALID"))


def test_logits(stored):
    logits = OVERLAPPING(_weights(stored), jnp.asarray(stored["x"], jnp.float64))
    np.testing.assert_allclose(logits, stored["logits"], **CLOSE)


@pytest.mark.parametrize("name", ["gradient", "guided_backprop", "guided_gradcam"])
def test_bare_maps(stored, name):
    heat = METHODS[name](
        _weights(stored),
        jnp.asarray(stored["x"], jnp.float64),
        stored["labels"],
        apply_fn=OVERLAPPING,
        multiply_by_inputs=False,
    )
    # Captum's Grad-CAM averages the gradient over the 8 x 8 positions, ours adds.
    scale = 64 if name == "guided_gradcam" else 1
    assert np.abs(stored[name]).max() * scale > 0.01
    np.testing.assert_allclose(heat, scale * stored[name], rtol=1e-4, atol=1e-6)


def test_integrated_gradients(stored):
    x = jnp.asarray(stored["x"], jnp.float64)
    heat = METHODS["integrated_gradients"](
        _weights(stored), x, stored["labels"], apply_fn=OVERLAPPING
    )
    np.testing.assert_allclose(heat, stored["integrated_gradients"], **CLOSE)


def test_gradcam(stored):
    x = jnp.asarray(stored["x"], jnp.float64)
    heat = METHODS["gradcam"](_weights(stored), x, stored["labels"], apply_fn=OVERLAPPING)
    assert np.count_nonzero(stored["gradcam"]) > 50
    np.testing.assert_allclose(heat, 64 * stored["gradcam"], rtol=1e-4, atol=1e-6)


def test_deeplift_where_pooling_windows_do_not_overlap(stored):
    x = jnp.asarray(stored["x"], jnp.float64)
    heat = METHODS["deeplift"](_weights(stored), x, stored["labels"], apply_fn=SEPARATE)
    np.testing.assert_allclose(heat, stored["deeplift"], **CLOSE)
