"""One trace a network: how often its code runs, what is kept of it, and whose errors are shown."""

import gc
import traceback
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.errors import InputError
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS

X = np.asarray(np.random.default_rng(0).normal(size=(5, 4, 4, 3)), np.float32)
WEIGHTS = np.asarray(np.random.default_rng(1).normal(size=(48, 3)), np.float32)
FEW = DMBP(steps=2)


def make_network():
    """A new function each time, and the number of times that its code ran."""
    runs = []

    def network(params, x):
        runs.append(x.shape)
        return jax.nn.relu(x - 0.1).reshape(len(x), -1) @ params

    return network, runs


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"progress": True}])
def test_a_first_call_traces_the_network_once(options):
    network, runs = make_network()
    for _ in range(2):
        dmbp_jax.attribute(WEIGHTS, X, 1, apply_fn=network, config=FEW, **options)
    assert runs == [(1, 4, 4, 3)]


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "deeplift", "gradcam"])
def test_every_method_reads_the_same_trace(name):
    network, runs = make_network()
    dmbp_jax.sites(WEIGHTS, X, apply_fn=network)
    METHODS[name](WEIGHTS, X, 1, apply_fn=network)
    dmbp_jax.attribute(WEIGHTS, X, apply_fn=network, config=FEW)
    assert runs == [(1, 4, 4, 3)]


def test_a_bound_method_is_traced_once():
    class Net:
        runs = 0

        def apply(self, params, x):
            Net.runs += 1
            return jax.nn.relu(x.reshape(len(x), -1)) @ params

    net = Net()
    for _ in range(3):
        dmbp_jax.attribute(WEIGHTS, X, 1, apply_fn=net.apply, config=FEW)
    assert Net.runs == 1


def test_nothing_of_a_function_outlives_it():
    def explain_own_network():
        weights = jnp.asarray(WEIGHTS)

        def network(_, x):
            return jax.nn.relu(x.reshape(len(x), -1)) @ weights

        dmbp_jax.attribute(None, X, 1, apply_fn=network, config=FEW)
        METHODS["gradient"](None, X, 1, apply_fn=network)
        return weakref.ref(network), weakref.ref(weights)

    of_function, of_weights = explain_own_network()
    gc.collect()
    assert of_function() is None
    assert of_weights() is None


def test_captured_weights_that_are_traced_are_not_kept():
    def network_of(weights):
        return lambda _, x: jax.nn.relu(x.reshape(len(x), -1)) @ weights

    @jax.jit
    def maps(weights, x):
        return dmbp_jax.attribute(None, x, 1, apply_fn=network_of(weights), config=FEW).map

    expected = dmbp_jax.attribute(None, X, 1, apply_fn=network_of(WEIGHTS), config=FEW).map
    np.testing.assert_allclose(maps(WEIGHTS, X), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps(2 * WEIGHTS, X), 2 * expected, rtol=1e-5, atol=1e-6)


class OwnError(Exception):
    """Raised by a network."""


@pytest.mark.parametrize("error", [KeyError("kernel"), TypeError("bug"), OwnError("bug")])
def test_a_bug_in_the_network_keeps_its_own_error_and_traceback(error):
    def buggy_line(params, x):
        raise error

    with pytest.raises(type(error)) as caught:
        dmbp_jax.attribute(WEIGHTS, X, 1, apply_fn=buggy_line, config=FEW)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "buggy_line" in frames
    assert any("(1, 4, 4, 3)" in note for note in caught.value.__notes__)


def test_images_of_a_wrong_shape_are_an_input_error_with_its_cause():
    network, _ = make_network()
    with pytest.raises(InputError, match=r"x: Expected images the network accepts") as caught:
        dmbp_jax.attribute(WEIGHTS, X[:, :3], 1, apply_fn=network)
    assert isinstance(caught.value.__cause__, TypeError)


def test_profiles_name_the_users_scope_and_file():
    def network(params, x):
        with jax.named_scope("block3"):
            return jax.nn.relu(x.reshape(len(x), -1)) @ params

    traced = trace(bind(jnp.asarray(WEIGHTS), network), jax.ShapeDtypeStruct((1, 4, 4, 3), "f4"))
    lowered = jax.jit(lambda t, x: t.graph().run(x)).lower(traced, X[:1])
    text = lowered.as_text(debug_info=True)
    assert "block3" in text
    assert "test_tracing.py" in text


def test_a_path_around_every_relu_counts_as_evidence(x64):
    """Eq. 11 on φ(Wx) + x: y⁺ holds the bypass; F_0 is the constant at x = 0, here 0.7."""
    rng = np.random.default_rng(4)
    weight, x = rng.normal(size=(12, 12)), rng.normal(size=(2, 2, 3))

    def network(params, x):
        flat = x.reshape(len(x), -1)
        return jax.nn.relu(flat @ params) + flat + 0.7

    mask, label = rng.uniform(size=12), 5
    parts = dmbp_jax.decompose(weight, x, label, [mask], apply_fn=network)
    flat = x.reshape(-1)
    gated = np.maximum(flat @ weight, 0)[label]
    np.testing.assert_allclose(parts.y, gated + flat[label], rtol=1e-12)
    np.testing.assert_allclose(parts.y_positive, mask[label] * gated + flat[label], rtol=1e-12)
    gradient = mask[label] * (gated > 0) * weight[:, label] + np.eye(12)[label]
    np.testing.assert_allclose(parts.positive.reshape(-1), gradient * flat, rtol=1e-12)
    np.testing.assert_allclose(parts.positive.sum(), parts.y_positive, rtol=1e-12)
