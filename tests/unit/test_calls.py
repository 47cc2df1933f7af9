"""What a call takes: arrays of any library, labels and images inside jit. Right, or one error.

The right value is that of the same call with plain arrays of JAX, or of the same call outside jit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.errors import InputError, InputTypeError, UnsupportedNetworkError
from dmbp_jax.methods import METHODS

rng = np.random.default_rng(0)
X = np.asarray(rng.normal(size=(3, 4, 4, 3)), np.float32)
PARAMS = {
    "w": np.asarray(rng.normal(size=(3, 8)), np.float32),
    "h": np.asarray(rng.normal(size=(8, 3)), np.float32),
}
FEW = DMBP(steps=2)


def network(params, x):
    return jax.nn.relu(x @ params["w"]).mean((1, 2)) @ params["h"]


def gradient(params=PARAMS, x=X, label=1):
    return METHODS["gradient"](params, x, label, apply_fn=network)


class OfAnotherLibrary:
    """As a tensor of PyTorch: a dtype of its own, and `__array__`."""

    def __init__(self, values, dtype="torch.float32"):
        self._values, self.dtype, self.shape = values, dtype, values.shape

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._values, dtype)


class OnAnotherDevice(OfAnotherLibrary):
    """As one whose values NumPy cannot have."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


ARRAYS = {
    "big-endian": lambda a: a.astype(">f4"),
    "big-endian float64": lambda a: a.astype(">f8"),
    "longdouble": lambda a: a.astype(np.longdouble),
    "another library": OfAnotherLibrary,
    "float64": lambda a: a.astype(np.float64),
    "a view backwards": lambda a: a[::-1].copy()[::-1],
    "in the order of Fortran": np.asfortranarray,
    "masked nowhere": np.ma.masked_array,
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_any_kind(kind):
    expected = gradient()
    np.testing.assert_allclose(gradient(x=ARRAYS[kind](X)), expected, rtol=1e-5)
    params = {name: ARRAYS[kind](value) for name, value in PARAMS.items()}
    np.testing.assert_allclose(gradient(params), expected, rtol=1e-5)


def test_nested_lists_are_images():
    np.testing.assert_allclose(gradient(x=X.astype(float).tolist()), gradient(), rtol=1e-5)


NO_ARRAYS = {
    "objects": X.astype(object),
    "text": X.astype(str),
    "dates": X.astype("M8[s]"),
    "records": np.zeros((4, 4, 3), [("a", "f4"), ("b", "f4")]),
    "values hidden": np.ma.masked_array(X, X > 0),
    "values elsewhere": OnAnotherDevice(X),
}


@pytest.mark.parametrize("kind", NO_ARRAYS)
def test_what_is_no_array_of_numbers_is_refused(kind):
    with pytest.raises(InputTypeError, match=r"^x: Expected a"):
        gradient(x=NO_ARRAYS[kind])
    with pytest.raises(InputTypeError, match=r"^params: Expected an array"):
        gradient({**PARAMS, "more": NO_ARRAYS[kind]})


def test_what_else_is_no_image():
    for wrong in (X.astype(int), X.astype(complex), X > 0, jax.random.key(0), {"x": X}, None, "x"):
        with pytest.raises(InputTypeError, match=r"^x: Expected a"):
            gradient(x=wrong)


def test_text_and_numbers_among_params_stay_what_they_are():
    def scaled(params, x):
        assert params["name"] == "a network"
        return network(params, x) * params["scale"]

    params = {**PARAMS, "name": "a network", "scale": 2.0}
    found = METHODS["gradient"](params, X, 1, apply_fn=scaled)
    np.testing.assert_allclose(found, 2 * gradient(), rtol=1e-6)


LABELS = {
    "big-endian": np.array([0, 1, 2], ">i8"),
    "unsigned": np.array([0, 1, 2], np.uint8),
    "a list": [0, 1, 2],
    "of JAX": jnp.array([0, 1, 2]),
    "another library": OfAnotherLibrary(np.array([0, 1, 2]), "torch.int64"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(kind):
    expected = np.concatenate([gradient(x=X[i : i + 1], label=i) for i in range(3)])
    np.testing.assert_allclose(gradient(label=LABELS[kind]), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32"])
def test_a_label_inside_jit_that_is_no_class_has_no_numbers(dtype):
    labels = jnp.array([1, 100, 3], dtype)
    negative = jnp.array([1, -1, -100], "int32")

    @jax.jit
    def maps(labels):
        return gradient(label=labels)

    for wrong in (labels, negative):
        found = maps(wrong)
        np.testing.assert_allclose(found[0], gradient()[0], rtol=1e-5)
        assert np.isnan(found[1:]).all()


def test_a_label_inside_jit_that_is_no_class_has_status_false():
    def attribute(labels):
        return dmbp_jax.attribute(PARAMS, X, labels, apply_fn=network, config=FEW)

    found = jax.jit(attribute)(jnp.array([1, -1, 7]))
    expected = attribute(1)
    assert found.status.tolist() == [True, False, False]
    for name in ("y", "y_positive", "y_nuisance", "map", "history"):
        assert np.isnan(getattr(found, name)[1:]).all()
        np.testing.assert_allclose(getattr(found, name)[0], getattr(expected, name)[0], 1e-5, 1e-6)


@pytest.mark.slow
def test_a_label_inside_vmap_that_is_no_class_has_status_false():
    one = jax.vmap(lambda x, y: dmbp_jax.attribute(PARAMS, x, y, apply_fn=network, config=FEW))
    assert one(X, jnp.array([0, 3, -1])).status.tolist() == [True, False, False]


def test_a_label_inside_jit_that_is_no_class_has_no_score():
    heat = X.sum(-1)

    def scores(labels):
        return dmbp_jax.metrics.insertion(PARAMS, X, labels, heat, apply_fn=network, step=8).scores

    found = jax.jit(scores)(jnp.array([1, -1, 3]))
    np.testing.assert_allclose(found[0], scores(1)[0], rtol=1e-5)
    assert np.isnan(found[1:]).all()


def test_images_that_a_jitted_function_captured():
    images = jnp.asarray(X)
    of_labels = jax.jit(lambda label: gradient(x=images, label=label))(jnp.array([1, 1, 1]))
    of_params = jax.jit(lambda params: gradient(params, images))(PARAMS)
    for found in (of_labels, of_params):
        np.testing.assert_allclose(found, gradient(), rtol=1e-5)
    bad = images.at[1, 2, 3, 0].set(jnp.nan)
    with pytest.raises(InputError, match=r"finite values, got nan at index \(1, 2, 3, 0\)"):
        jax.jit(lambda label: gradient(x=bad, label=label))(1)


def one_logit(params, x):
    return network(params, x)[:, :1]


def test_the_probability_of_a_single_logit_is_its_sigmoid():
    heat = np.abs(X).sum(-1)
    for metric in (dmbp_jax.metrics.insertion, dmbp_jax.metrics.deletion):
        curve = metric(PARAMS, X, 0, heat, apply_fn=one_logit, step=16)
        whole = -1 if metric is dmbp_jax.metrics.insertion else 0
        expected = 1 / (1 + np.exp(-np.asarray(one_logit(PARAMS, X), np.float64)[:, 0]))
        np.testing.assert_allclose(curve.scores[:, whole], expected, rtol=1e-5)
        assert np.ptp(curve.scores, 1).min() > 1e-3


def test_rise_of_a_single_logit_looks_at_the_picture():
    heat = METHODS["rise"](PARAMS, X, 0, apply_fn=one_logit, key=jax.random.key(0), n_masks=8)
    flat = METHODS["rise"](PARAMS, 0 * X, 0, apply_fn=one_logit, key=jax.random.key(0), n_masks=8)
    assert np.abs(heat - flat).max() > 1e-3  # with P = 1 under every mask they would be equal


class InTraining(nnx.Module):
    """With a layer that does something else while it is trained."""

    def __init__(self, layer):
        self.first, self.layer = nnx.Linear(3, 8, rngs=nnx.Rngs(0)), layer
        self.last = nnx.Linear(8, 3, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.last(self.layer(nnx.relu(self.first(x))).mean((1, 2)))


def test_a_module_in_training_mode():
    dropout = InTraining(nnx.Dropout(0.5, rngs=nnx.Rngs(2)))
    with pytest.warns(UserWarning, match=r"inference mode.*random numbers.*eval\(\)"):
        METHODS["gradient"](dropout, X, 1)
    normalised = InTraining(nnx.BatchNorm(8, rngs=nnx.Rngs(2)))
    with pytest.raises(UnsupportedNetworkError, match=r"every image of a batch.*inference"):
        METHODS["gradient"](normalised, X, 1)
    for module in (dropout, normalised):
        module.eval()
        expected = jax.grad(lambda x, module=module: module(x)[:, 1].sum())(X) * X
        np.testing.assert_allclose(METHODS["gradient"](module, X, 1), expected, 1e-4, 1e-6)


def test_dropout_with_a_key_of_the_callers_is_that_network():
    def thinned(params, x):
        z = jax.nn.relu(x @ params["w"]).mean((1, 2))
        kept = jax.random.bernoulli(params["key"], 0.5, (8,))
        return (z * kept) @ params["h"]

    params = {**PARAMS, "key": jax.random.key(0)}
    expected = jax.grad(lambda x: thinned(params, x)[:, 1].sum())(X) * X
    found = METHODS["gradient"](params, X, 1, apply_fn=thinned)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
