"""One trace a network: how often its code runs, what is kept of it, and whose errors are shown."""

import gc
import traceback
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

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


RUNS = [(1, 4, 4, 3), (4, 4, 4, 3)]  # its program, and whether it mixes images


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"progress": True}])
def test_a_first_call_traces_the_network_once(options):
    network, runs = make_network()
    for _ in range(2):
        dmbp_jax.attribute(WEIGHTS, X, 1, apply_fn=network, config=FEW, **options)
    assert runs == RUNS


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "deeplift", "gradcam"])
def test_every_method_reads_the_same_trace(name):
    network, runs = make_network()
    dmbp_jax.sites(WEIGHTS, X, apply_fn=network)
    METHODS[name](WEIGHTS, X, 1, apply_fn=network)
    dmbp_jax.attribute(WEIGHTS, X, apply_fn=network, config=FEW)
    assert runs == RUNS


def test_a_bound_method_is_traced_once():
    class Net:
        runs = 0

        def apply(self, params, x):
            Net.runs += 1
            return jax.nn.relu(x.reshape(len(x), -1)) @ params

    net = Net()
    for _ in range(3):
        dmbp_jax.attribute(WEIGHTS, X, 1, apply_fn=net.apply, config=FEW)
    assert Net.runs == len(RUNS)


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


class WithoutFeatures(nn.Module):
    """A bug of a network of Flax."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense()(x)  # pyrefly: ignore[missing-argument]


def raising(error):
    def buggy_line(params, x):
        raise error

    return buggy_line


def in_a_jitted_function(params, x):
    return jax.jit(raising(ValueError("the shape has no size")))(params, x)


def in_a_loop(params, x):
    return jax.lax.scan(lambda c, _: (raising(TypeError("bad axis"))(params, c), None), x, None, 2)


BUGS = {  # the error of each, raised in these lines or in JAX
    "a missing key": (raising(KeyError("kernel")), KeyError),
    "a type": (raising(TypeError("bug")), TypeError),
    "its own": (raising(OwnError("bug")), OwnError),
    "words of shapes": (raising(ValueError("the size of this axis")), ValueError),
    "words of channels": (raising(TypeError("channels of features")), TypeError),
    "inside jit": (in_a_jitted_function, ValueError),
    "inside a loop": (in_a_loop, TypeError),
    "a decision": (
        lambda p, x: x if x.mean() > 0 else -x,
        jax.errors.TracerBoolConversionError,
    ),
    "a number": (lambda p, x: x * float(x.mean()), jax.errors.ConcretizationTypeError),
    "no features": (lambda p, x: WithoutFeatures().init(jax.random.key(0), x), TypeError),
    "a reshape": (lambda p, x: x.reshape(7, -1), TypeError),
    "an axis": (lambda p, x: jnp.concatenate([x, x[0]], 1), TypeError),
    "a transpose": (lambda p, x: x.transpose(0, 1), TypeError),
    "NumPy": (lambda p, x: x + np.zeros(3) @ np.zeros(4), ValueError),
    "no array": (lambda p, x: jnp.add(x, "bias"), TypeError),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_in_the_network_keeps_its_own_error_and_traceback(name):
    network, error = BUGS[name]
    with pytest.raises(error) as caught:
        METHODS["gradient"](WEIGHTS, X, 1, apply_fn=network)
    assert type(caught.value) is error
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert files.count(__file__) > 1
    assert any("(1, 4, 4, 3)" in note for note in caught.value.__notes__)


ACCEPTS_OTHER_SHAPES = {
    "a product": lambda x: x @ np.zeros((2, 3)),
    "einsum": lambda x: jnp.einsum("nhwc,cd->nd", x, np.zeros((2, 3))),
    "a bias": lambda x: x.mean((1, 2)) + np.zeros(2),
    "a scale": lambda x: jnp.multiply(x.mean((1, 2)), jnp.zeros((1, 2))),
    "a convolution": lambda x: jax.lax.conv_general_dilated(
        x, np.zeros((1, 1, 2, 3)), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "Flax": lambda x: nn.Dense(3).apply({"params": {"kernel": np.zeros((2, 3))}}, x),
    "within jit": jax.jit(lambda x: x @ np.zeros((2, 3))),
}


@pytest.mark.parametrize("name", ACCEPTS_OTHER_SHAPES)
def test_images_of_a_wrong_shape_are_an_input_error_with_its_cause(name):
    network = ACCEPTS_OTHER_SHAPES[name]
    with pytest.raises(InputError, match=r"x: Expected images the network accepts") as caught:
        METHODS["gradient"](None, X, 1, apply_fn=lambda _, x: network(x))
    assert caught.value.__cause__ is not None


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
